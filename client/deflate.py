"""gzip for layers we make, and the reading of what people hand us compressed.

ISA-L where it is installed (ten times zlib's speed at a similar size), zlib otherwise. The header
carries no time, so that equal content makes equal layers.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
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


def gzip_compressor() -> Compressor:
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib.compressobj(ZLIB_LEVEL, zlib.DEFLATED, GZIP_FORMAT)
    made: Compressor = isal_zlib.compressobj(ISAL_LEVEL, isal_zlib.DEFLATED, GZIP_FORMAT)
    return made


def inflated(file: IO[bytes], magic: bytes) -> IO[bytes]:
    """A reader of the plain content; `magic` is how the file begins. Unknown means plain."""
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
