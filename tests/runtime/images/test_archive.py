"""The tar reader: every form of header, and bytes that are none."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import InvalidArchive, LayerError, LimitExceeded
from runtime.images.archive import ArchiveReader, Entry
from runtime.images.limits import Limits
from runtime.images.tarheader import BLOCK, parse_pax, pax_time
from tests.builders.archives import (
    archive,
    base256,
    directory,
    file,
    header,
    octal,
    padded,
    pax,
    pax_raw,
    pax_record,
)


def chunks_of(raw: bytes, size: int) -> Callable[[], bytes]:
    stream = io.BytesIO(raw)
    return lambda: stream.read(size)


def read_all(raw: bytes, chunk: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    reader = ArchiveReader(chunks_of(raw, chunk), Limits())
    found = []
    while (entry := reader.next()) is not None:
        content = b""
        while piece := reader.piece():
            content += piece
        found.append((entry, content))
    reader.finish()
    return found


def names(raw: bytes) -> list[bytes]:
    return [entry.name for entry, _ in read_all(raw)]


@pytest.mark.parametrize("chunk", [1, 7, 511, 512, 513, 1000, 1 << 20])
def test_chunks_of_any_size_give_the_same_entries(chunk: int) -> None:
    raw = archive(file("a", b"x" * 700), pax({"path": "long"}), file("b", b"y"), directory("d"))
    assert [(e.name, c) for e, c in read_all(raw, chunk)] == [
        (b"a", b"x" * 700),
        (b"long", b"y"),
        (b"d", b""),
    ]


def test_content_that_nobody_reads_is_skipped() -> None:
    reader = ArchiveReader(chunks_of(archive(file("a", b"x" * 5000), file("b")), 100), Limits())
    assert [reader.next().name, reader.next().name, reader.next()] == [b"a", b"b", None]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("what", "field", "size"),
    [
        ("octal with NUL", b"00000000017\0", 15),
        ("octal with spaces", b"         17 ", 15),
        ("octal without an end", b"000000000017", 15),
        ("nothing", b"\0" * 12, 0),
        ("base-256", base256(15, 12), 15),
    ],
)
def test_forms_of_a_number(what: str, field: bytes, size: int) -> None:
    [(entry, _)] = read_all(header(b"a", size=field) + padded(b"x" * size))
    assert entry.size == size


def test_base256_beyond_octal() -> None:
    reader = ArchiveReader(chunks_of(header(b"a", size=base256(10 << 30, 12)), 512), Limits())
    entry = reader.next()
    assert entry is not None and entry.size == 10 << 30


def test_old_signed_checksum() -> None:
    block = bytearray(header(b"caf\xe9"))
    signed = sum(block[:148]) + 8 * 32 + sum(block[156:]) - 256
    block[148:156] = octal(signed, 7) + b" "
    assert names(bytes(block)) == [b"caf\xe9"]


@pytest.mark.parametrize(
    ("what", "tail", "expected"),
    [
        ("two zero blocks", bytes(2 * BLOCK), [b"a"]),
        ("one zero block", bytes(BLOCK), [b"a"]),
        ("none", b"", [b"a"]),
        ("a lone zero block in the middle", bytes(BLOCK) + file("b"), [b"a", b"b"]),
        ("anything behind two", bytes(2 * BLOCK) + file("b") + b"junk", [b"a"]),
    ],
)
def test_ends(what: str, tail: bytes, expected: list[bytes]) -> None:
    assert names(file("a", b"x") + tail) == expected


@pytest.mark.parametrize(
    ("what", "raw"),
    [
        ("in a header", file("a", b"x")[:100]),
        ("in content", file("a", b"x" * 100)[:520]),
        ("in padding", file("a", b"x" * 100)[:700]),
        ("in an extension", pax({"path": "b"})[:600]),
        ("after an extension", pax({"path": "b"})),
    ],
)
def test_an_archive_that_is_cut_off_is_refused(what: str, raw: bytes) -> None:
    with pytest.raises(InvalidArchive):
        read_all(raw)


def test_finish_reads_what_is_behind_the_end() -> None:
    seen = []
    stream = io.BytesIO(archive(file("a")) + b"z" * 5000)

    def source() -> bytes:
        data = stream.read(100)
        seen.append(data)
        return data

    reader = ArchiveReader(source, Limits())
    while reader.next():
        pass
    reader.finish()
    assert b"".join(seen) == stream.getvalue()


def test_global_records_are_the_default_of_every_entry() -> None:
    raw = archive(
        pax({"mtime": "5", "uid": "7"}, b"g"),
        file("a"),
        pax({"mtime": "6"}),
        file("b"),
        pax({"uid": ""}, b"g"),
        file("c", uid=1),
    )
    entries = [entry for entry, _ in read_all(raw)]
    assert [entry.mtime for entry in entries] == [5 * 10**9, 6 * 10**9, 5 * 10**9]
    assert [entry.uid for entry in entries] == [7, 7, 1]


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        (b"1", 10**9),
        (b"1.5", 1_500_000_000),
        (b"1.123456789999", 1_123_456_789),
        (b"0.000000001", 1),
        (b"-1.5", 0),
        (b"253402300800", 0),
        (b"9" * 60, 0),
    ],
)
def test_pax_times(text: bytes, nanoseconds: int) -> None:
    assert pax_time(text, 0) == nanoseconds


# --- sparse files -------------------------------------------------------------------------------

REGIONS = [(0, 4), (4096, 3)]
CONTENT = b"headend"


def old_gnu_sparse(regions: list[tuple[int, int]], real: int, content: bytes) -> bytes:
    """Kind S with its map in the header and, from the fifth region on, in extra blocks."""
    fields = b"".join(octal(start, 12) + octal(length, 12) for start, length in regions[:4])
    block = bytearray(header(b"s", kind=b"S", size=len(content), magic=b"ustar  \0"))
    block[386 : 386 + len(fields)] = fields
    rest = regions[4:]
    block[482] = 1 if rest else 0
    block[483:495] = octal(real, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    raw = bytes(block)
    while rest:
        more = b"".join(octal(start, 12) + octal(length, 12) for start, length in rest[:21])
        rest = rest[21:]
        raw += (more.ljust(504, b"\0") + (b"\1" if rest else b"\0")).ljust(BLOCK, b"\0")
    return raw + padded(content)


def sparse_map_1_0(regions: list[tuple[int, int]]) -> bytes:
    lines = [len(regions), *(number for region in regions for number in region)]
    return padded(b"".join(b"%d\n" % line for line in lines))


@pytest.mark.parametrize(
    ("what", "raw"),
    [
        ("old GNU", old_gnu_sparse(REGIONS, 8192, CONTENT)),
        (
            "PAX 0.0",
            pax_raw(
                pax_record(b"GNU.sparse.size", b"8192")
                + pax_record(b"GNU.sparse.offset", b"0")
                + pax_record(b"GNU.sparse.numbytes", b"4")
                + pax_record(b"GNU.sparse.offset", b"4096")
                + pax_record(b"GNU.sparse.numbytes", b"3")
            )
            + file("s", CONTENT),
        ),
        (
            "PAX 0.1",
            pax({"GNU.sparse.size": "8192", "GNU.sparse.map": "0,4,4096,3"}) + file("s", CONTENT),
        ),
        (
            "PAX 1.0",
            pax(
                {
                    "GNU.sparse.major": "1",
                    "GNU.sparse.minor": "0",
                    "GNU.sparse.name": "s",
                    "GNU.sparse.realsize": "8192",
                }
            )
            + file("GNUSparseFile.0/s", sparse_map_1_0(REGIONS) + CONTENT),
        ),
    ],
)
def test_forms_of_a_sparse_file(what: str, raw: bytes) -> None:
    [(entry, content), (after, _)] = read_all(raw + file("after"))
    assert (entry.name, entry.size, entry.regions) == (b"s", 8192, REGIONS)
    assert content == CONTENT
    assert after.name == b"after"


def test_a_long_map_of_the_old_form() -> None:
    regions = [(1000 * i, 1) for i in range(60)]
    [(entry, content)] = read_all(old_gnu_sparse(regions, 60_000, b"x" * 60))
    assert entry.regions == regions and content == b"x" * 60


@pytest.mark.parametrize(
    ("what", "regions", "real"),
    [
        ("overlap", [(0, 4), (2, 3)], 100),
        ("out of order", [(50, 4), (0, 3)], 100),
        ("beyond the real size", [(0, 4), (99, 3)], 100),
        ("more than the content", [(0, 4), (50, 30)], 100),
        ("less than the content", [(0, 4)], 100),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    what: str, regions: list[tuple[int, int]], real: int
) -> None:
    with pytest.raises(InvalidArchive):
        read_all(old_gnu_sparse(regions, real, CONTENT))


def test_too_many_regions() -> None:
    """CVE-2025-58183: the map of a sparse file without a bound on its memory."""
    count = Limits().sparse_regions + 1
    listed = ",".join(f"{2 * i},1" for i in range(count))
    assert len(listed) < Limits().extension_bytes
    raw = pax({"GNU.sparse.size": str(3 * count), "GNU.sparse.map": listed})
    with pytest.raises(LimitExceeded):
        read_all(raw + file("s", b"x" * count))


@pytest.mark.parametrize("first_line", [b"99999999\n", b"-1\n", b"x\n", b"9" * 600])
def test_a_bad_map_in_the_content(first_line: bytes) -> None:
    records = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": "8192",
    }
    with pytest.raises((InvalidArchive, LimitExceeded)):
        read_all(pax(records) + file("s", padded(first_line) + b"x"))


# --- properties ---------------------------------------------------------------------------------


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_raise_only_what_is_declared(raw: bytes) -> None:
    try:
        read_all(raw)
    except LayerError:
        pass


@given(st.data())
@settings(max_examples=300)
def test_a_damaged_archive_raises_only_what_is_declared(data: st.DataObject) -> None:
    raw = bytearray(
        archive(
            pax({"path": "p", "size": "3", "mtime": "1.5", "SCHILY.xattr.user.a": "b"}),
            file("a", b"xyz"),
            old_gnu_sparse(REGIONS, 8192, CONTENT),
            pax({"GNU.sparse.size": "8192", "GNU.sparse.map": "0,4,4096,3"}),
            file("s", CONTENT),
        )
    )
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    for start in range(0, len(raw), BLOCK):  # let it get past the checksums
        block = raw[start : start + BLOCK]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + 256 + sum(block[156:])
            raw[start + 148 : start + 156] = b"%06o\0 " % total
    try:
        read_all(bytes(raw))
    except LayerError:
        pass


@given(st.binary(max_size=200))
def test_arbitrary_pax_records_raise_only_what_is_declared(raw: bytes) -> None:
    try:
        parse_pax(raw, 0)
    except InvalidArchive:
        pass


text = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1
)


@given(
    name=text.filter(lambda t: not t.endswith("/")),
    content=st.binary(max_size=2000),
    mode=st.integers(0, 0o7777),
    ids=st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)),
    mtime=st.integers(0, 2**33),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_reads_what_tarfile_writes(
    name: str, content: bytes, mode: int, ids: tuple[int, int], mtime: int, form: int
) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, mtime
    info.uid, info.gid = ids
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        tar.addfile(info, io.BytesIO(content))
    [(entry, found)] = read_all(out.getvalue(), 700)
    assert found == content
    assert (entry.name.decode(), entry.mode, entry.uid, entry.gid) == (name, mode, *ids)
    assert entry.mtime == mtime * 10**9
