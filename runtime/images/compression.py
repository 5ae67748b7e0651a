"""The bytes of a layer blob, decompressed in this process and hashed on both sides.

What a blob is compressed with is read from its first bytes, as docker does, not believed from a
media type. No program is ever started for it: one found by PATH might be the image's.

isal (ISA-L) inflates at twice zlib's speed and is used when it is installed; zstd needs
`zstandard`. Output comes in chunks of at most `CHUNK`, however small the input that makes them, so
a bomb costs disk until a limit stops it, never memory.
"""

from __future__ import annotations

from runtime.errors import InvalidCompression, LimitExceeded, UnsupportedCompression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from ocispec.digest import Digest, Hasher
    from runtime.images.limits import Limits

    class Readable(Protocol):
        def read(self, size: int, /) -> bytes: ...


CHUNK = 1 << 20
_INPUT = 256 << 10  # zlib copies what it could not consume, so not too much at once
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_OTHERS = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x04\x22\x4d\x18": "lz4",
    b"]\x00\x00": "lzma",
}


class CompressedSource:
    """Reads a blob, counts it and computes the digest of the compressed bytes."""

    def __init__(self, file: Readable, hasher: Hasher) -> None:
        self._file = file
        self._hasher = hasher
        self._kept = b""
        self.size = 0

    def peek(self, count: int) -> bytes:
        while len(self._kept) < count:
            more = self._file.read(_INPUT)
            if not more:
                break
            self._kept += more
        return self._kept[:count]

    def read(self, size: int = _INPUT) -> bytes:
        data, self._kept = self._kept, b""
        if not data:
            data = self._file.read(size)
        elif len(data) > size:
            data, self._kept = data[:size], data[size:]
        self._hasher.update(data)
        self.size += len(data)
        return data


class Decompressor:
    """A blob as its uncompressed archive: call `read` until it gives no bytes.

    When it has, every byte of the blob was read, and `compressed_size`, `compressed_digest`, `size`
    and `diff_id` are final. The caller compares them with what it was promised.
    """

    def __init__(self, file: Readable, *, digest: Digest, diff_id: Digest, limits: Limits) -> None:
        self._compressed = digest.hasher()
        self._uncompressed = diff_id.hasher()
        self._source = CompressedSource(file, self._compressed)
        self._limits = limits
        self.size = 0
        self._next = _open(self._source, limits)

    @property
    def compressed_size(self) -> int:
        return self._source.size

    @property
    def compressed_digest(self) -> Digest:
        return _digest(self._compressed)

    @property
    def diff_id(self) -> Digest:
        return _digest(self._uncompressed)

    def read(self) -> bytes:
        """The next chunk, at most `CHUNK` bytes; empty at the end.

        Raises: InvalidCompression if the stream is damaged, cut off or followed by something else;
        LimitExceeded.
        """
        chunk = self._next()
        self._uncompressed.update(chunk)
        self.size += len(chunk)
        if self.size > self._limits.archive_bytes:
            raise LimitExceeded(
                f"more than {self._limits.archive_bytes >> 20} MiB uncompressed",
                limit="archive_bytes",
            )
        if (
            self.size > self._limits.ratio_free_bytes
            and self.size > self._source.size * self._limits.ratio
        ):
            raise LimitExceeded(
                f"expands more than {self._limits.ratio} times, like a decompression bomb",
                limit="ratio",
                hint="a trusted image with large files of zeros can be rebuilt with these sparse",
            )
        return chunk

    def drain(self) -> None:
        """Read the rest of the compressed bytes, for their digest, without decompressing them."""
        while self._source.read(CHUNK):
            pass


def load() -> None:
    """Import every decompressor there is, for a process that cannot import later."""
    _inflater()
    try:
        import zstandard  # noqa: F401
    except ImportError:
        pass


def _open(source: CompressedSource, limits: Limits) -> Callable[[], bytes]:
    start = source.peek(6)
    if start.startswith(_GZIP):
        return _Gzip(source).read
    if start.startswith(_ZSTD) or (start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5):
        return _zstd(source, limits)
    for magic, name in _OTHERS.items():
        if start.startswith(magic):
            raise UnsupportedCompression(
                f"it is compressed with {name}", hint="only gzip, zstd and plain tar are supported"
            )
    return lambda: source.read(CHUNK)


class _Gzip:
    """Any number of members, one after the other; zeros may follow the last, nothing else."""

    def __init__(self, source: CompressedSource) -> None:
        self._source = source
        self._new_member, self._failure = _inflater()
        self._member: Any = self._new_member()
        self._input = b""
        self._done = False

    def read(self) -> bytes:
        while not self._done:
            if not self._input:
                self._input = self._source.read()
            given = self._input
            try:
                # Without input it still gives what it holds back.
                chunk: bytes = self._member.decompress(given, CHUNK)
            except self._failure as error:
                raise InvalidCompression(f"the gzip stream is damaged: {error}") from None
            if not given and not chunk and not self._member.eof:
                raise InvalidCompression("the gzip stream is cut off")
            if self._member.eof:
                self._input = self._member.unused_data
                self._next_member()
            else:
                self._input = self._member.unconsumed_tail
            if chunk:
                return chunk
        return b""

    def _next_member(self) -> None:
        rest = self._input
        while not rest.strip(b"\0"):  # padding, as tar on tapes has it
            rest = self._source.read()
            if not rest:
                self._done = True
                return
        if len(rest) < len(_GZIP):
            rest += self._source.read()
        if rest[:2] != _GZIP:
            raise InvalidCompression("something that is not gzip follows the gzip stream")
        self._input = rest
        self._member = self._new_member()


def _inflater() -> tuple[Callable[[], Any], type[Exception]]:
    library: Any
    try:
        from isal import isal_zlib as library
    except ImportError:
        import zlib as library
    return (lambda: library.decompressobj(wbits=31)), library.error


def _zstd(source: CompressedSource, limits: Limits) -> Callable[[], bytes]:
    try:
        import zstandard
    except ImportError:
        raise UnsupportedCompression(
            "it is compressed with zstd", hint="install pyreg[fast], which brings zstandard"
        ) from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << limits.window_log)
    file: Any = source
    reader = decompressor.stream_reader(file, read_size=_INPUT, read_across_frames=True)

    def read() -> bytes:
        try:
            chunk: bytes = reader.read(CHUNK)
        except zstandard.ZstdError as error:
            raise InvalidCompression(f"the zstd stream is damaged: {error}") from None
        return chunk

    return read


def _digest(hasher: Hasher) -> Digest:
    from ocispec.digest import Digest

    return Digest.from_hasher(hasher)
