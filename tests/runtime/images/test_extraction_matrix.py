"""The matrix every extractor must pass: hostile and odd archives, by the name of the attack.

Each case unpacks one archive beside canary files and compares the whole result. Whatever happens,
nothing outside of the layer may change. Cases are those of containerd's TestBreakouts, moby's
go-archive, umoci and the advisories since 2014; a few ids are in the names.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.digest import Digest
from runtime.errors import HostileEntry, InvalidArchive, LayerError, LimitExceeded
from runtime.images.limits import Limits
from runtime.images.unpack import Rules, Unpacked, unpack_layer
from tests.builders.archives import (
    archive,
    base256,
    describe,
    device,
    directory,
    fifo,
    file,
    hard_link,
    header,
    long_name,
    pax,
    pax_raw,
    symlink,
)

pytestmark = pytest.mark.root

OUT = "/etc"  # a place that exists on the host


class Playground:
    """A layer directory with canaries around it."""

    def __init__(self, path: Path) -> None:
        self.outside = path / "outside"
        self.layer = path / "outside" / "layers" / "root"
        self.sibling = path / "outside" / "layers" / "root-evil"
        self.layer.mkdir(parents=True)
        self.sibling.mkdir()
        for folder in (self.outside, self.outside / "layers", self.sibling):
            (folder / "canary").write_text("alive")
            (folder / "canary").chmod(0o640)
            os.utime(folder / "canary", (5, 5))
        self._before = self.seen_outside()

    def seen_outside(self) -> dict[str, tuple[int, ...]]:
        found = {}
        for folder, folders, files in os.walk(self.outside):
            if folder == str(self.layer):
                folders.clear()
                continue
            for name in [".", *folders, *files]:
                path = os.path.join(folder, name)
                if path != str(self.layer):
                    s = os.lstat(path)
                    nlink = 0 if name in folders or name == "." else s.st_nlink
                    found[path] = (s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_mtime_ns, nlink)
        return found

    def unpack(
        self, raw: bytes, *, rules: Rules | None = None, limits: Limits | None = None
    ) -> Unpacked:
        root = os.open(self.layer, os.O_RDONLY | os.O_DIRECTORY)
        digest = Digest.of(raw)
        blob = self.outside.parent / "blob"
        blob.write_bytes(raw)
        try:
            with open(blob, "rb", buffering=0) as opened:
                return unpack_layer(
                    opened,
                    root,
                    digest=digest,
                    size=len(raw),
                    diff_id=digest,
                    rules=rules or Rules(),
                    limits=limits,
                )
        finally:
            os.close(root)

    def assert_nothing_escaped(self) -> None:
        assert self.seen_outside() == self._before

    def tree(self) -> dict[str, str]:
        return describe(str(self.layer))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Playground]:
    playground = Playground(tmp_path)
    yield playground
    playground.assert_nothing_escaped()


def f(name: str | bytes, content: bytes = b"x", mode: int = 0o644) -> bytes:
    return file(name, content, mode=mode)


D, F = "d755", "f644 x"

BENIGN: list[tuple[str, list[bytes], dict[str, str]]] = [
    # names
    ("absolute name lands below the root", [f("/etc/x")], {"etc": D, "etc/x": F}),
    ("leading ./ and double slashes", [f(".//a///b")], {"a": D, "a/b": F}),
    ("dot-dot in the middle is lexical", [f("a/../b")], {"b": F}),
    ("dot-dot through a link is lexical", [symlink("a", "/"), f("a/../b")], {"a": "l /", "b": F}),
    ("name with dots", [f("..a"), f("b..")], {"..a": F, "b..": F}),
    ("non-UTF-8 name", [f(b"caf\xe9")], {"caf\udce9": F}),
    ("backslash and newline are letters", [f(b"a\\..\\b\n")], {"a\\..\\b\n": F}),
    ("names that differ in case", [f("A", b"1"), f("a", b"2")], {"A": "f644 1", "a": "f644 2"}),
    ("trailing slash makes a regular entry a directory", [header(b"d/", mode=0o755)], {"d": D}),
    (
        "a v7 header",
        [header(b"f", magic=b"", kind=b"\0", size=1) + b"x".ljust(512, b"\0")],
        {"f": F},
    ),
    ("a prefix joins", [header(b"c", prefix=b"a/b")], {"a": D, "a/b": D, "a/b/c": "f644 "}),
    (
        "GNU magic has no prefix",
        [header(b"c", prefix=b"12345", magic=b"ustar  \0")],
        {"c": "f644 "},
    ),
    ("PAX path over the header's", [pax({"path": "good"}), f("bad")], {"good": F}),
    ("GNU long name", [long_name(b"a/" + b"n" * 200), f("short")], {"a": D, "a/" + "n" * 200: F}),
    ("root entries", [directory("./"), directory("."), directory("/"), f("a")], {"a": F}),
    # directories
    (
        "mode 0 and 0555 directories are filled first",
        [directory("r", 0o555), f("r/a"), directory("z", 0), f("z/a")],
        {"r": "d555", "r/a": F, "z": "d0", "z/a": F},
    ),
    (
        "setgid and sticky directories",
        [directory("s", 0o2755), f("s/a"), directory("t", 0o1777)],
        {"s": "d2755", "s/a": F, "t": "d1777"},
    ),
    (
        "a directory twice: the last attributes",
        [directory("d", 0o700), f("d/a"), directory("d")],
        {"d": D, "d/a": F},
    ),
    # duplicates
    ("a file twice: the last wins", [f("a", b"1"), f("a", b"2", 0o600)], {"a": "f600 2"}),
    ("file over directory", [directory("a"), f("a/b"), f("a")], {"a": F}),
    ("directory over file", [f("a"), directory("a"), f("a/b")], {"a": D, "a/b": F}),
    (
        "directory over symlink replaces it",
        [directory("real"), symlink("a", "real"), directory("a"), f("a/b")],
        {"real": D, "a": D, "a/b": F},
    ),
    (
        "file over symlink replaces it",
        [f("real", b"1"), symlink("a", "real"), f("a", b"2")],
        {"real": "f644 1", "a": "f644 2"},
    ),
    ("symlink over directory", [directory("a"), f("a/b"), symlink("a", "c")], {"a": "l c"}),
    ("file over FIFO, and never opened", [fifo("a"), f("a")], {"a": F}),
    ("FIFO over file", [f("a"), fifo("a")], {"a": "p600"}),
    # symbolic links as parents
    (
        "parent is a link to a directory of the layer",
        [directory("usr"), directory("usr/lib"), symlink("lib", "usr/lib"), f("lib/x")],
        {"usr": D, "usr/lib": D, "usr/lib/x": F, "lib": "l usr/lib"},
    ),
    (
        "parent is an absolute link: from the layer's root",
        [directory("usr"), symlink("bin", "/usr"), f("bin/x")],
        {"usr": D, "usr/x": F, "bin": "l /usr"},
    ),
    (
        "parent is a link to what is missing: made inside",
        [symlink("lib64", "usr/lib64"), f("lib64/x")],
        {"lib64": "l usr/lib64", "usr": D, "usr/lib64": D, "usr/lib64/x": F},
    ),
    (
        "a chain of links",
        [symlink("a", "b"), symlink("b", "c"), directory("c"), f("a/x")],
        {"a": "l b", "b": "l c", "c": D, "c/x": F},
    ),
    (
        "link up and out ends at the root (CVE-2018-15664 family)",
        [symlink("a", "../../../.."), f("a/x")],
        {"a": "l ../../../..", "x": F},
    ),
    (
        "relative link to the host",
        [symlink("a", "../.."), f("a/canary")],
        {"a": "l ../..", "canary": F},
    ),
    (
        "link to /etc/passwd, then written through",
        [symlink("p", "/etc/passwd"), f("p", b"root::")],
        {"p": "f644 root::"},
    ),
    (
        "directory entry through a link does not chmod the host (CVE-2021-41089)",
        [symlink("a", ".."), directory("a/layers", 0o000)],
        {"a": "l ..", "layers": "d0"},
    ),
    ("a link's target is kept as it is", [symlink("a", "../../x/..//y")], {"a": "l ../../x/..//y"}),
    # sibling with a common prefix
    (
        "sibling prefix by a link",
        [symlink("a", "../root-evil"), f("a/canary")],
        {"a": "l ../root-evil", "root-evil": D, "root-evil/canary": F},
    ),
    # hard links
    ("hard link", [f("a"), hard_link("b", "a")], {"a": F, "b": F}),
    ("hard link by an absolute name", [f("a"), hard_link("d/b", "/a")], {"a": F, "d": D, "d/b": F}),
    (
        "hard link to a link links the link itself (cpython 157190)",
        [symlink("a", "/etc/passwd"), hard_link("b", "a", mode=0o4777)],
        {"a": "l /etc/passwd", "b": "l /etc/passwd"},
    ),
    (
        "hard link through a linked parent stays inside",
        [directory("d"), f("d/a"), symlink("s", "/d"), hard_link("b", "s/a")],
        {"d": D, "d/a": F, "s": "l /d", "b": F},
    ),
    (
        "hard link repeats its file's size, without content",
        [f("a"), header(b"b", kind=b"1", link=b"a", size=1000), f("c")],
        {"a": F, "b": F, "c": F},
    ),
    (
        "hard link over a file",
        [f("a", b"1"), f("b", b"2"), hard_link("b", "a")],
        {"a": "f644 1", "b": "f644 1"},
    ),
    ("hard link to itself", [f("a"), hard_link("a", "a"), hard_link("./a", "/a")], {"a": F}),
    (
        "hard link's own mode is not applied",
        [f("a"), hard_link("b", "a", mode=0o4777)],
        {"a": F, "b": F},
    ),
    # whiteouts
    ("whiteout", [f("d/.wh.x")], {"d": D, "d/x": "whiteout"}),
    ("whiteout of a file of the same layer is ignored, after", [f("x"), f(".wh.x")], {"x": F}),
    ("whiteout of a file of the same layer is ignored, before", [f(".wh.x"), f("x")], {"x": F}),
    (
        "whiteout and directory of one name: opaque, after",
        [directory("d"), f("d/a"), f(".wh.d")],
        {"d": "d755 opaque", "d/a": F},
    ),
    (
        "whiteout and directory of one name: opaque, before",
        [f(".wh.d"), directory("d"), f("d/a")],
        {"d": "d755 opaque", "d/a": F},
    ),
    (
        "whiteout, then a parent without an entry",
        [f(".wh.d"), f("d/a")],
        {"d": "d755 opaque", "d/a": F},
    ),
    (
        "whiteout of a link does not follow it",
        [symlink("s", "/etc"), f(".wh.s"), f("s/.wh.passwd")],
        {"s": "l /etc", "etc": D, "etc/passwd": "whiteout"},
    ),
    ("whiteout twice", [f(".wh.x"), f(".wh.x")], {"x": "whiteout"}),
    (
        "whiteout given as a hard link or a directory",
        [hard_link(".wh.x", "/etc/passwd"), directory(".wh.y")],
        {"x": "whiteout", "y": "whiteout"},
    ),
    ("opaque before its contents", [f("d/.wh..wh..opq"), f("d/a")], {"d": "d755 opaque", "d/a": F}),
    (
        "opaque after its contents",
        [directory("d"), f("d/a"), f("d/.wh..wh..opq")],
        {"d": "d755 opaque", "d/a": F},
    ),
    (
        "aufs's own files are left out",
        [f(".wh..wh.aufs"), directory(".wh..wh.plnk"), f(".wh..wh.plnk/1.2"), f("a")],
        {"a": F},
    ),
    # other kinds
    ("FIFO", [fifo("p", 0o640)], {"p": "p640"}),
    (
        "devices",
        [device("null", b"3", 1, 3, mode=0o666), device("loop", b"4", 7, 0, mode=0o660)],
        {"null": "c666 1:3", "loop": "b660 7:0"},
    ),
    (
        "device 0:0 of the archive would be a whiteout: left out",
        [device("x", b"3", 0, 0), f("a")],
        {"a": F},
    ),
    ("a contiguous file is a file", [file("c", b"x", kind=b"7")], {"c": F}),
    (
        "setuid and setgid stay, after content and owner",
        [file("su", b"x", mode=0o4755, uid=1, gid=2), file("sg", b"x", mode=0o2755)],
        {"su": "f4755 x", "sg": "f2755 x"},
    ),
    ("mode 0 file", [f("a", b"x", 0)], {"a": "f0 x"}),
    # numbers
    ("base-256 size", [header(b"a", size=base256(1, 12)) + b"x".ljust(512, b"\0")], {"a": F}),
    ("largest id", [file("a", b"x", uid=base256(4294967294, 8))], {"a": F}),
    (
        "mtime before 1970 and after 2262",
        [
            file("a", b"x", mtime=base256(-5, 12)),
            file("b", b"x", mtime=base256(1 << 60, 12)),
            pax({"mtime": "253402300799.5"}),
            f("c"),
        ],
        {"a": F, "b": F, "c": F},
    ),
    # ends
    ("volume label", [header(b"label", kind=b"V"), f("a")], {"a": F}),
    ("global PAX comment", [pax({"comment": "hi"}, b"g"), f("a")], {"a": F}),
]

REFUSED: list[tuple[str, list[bytes], type[LayerError]]] = [
    ("dot-dot out of the root", [f("../canary")], HostileEntry),
    ("dot-dot out, then in again", [f("a/../../layers/x")], HostileEntry),
    ("absolute dot-dot", [f("/../../canary")], HostileEntry),
    ("dot-dot at the end", [directory("a/../..")], HostileEntry),
    ("empty name", [f("")], HostileEntry),
    ("empty name of a link (cpython 149486)", [symlink("", "x")], HostileEntry),
    ("root replaced by a link (CVE-2021-29136)", [symlink("./", OUT), f("canary")], HostileEntry),
    ("root replaced by a file", [f(".")], HostileEntry),
    ("root replaced by a hard link", [f("a"), hard_link("/", "a")], HostileEntry),
    ("self-loop as parent", [symlink("a", "a"), f("a/x")], HostileEntry),
    ("two links in a circle", [symlink("a", "b"), symlink("b", "a"), f("a/x")], HostileEntry),
    ("parent is a file", [f("a"), f("a/b")], HostileEntry),
    ("parent is a FIFO", [fifo("a"), f("a/b")], HostileEntry),
    ("parent is a device", [device("a", b"3", 1, 3), f("a/b")], HostileEntry),
    ("symbolic link without a target", [symlink("a", "")], HostileEntry),
    ("hard link out, relative", [hard_link("a", "../canary")], HostileEntry),
    ("hard link out, deep", [hard_link("d/a", "d/../../../canary")], HostileEntry),
    ("hard link to the host, absolute", [hard_link("a", "/etc/passwd")], HostileEntry),
    (
        "hard link through a link to the host",
        [symlink("s", OUT), hard_link("a", "s/canary")],
        HostileEntry,
    ),
    (
        "hard link through a link up and out",
        [symlink("s", "../.."), hard_link("a", "s/canary")],
        HostileEntry,
    ),
    ("hard link before its file", [hard_link("b", "a"), f("a")], HostileEntry),
    ("hard link to a file of a lower layer", [hard_link("b", "bin/sh")], HostileEntry),
    ("hard link to a directory", [directory("d"), hard_link("b", "d")], HostileEntry),
    ("hard link to the root", [hard_link("b", "/")], HostileEntry),
    ("hard link without a target", [hard_link("b", "")], HostileEntry),
    ("hard link to a whiteout", [f(".wh.x"), hard_link("b", "x")], HostileEntry),
    ("hard link to a whiteout's name", [f(".wh.x"), hard_link("b", ".wh.x")], HostileEntry),
    (
        "hard link over the directory of its target",
        [directory("d"), f("d/a"), hard_link("d", "d/a")],
        HostileEntry,
    ),
    ("whiteout of nothing", [f("d/.wh.")], HostileEntry),
    ("whiteout of .", [f("d/.wh..")], HostileEntry),
    ("whiteout of .. removes the parent", [f(".wh...")], HostileEntry),
    ("entry inside a whiteout", [f(".wh.x/a")], HostileEntry),
    ("entry deep inside a whiteout", [f("d/.wh.x/a/b")], HostileEntry),
    ("device numbers that Linux has not", [device("a", b"3", 4096, 0)], HostileEntry),
    ("minor that Linux has not", [device("a", b"4", 0, 1 << 20)], HostileEntry),
    ("negative device", [header(b"a", kind=b"3", major=base256(-1, 8))], HostileEntry),
    ("negative size", [header(b"a", size=base256(-512, 12))], InvalidArchive),
    ("size beyond 64 bits", [header(b"a", size=b"\x80" + b"\xff" * 11)], InvalidArchive),
    ("huge size", [header(b"a", size=base256(1 << 62, 12))], LimitExceeded),
    ("size that is not octal", [header(b"a", size=b"99999999999\0")], InvalidArchive),
    ("size with a sign", [header(b"a", size=b"-0000000001\0")], InvalidArchive),
    ("size with an underscore", [header(b"a", size=b"0000000_1\0")], InvalidArchive),
    ("id 2**32-1 would be left unchanged", [file("a", uid=base256(0xFFFFFFFF, 8))], InvalidArchive),
    ("id beyond 32 bits", [pax({"uid": "4294967296"}), f("a")], InvalidArchive),
    ("negative id", [file("a", gid=base256(-1, 8))], InvalidArchive),
    ("bad checksum", [header(b"a", checksum=b"000000\0 ")], InvalidArchive),
    ("unknown kind", [header(b"a", kind=b"Z")], InvalidArchive),
    ("socket kind of Solaris", [header(b"a", kind=b"s")], InvalidArchive),
    ("GNU dump directory", [header(b"a", kind=b"D", size=512) + bytes(512)], InvalidArchive),
    ("file with a trailing slash and content", [f("a/")], InvalidArchive),
    ("PAX without length", [pax_raw(b"path=x\n"), f("a")], InvalidArchive),
    ("PAX length too long", [pax_raw(b"99 path=x\n"), f("a")], InvalidArchive),
    ("PAX length too short", [pax_raw(b"5 path=x\n"), f("a")], InvalidArchive),
    ("PAX length negative", [pax_raw(b"-9 path=x\n"), f("a")], InvalidArchive),
    ("PAX length zero", [pax_raw(b"0 path=x\n"), f("a")], InvalidArchive),
    ("PAX without newline", [pax_raw(b"9 path=xy"), f("a")], InvalidArchive),
    ("PAX without equals", [pax_raw(b"8 pathx\n"), f("a")], InvalidArchive),
    ("PAX path with NUL", [pax({"path": b"a\0b"}), f("a")], InvalidArchive),
    ("PAX linkpath with NUL", [pax({"linkpath": b"a\0b"}), symlink("a", "b")], InvalidArchive),
    ("PAX size negative", [pax({"size": "-1"}), f("a")], InvalidArchive),
    ("PAX size beyond 63 bits", [pax({"size": str(1 << 63)}), f("a")], InvalidArchive),
    ("PAX mtime not a number", [pax({"mtime": "nan"}), f("a")], InvalidArchive),
    ("global PAX path for every entry", [pax({"path": "x"}, b"g"), f("a")], InvalidArchive),
    ("global PAX size for every entry", [pax({"size": "5"}, b"g"), f("a")], InvalidArchive),
    (
        "two PAX headers for one entry",
        [pax({"path": "x"}), pax({"path": "y"}), f("a")],
        InvalidArchive,
    ),
    ("two long names for one entry", [long_name(b"x"), long_name(b"y"), f("a")], InvalidArchive),
    ("long name with a NUL inside", [long_name(b"x\0y"), f("a")], InvalidArchive),
    ("PAX header with nothing behind it", [pax({"path": "x"})], InvalidArchive),
    ("PAX header over 1 MiB", [pax({"comment": b"x" * (1 << 20)}), f("a")], LimitExceeded),
    ("GNU long name over the path limit", [long_name(b"n/" * 2100 + b"x"), f("a")], LimitExceeded),
    ("name component over 255 bytes", [pax({"path": "n" * 256}), f("a")], LimitExceeded),
    (
        "symbolic link target over 4095",
        [long_name(b"t" * 4096, b"K"), symlink("a", "b")],
        HostileEntry,
    ),
    ("deeper than the limit", [pax({"path": "d/" * 300 + "x"}), f("a")], LimitExceeded),
    ("xattr over 64 KiB", [pax({"SCHILY.xattr.user.x": b"x" * 65537}), f("a")], LimitExceeded),
    ("xattr without a name", [pax({"SCHILY.xattr.": b"x"}), f("a")], InvalidArchive),
    (
        "xattr that is not base64",
        [pax({"LIBARCHIVE.xattr.user.x": b"abc"}), f("a")],
        InvalidArchive,
    ),
]


@pytest.mark.parametrize(
    ("members", "expected"), [case[1:] for case in BENIGN], ids=[case[0] for case in BENIGN]
)
def test_gives_exactly_this_tree(
    place: Playground, members: list[bytes], expected: dict[str, str]
) -> None:
    place.unpack(archive(*members))
    assert place.tree() == expected


@pytest.mark.parametrize(
    ("members", "error"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_is_refused(place: Playground, members: list[bytes], error: type[LayerError]) -> None:
    with pytest.raises(error):
        place.unpack(archive(*members))


def test_an_absolute_link_to_a_real_place_of_the_host_stays_inside(place: Playground) -> None:
    target = str(place.outside)
    place.unpack(archive(symlink("a", target), f("a/canary"), directory("a", 0o700)))
    inside = target.lstrip("/") + "/canary"
    assert place.tree()[inside] == F
    assert place.tree()["a"] == "d700"


def test_the_size_that_skips_is_the_size_that_counts(place: Playground) -> None:
    """CVE-2025-62518: a reader that skips by the header's own size would see `evil`."""
    hidden = header(b"evil") + bytes(512)
    place.unpack(archive(pax({"size": "1024"}), header(b"a", size=0) + hidden, f("b")))
    assert sorted(place.tree()) == ["a", "b"]
    assert (place.layer / "a").read_bytes() == hidden


def test_the_same_attack_in_a_later_layer_meets_no_link(place: Playground) -> None:
    """Layers are unpacked apart: `bin/x` of a layer never sees `bin -> usr/bin` of a lower one."""
    place.unpack(archive(directory("bin"), f("bin/x")))
    assert place.tree() == {"bin": D, "bin/x": F}


def test_hard_links_share_one_file(place: Playground) -> None:
    place.unpack(archive(f("a"), hard_link("d/b", "a")))
    assert os.stat(place.layer / "a").st_ino == os.stat(place.layer / "d/b").st_ino


def test_a_replaced_file_leaves_its_other_link_alone(place: Playground) -> None:
    place.unpack(archive(f("a", b"1"), hard_link("b", "a"), f("a", b"2")))
    assert place.tree() == {"a": "f644 2", "b": "f644 1"}


def test_owners_times_and_special_bits(place: Playground) -> None:
    place.unpack(
        archive(
            directory("d", uid=7, gid=8, mtime=11),
            pax({"mtime": "12.5", "uid": "100000", "gid": "200000"}),
            f("d/a"),
            symlink("d/l", "x", uid=9, gid=9, mtime=13),
            fifo("d/p"),
        )
    )
    d, a, link = (os.lstat(place.layer / name) for name in ("d", "d/a", "d/l"))
    assert (d.st_uid, d.st_gid, d.st_mtime) == (7, 8, 11)
    assert (a.st_uid, a.st_gid, a.st_mtime_ns) == (100000, 200000, 12_500_000_000)
    assert (link.st_uid, link.st_gid, link.st_mtime) == (9, 9, 13)


def test_a_setgid_directory_does_not_give_its_group_to_files(place: Playground) -> None:
    place.unpack(archive(directory("s", 0o2755, gid=50), f("s/a"), directory("s/d")))
    assert os.stat(place.layer / "s/a").st_gid == 0
    assert os.stat(place.layer / "s/d").st_mode & 0o7777 == 0o755


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def test_capabilities_stay_and_overlays_own_marks_are_dropped(place: Playground) -> None:
    done = place.unpack(
        archive(
            pax(
                {
                    "SCHILY.xattr.security.capability": CAPABILITY,
                    "SCHILY.xattr.user.mine": b"kept\0too",
                    "SCHILY.xattr.trusted.overlay.metacopy": b"",
                    "SCHILY.xattr.user.overlay.whiteout": b"y",
                    "SCHILY.xattr.security.selinux": b"host's",
                    "SCHILY.xattr.trusted.other": b"host's",
                }
            ),
            file("ping", b"x", mode=0o755, uid=3),
            pax(
                {
                    "SCHILY.xattr.trusted.overlay.opaque": b"y",
                    "SCHILY.xattr.trusted.overlay.redirect": b"/etc",
                    "LIBARCHIVE.xattr.user.quoted%3Dname": b"dmFsdWU=",
                }
            ),
            directory("d"),
        )
    )
    path = place.layer / "ping"
    assert sorted(os.listxattr(path)) == ["security.capability", "user.mine"]
    assert os.getxattr(path, "security.capability") == CAPABILITY
    assert os.getxattr(path, "user.mine") == b"kept\0too"
    assert os.listxattr(place.layer / "d") == ["user.quoted=name"]
    assert len(done.skipped) == 6


NOBODY = 0xFFFFFFFF
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, permissions, who)
    for tag, permissions, who in [
        (0x01, 7, NOBODY),
        (0x02, 6, 1000),
        (0x04, 5, NOBODY),
        (0x10, 7, NOBODY),
        (0x20, 5, NOBODY),
    ]
)


def test_access_lists_are_kept_and_not_inherited(place: Playground) -> None:
    place.unpack(
        archive(
            pax({"SCHILY.xattr.system.posix_acl_default": ACL}),
            directory("d"),
            f("d/plain"),
            directory("d/below"),
            pax({"SCHILY.xattr.system.posix_acl_access": ACL}),
            file("d/shared", b"x", mode=0o644, uid=5),
        )
    )
    assert os.getxattr(place.layer / "d", "system.posix_acl_default") == ACL
    assert os.getxattr(place.layer / "d/shared", "system.posix_acl_access") == ACL
    assert os.listxattr(place.layer / "d/plain") == os.listxattr(place.layer / "d/below") == []
    assert os.stat(place.layer / "d/plain").st_mode & 0o7777 == 0o644


def test_an_opaque_mark_in_the_root_is_told_and_not_written(place: Playground) -> None:
    done = place.unpack(archive(f(".wh..wh..opq"), f("a")))
    assert done.opaque
    assert place.tree() == {"a": F}
    assert os.listxattr(place.layer) == []


def test_the_root_gets_its_own_attributes(place: Playground) -> None:
    place.unpack(archive(directory("./", 0o750, uid=5, mtime=77), f("a")))
    state = os.stat(place.layer)
    assert (state.st_mode & 0o7777, state.st_uid, state.st_mtime) == (0o750, 5, 77)


def test_parents_without_an_entry_are_told(place: Playground) -> None:
    done = place.unpack(archive(f("tmp/x/y"), directory("tmp/x")))
    assert done.implicit == ("tmp",)


def test_devices_and_owners_are_left_out_without_root(place: Playground) -> None:
    rules = Rules(keep_owners=False, make_devices=False, mark="user.overlay.")
    done = place.unpack(
        archive(
            device("null", b"3", 1, 3),
            file("a", b"x", uid=33, gid=33),
            f("d/.wh..wh..opq"),
            f(".wh.gone"),
        ),
        rules=rules,
    )
    assert describe(str(place.layer), "user.overlay.") == {
        "a": F,
        "d": "d755 opaque",
        "gone": "whiteout",
    }
    assert os.stat(place.layer / "a").st_uid == 0
    assert len(done.skipped) == 1


@pytest.mark.parametrize(
    ("limit", "number", "members"),
    [
        ("entries", 2, [f("a"), f("b"), f("c")]),
        ("content_bytes", 10, [f("a", b"x" * 8), f("b", b"x" * 8)]),
        ("archive_bytes", 2000, [f("a"), f("b"), f("c")]),
        ("directories", 3, [directory(f"d{i}") for i in range(5)]),
        ("depth", 3, [f("a/b/c/d/e")]),
        ("depth", 3, [symlink("s", "a/b/c/d/e"), f("s/x")]),
        ("path_bytes", 20, [f("a" * 21)]),
        ("extension_bytes", 600, [pax({"comment": "x" * 700}), f("a")]),
        ("xattr_bytes", 3, [pax({"SCHILY.xattr.user.a": b"four"}), f("a")]),
    ],
)
def test_limits_have_names(
    place: Playground, limit: str, number: int, members: list[bytes]
) -> None:
    with pytest.raises(LimitExceeded) as caught:
        place.unpack(archive(*members), limits=Limits(**{limit: number}))
    assert caught.value.limit == limit


def test_many_directories_do_not_use_up_descriptors(place: Playground) -> None:
    members = [f(f"d{i}/e/x", b"") for i in range(1500)]
    members += [hard_link(f"l{i}/x", f"d{i}/e/x") for i in range(1500)]
    before = len(os.listdir("/proc/self/fd"))
    done = place.unpack(archive(*members))
    assert done.entries == 3000
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_umask_does_not_matter_and_is_put_back(place: Playground) -> None:
    before = os.umask(0o077)
    try:
        place.unpack(archive(f("a", b"x", 0o666), directory("d", 0o777)))
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert place.tree() == {"a": "f666 x", "d": "d777"}


def test_another_process_that_swaps_directories_for_links(place: Playground) -> None:
    """Nobody else can reach a layer being unpacked; if somebody could, it would not matter."""
    swapping = os.fork()
    if swapping == 0:
        try:
            os.chdir(place.layer)
            while True:
                for step in (
                    lambda: os.rename("d", "kept"),
                    lambda: os.symlink(place.outside, "d"),
                    lambda: os.unlink("d"),
                    lambda: os.rename("kept", "d"),
                ):
                    try:
                        step()
                    except OSError:
                        pass
        finally:
            os._exit(0)
    members = [directory("d")]
    for i in range(400):
        members += [f(f"d/canary{i}"), directory(f"d/layers{i}", 0o700), f(f"d/layers{i}/x")]
        members += [f("d/canary", b"dead"), hard_link(f"d/h{i}", "d/canary"), f("d/.wh.canary")]
    try:
        for _ in range(10):
            try:
                place.unpack(archive(*members))
            except LayerError:
                pass
            place.assert_nothing_escaped()
    finally:
        os.kill(swapping, signal.SIGKILL)
        os.waitpid(swapping, 0)
