"""One tar header block, and the records of a PAX header: pure functions from bytes to values.

Read are v7, ustar, GNU (base-256 numbers) and PAX. Where two readers could understand a header
differently, it is refused: a scanner and an extractor that disagree are how files are smuggled.

    offset  size                        offset  size
    0       100  name                   257     6    magic    "ustar\\0" | "ustar " | v7: zeros
    100     8    mode                   263     2    version  "00"       | " \\0"
    108     8    uid                    265     32   owner's name (ignored: ids count)
    116     8    gid                    297     32   group's name (ignored)
    124     12   size                   329     8    device major
    136     12   mtime                  337     8    device minor
    148     8    checksum               345     155  prefix (ustar only)
    156     1    kind                   386     ...  sparse map (GNU kind S only)
    157     100  link target

Spec: POSIX.1-2017 pax; GNU tar manual, "Basic Tar Format".
"""

from __future__ import annotations

import struct
from binascii import a2b_base64
from functools import lru_cache
from zlib import adler32

from runtime.errors import InvalidArchive, LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = 512
ZEROS = bytes(BLOCK)

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"
CONTIGUOUS = b"7"
PAX = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
GNU_SPARSE = b"S"
GNU_VOLUME = b"V"

EXTENSIONS = frozenset((PAX, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK))
WITHOUT_CONTENT = frozenset((HARD_LINK, SYMLINK, CHARACTER_DEVICE, BLOCK_DEVICE, DIRECTORY, FIFO))
"""For these the size field says nothing: old tars repeat the file's size in a hard link."""

_LARGEST_ID = 0xFFFF_FFFE  # 2**32-1 is -1, which chown(2) understands as "leave it"
_LARGEST_SIZE = (1 << 63) - 1
_LATEST = (1 << 63) // 1_000_000_000 - 1  # seconds of the year 2262, where 64-bit nanoseconds end

_unpack = struct.Struct("100s8s8s8s12s12s8s1s100s6s2s64x8s8s155s12x").unpack
_SPARSE_ENTRY = 24


class Header:
    """The fields of one block, checked one by one but not yet against each other.

    kind: one byte; v7's NUL reads as REGULAR, a regular name with a final slash as DIRECTORY.
    name, link: as in the block, prefix joined, nothing cleaned.
    mtime: nanoseconds since 1970.
    """

    __slots__ = (
        "device_major",
        "device_minor",
        "gid",
        "kind",
        "link",
        "mode",
        "mtime",
        "name",
        "size",
        "uid",
    )

    kind: bytes
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    device_major: int
    device_minor: int


def parse_header(block: bytes, offset: int) -> Header:
    """Read one block of 512 bytes that is not all zeros.

    `offset` is only for messages. Raises: InvalidArchive.
    """
    try:
        return _parse(block)
    except ValueError as error:
        raise InvalidArchive(str(error), offset=offset) from None


def _parse(block: bytes) -> Header:
    (
        name,
        mode,
        uid,
        gid,
        size,
        mtime,
        checksum,
        kind,
        link,
        magic,
        _version,
        major,
        minor,
        prefix,
    ) = _unpack(block)
    # The sum of all bytes with the checksum field as spaces. adler32's lower half is that sum plus
    # one, modulo 65521, and thirty times faster than sum(); the slow way decides when it differs.
    expected = _number(checksum)
    if (expected - 256 + sum(checksum) + 1) % 65521 != adler32(block) & 0xFFFF:
        _check_sum(block, expected)
    header = Header()
    header.name = name = name.split(b"\0", 1)[0]
    if magic == b"ustar\0":
        if prefix[0]:
            header.name = name = prefix.split(b"\0", 1)[0] + b"/" + name
        header.device_major = _number(major)
        header.device_minor = _number(minor)
    elif magic == b"ustar ":  # GNU keeps times where ustar has its prefix
        header.device_major = _number(major)
        header.device_minor = _number(minor)
    else:
        header.device_major = header.device_minor = 0
    header.link = link.split(b"\0", 1)[0]
    header.size = found = _number(size)
    if found < 0:
        raise ValueError("negative size")
    if kind == b"0" or kind == b"\0" or kind == b"7":
        kind = REGULAR
        if name[-1:] == b"/":
            if found:
                raise ValueError("a regular file whose name ends in a slash")
            kind = DIRECTORY
    header.kind = kind
    header.mode = _number(mode) & 0o7777
    header.uid = check_id(_number(uid))
    header.gid = check_id(_number(gid))
    header.mtime = bounded_time(_number(mtime)) * 1_000_000_000
    return header


@lru_cache(maxsize=4096)
def _number(field: bytes) -> int:
    """A numeric field: octal with spaces or NULs around it, or GNU's base-256."""
    if field[0] & 0x80:
        # Two's complement over all bits but the first, which only marks the form.
        top = field[0] & 0x7F
        found = int.from_bytes(bytes((top | (top & 0x40) << 1,)) + field[1:], "big", signed=True)
        if not -_LARGEST_SIZE <= found <= _LARGEST_SIZE:
            raise ValueError("a number beyond 64 bits")
        return found
    digits = field.strip(b" \0")
    if not digits:
        return 0
    if not digits.isdigit():
        raise ValueError(f"{field!r} is not an octal number")
    return int(digits, 8)


def _check_sum(block: bytes, expected: int) -> None:
    """The exact sums: unsigned, and signed as some old tars wrote it."""
    rest = block[:148] + b"        " + block[156:]
    unsigned = sum(rest)
    signed = unsigned - 256 * sum(1 for byte in rest if byte > 127)
    if expected not in (unsigned, signed):
        raise ValueError("header checksum is wrong")


def check_id(found: int) -> int:
    if not 0 <= found <= _LARGEST_ID:
        raise ValueError(f"owner or group {found} does not exist on Linux")
    return found


def bounded_time(seconds: int) -> int:
    """Times that do not fit become 1970, as docker does: year 0, or 9999."""
    return seconds if 0 <= seconds <= _LATEST else 0


def parse_pax(raw: bytes, offset: int) -> dict[bytes, list[bytes]]:
    """The records of a PAX header by keyword, each with its values in order.

    Every record is `<length> <keyword>=<value>\\n` where length counts itself. The last value
    counts; only GNU's sparse map repeats keywords. Raises: InvalidArchive.
    """
    records: dict[bytes, list[bytes]] = {}
    start, end = 0, len(raw)
    while start < end:
        space = raw.find(b" ", start, start + 20)
        digits = raw[start:space] if space > 0 else b""
        if not digits.isdigit():
            raise InvalidArchive("PAX record without a length", offset=offset)
        stop = start + int(digits)
        if stop > end or stop <= space + 2 or raw[stop - 1] != 0x0A:
            raise InvalidArchive("PAX record of a wrong length", offset=offset)
        keyword, equals, found = raw[space + 1 : stop - 1].partition(b"=")
        if not equals or not keyword or b"\0" in keyword:
            raise InvalidArchive("PAX record without a keyword", offset=offset)
        records.setdefault(keyword, []).append(found)
        start = stop
    return records


def pax_number(raw: bytes, what: str, offset: int) -> int:
    """A decimal number without sign, at most 63 bits."""
    if raw.isdigit() and len(raw) <= 19:
        found = int(raw)
        if found <= _LARGEST_SIZE:
            return found
    raise InvalidArchive(f"PAX {what} {printable(raw)} is not a number", offset=offset)


def pax_time(raw: bytes, offset: int) -> int:
    """Nanoseconds of a PAX time: decimal seconds, perhaps a fraction, perhaps negative."""
    whole, _, fraction = raw.removeprefix(b"-").partition(b".")
    if not (whole + fraction).isdigit() or len(raw) > 64:
        raise InvalidArchive(f"PAX mtime {printable(raw)} is not a time", offset=offset)
    if raw[:1] == b"-":
        return 0
    seconds = int(whole or b"0")
    if bounded_time(seconds) != seconds:
        return 0
    return seconds * 1_000_000_000 + int((fraction + b"000000000")[:9])


def pax_text(raw: bytes, what: str, offset: int) -> bytes:
    if b"\0" in raw:
        raise InvalidArchive(f"PAX {what} with a NUL byte", offset=offset)
    return raw


def pax_xattrs(
    records: Mapping[bytes, list[bytes]], limit: int, offset: int
) -> dict[bytes, bytes] | None:
    """Extended attributes, in GNU's and star's form or in libarchive's."""
    found: dict[bytes, bytes] = {}
    for keyword, values in records.items():
        if keyword.startswith(b"LIBARCHIVE.xattr."):
            name = _unquote(keyword[17:])
            try:
                content = a2b_base64(values[-1])
            except ValueError:
                raise InvalidArchive("xattr that is not base64", offset=offset) from None
            found.setdefault(name, content)
        elif keyword.startswith(b"SCHILY.xattr."):
            name = keyword[13:]
            found[name] = content = values[-1]
        else:
            continue
        if b"\0" in name or not name:
            raise InvalidArchive("xattr with a bad name", offset=offset)
        if len(content) > limit or len(name) > 255:
            raise LimitExceeded(
                f"xattr {printable(name[:64])} is larger than {limit} bytes", limit="xattr_bytes"
            )
    return found or None


def _unquote(raw: bytes) -> bytes:
    """Undo %XX, which libarchive uses for '%', '=' and bytes outside of ASCII."""
    first, *rest = raw.split(b"%")
    parts = [first]
    for part in rest:
        try:
            parts.append(bytes.fromhex(part[:2].decode("ascii")) + part[2:])
        except ValueError:
            parts.append(b"%" + part)
    return b"".join(parts)


def sparse_pairs(raw: bytes) -> list[tuple[int, int]]:
    """GNU's (offset, length) fields from a run of 24-byte entries; an empty one ends it.

    Raises: ValueError.
    """
    pairs = []
    for start in range(0, len(raw) - _SPARSE_ENTRY + 1, _SPARSE_ENTRY):
        if raw[start] == 0:
            break
        pairs.append((_number(raw[start : start + 12]), _number(raw[start + 12 : start + 24])))
    return pairs


def header_number(field: bytes, offset: int) -> int:
    """A numeric field outside of the common ones (GNU's real size)."""
    try:
        return _number(field)
    except ValueError as error:
        raise InvalidArchive(str(error), offset=offset) from None


def printable(raw: bytes) -> str:
    """Bytes of an archive for a message: one line, no control characters, not too long."""
    shown = raw if len(raw) <= 200 else raw[:200] + b"..."
    return repr(shown.decode("utf-8", "backslashreplace"))
