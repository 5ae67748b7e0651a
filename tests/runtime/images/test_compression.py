"""Blobs in every compression, whole, damaged and explosive."""

from __future__ import annotations

import gzip
import io
import sys
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from runtime.errors import InvalidCompression, LayerError, LimitExceeded, UnsupportedCompression
from runtime.images.compression import CHUNK, Decompressor
from runtime.images.limits import Limits

TEXT = b"some content of an archive\n" * 5000
MIXED = bytes(range(256)) * 20_000


@pytest.fixture(params=["isal", "zlib"])
def inflater(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "zlib":
        monkeypatch.setitem(sys.modules, "isal", None)
    return str(request.param)


def opened(raw: bytes, limits: Limits | None = None) -> Decompressor:
    digest = Digest.of(b"")
    return Decompressor(io.BytesIO(raw), digest=digest, diff_id=digest, limits=limits or Limits())


def inflate(raw: bytes, limits: Limits | None = None) -> bytes:
    source = opened(raw, limits)
    parts = []
    while chunk := source.read():
        assert len(chunk) <= CHUNK
        parts.append(chunk)
    found = b"".join(parts)
    assert source.compressed_digest == Digest.of(raw)
    assert source.compressed_size == len(raw)
    assert source.diff_id == Digest.of(found)
    return found


@pytest.mark.parametrize("content", [b"", b"x", TEXT, MIXED])
def test_plain_is_passed_through(content: bytes) -> None:
    assert inflate(content) == content


@pytest.mark.parametrize("content", [b"", b"x", TEXT, MIXED])
def test_gzip(inflater: str, content: bytes) -> None:
    assert inflate(gzip.compress(content)) == content


@pytest.mark.parametrize("content", [b"x", TEXT, MIXED])
def test_zstd(content: bytes) -> None:
    assert inflate(zstandard.compress(content)) == content


def test_gzip_members_follow_each_other(inflater: str) -> None:
    """pigz, bgzip, estargz: each file or block is a member of its own."""
    parts = [TEXT[i : i + 997] for i in range(0, len(TEXT), 997)]
    assert inflate(b"".join(gzip.compress(part) for part in parts)) == TEXT


def test_an_empty_member_in_the_middle(inflater: str) -> None:
    assert inflate(gzip.compress(b"a") + gzip.compress(b"") + gzip.compress(b"b")) == b"ab"


def test_zeros_may_follow_gzip(inflater: str) -> None:
    assert inflate(gzip.compress(TEXT) + bytes(1_000_000)) == TEXT


def test_zstd_frames_follow_each_other() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    raw = skippable + zstandard.compress(b"a") + skippable + zstandard.compress(b"b")
    assert inflate(raw) == b"ab"


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("something behind", lambda raw: raw + b"junk"),
        ("a single byte behind", lambda raw: raw + b"j"),
        ("the magic alone behind", lambda raw: raw + b"\x1f\x8b"),
        ("wrong checksum", lambda raw: raw[:-8] + b"\0\0\0\0" + raw[-4:]),
        ("wrong length", lambda raw: raw[:-4] + b"\0\0\0\0"),
        ("no trailer", lambda raw: raw[:-8]),
        ("half a trailer", lambda raw: raw[:-3]),
        ("cut in the middle", lambda raw: raw[: len(raw) // 2]),
        ("header only", lambda raw: raw[:10]),
        ("a flipped bit", lambda raw: raw[:40] + bytes([raw[40] ^ 4]) + raw[41:]),
    ],
)
def test_damaged_gzip(inflater: str, what: str, damage: object) -> None:
    with pytest.raises(InvalidCompression):
        inflate(damage(gzip.compress(TEXT)))  # type: ignore[operator]


def test_damaged_zstd() -> None:
    raw = bytearray(zstandard.ZstdCompressor(write_checksum=True).compress(MIXED))
    raw[-1] ^= 1
    with pytest.raises(InvalidCompression):
        inflate(bytes(raw))


def test_zstd_window_bomb() -> None:
    """A frame header may ask for gigabytes of memory."""
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=28)
    )
    stream = compressor.compressobj()
    raw = stream.compress(TEXT) + stream.flush()
    with pytest.raises(InvalidCompression):
        inflate(raw)


@pytest.mark.parametrize(
    ("what", "start"),
    [("bzip2", b"BZh91AY"), ("xz", b"\xfd7zXZ\x00\x00"), ("lz4", b"\x04\x22\x4d\x18..")],
)
def test_other_compressions_are_named(what: str, start: bytes) -> None:
    with pytest.raises(UnsupportedCompression, match=what):
        inflate(start + b"more")


def test_zstd_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UnsupportedCompression) as caught:
        inflate(zstandard.compress(b"x"))
    assert "pyreg[fast]" in caught.value.hint


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress], ids=["gzip", "zstd"])
def test_a_bomb_is_stopped_early(inflater: str, compress: object) -> None:
    """CVE-2017-14992. One gigabyte of zeros in a megabyte."""
    raw = compress(bytes(64 << 20)) * 16  # type: ignore[operator]
    with pytest.raises(LimitExceeded) as caught:
        inflate(raw, Limits(ratio=100, ratio_free_bytes=1 << 20))
    assert caught.value.limit == "ratio"


def test_a_limit_on_what_comes_out(inflater: str) -> None:
    with pytest.raises(LimitExceeded) as caught:
        inflate(gzip.compress(MIXED), Limits(archive_bytes=len(MIXED) - 1))
    assert caught.value.limit == "archive_bytes"


def test_small_layers_may_be_all_zeros() -> None:
    assert inflate(gzip.compress(bytes(50 << 20))) == bytes(50 << 20)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"]))
def test_arbitrary_bytes_raise_only_what_is_declared(raw: bytes, start: bytes) -> None:
    try:
        inflate(start + raw)
    except LayerError:
        pass


@given(st.binary(max_size=5000), st.integers(1, 9), st.integers(1, 4))
def test_gzip_round_trip(content: bytes, level: int, members: int) -> None:
    assert inflate(gzip.compress(content, level) * members) == content * members


def test_raw_deflate_is_not_gzip() -> None:
    raw = zlib.compress(TEXT)
    assert inflate(raw) == raw
