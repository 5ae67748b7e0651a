"""gzip for layers we make, and the reading of what people hand us compressed.

ISA-L where it is installed (ten times zlib's speed at a similar size), zlib otherwise. The header
carries no time, so that equal content makes equal layers.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from io import BufferedReader, RawIOBase
from typing import cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Protocol

    class Compressor(Protocol):
        def compress(self, data: bytes | memoryview, /) -> bytes: ...

        def flush(self) -> bytes: ...


GZIP_FORMAT = 16 + 15  # zlib's way to say: a gzip header around a window of 32 KiB
ZLIB_LEVEL = 3  # 2.5 times faster than the usual 6, for about 5 % more bytes
ISAL_LEVEL = 2
MAGIC_BYTES = 6
CHUNK = 1 << 20


def gzip_compressor() -> Compressor:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, GZIP_FORMAT)
    made: Compressor = isal_zlib.compressobj(ISAL_LEVEL, isal_zlib.DEFLATED, GZIP_FORMAT)
    return made


def inflated(file: IO[bytes]) -> IO[bytes]:
    """A reader of the plain content of gzip, bzip2 and xz; anything else is plain already.

    `file` need not be seekable: how it begins is read once.
    """
    magic = file.read(MAGIC_BYTES)
    file = cast("IO[bytes]", BufferedReader(_Prefixed(magic, file), CHUNK))
    if magic.startswith(b"\x1f\x8b"):
        try:
            from isal import igzip
        except ImportError:
            return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        return cast("IO[bytes]", igzip.IGzipFile(fileobj=file))  # type: ignore[no-untyped-call]
    if magic.startswith(b"BZh"):
        return bz2.BZ2File(file)
    if magic.startswith(b"\xfd7zXZ\x00"):
        return lzma.LZMAFile(file)
    return file


class _Prefixed(RawIOBase):
    """A file whose first bytes were read already: standard input cannot go back."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        part = self._head[: len(buffer)]
        if part:
            self._head = self._head[len(part) :]
        else:
            part = self._file.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)
