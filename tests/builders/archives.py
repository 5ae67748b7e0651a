"""Tar archives made byte by byte, so that tests can write what no tar program would."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Mapping

BLOCK = 512
END = bytes(2 * BLOCK)


def octal(number: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    raw = number.to_bytes(width, "big", signed=True)
    return bytes([raw[0] | 0x80]) + raw[1:] if number >= 0 else raw


def header(
    name: bytes,
    *,
    kind: bytes = b"0",
    size: int | bytes = 0,
    mode: int = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 1_000_000_000,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int | bytes = 0,
    minor: int | bytes = 0,
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One block. Numbers may be given as the field's own bytes."""

    def field(found: int | bytes, width: int) -> bytes:
        return found.ljust(width, b"\0") if isinstance(found, bytes) else octal(found, width)

    def build(sum_field: bytes) -> bytes:
        return (
            name[:100].ljust(100, b"\0")
            + octal(mode, 8)
            + field(uid, 8)
            + field(gid, 8)
            + field(size, 12)
            + field(mtime, 12)
            + sum_field
            + kind
            + link[:100].ljust(100, b"\0")
            + magic.ljust(8, b"\0")
            + bytes(64)
            + field(major, 8)
            + field(minor, 8)
            + prefix.ljust(155, b"\0")
        ).ljust(BLOCK, b"\0")

    total = sum(build(b" " * 8))
    return build(b"%06o\0 " % total if checksum is None else checksum)


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def file(name: str | bytes, content: bytes = b"", **fields: object) -> bytes:
    return header(_raw(name), size=len(content), **fields) + padded(content)  # type: ignore[arg-type]


def directory(name: str | bytes, mode: int = 0o755, **fields: object) -> bytes:
    return header(_raw(name), kind=b"5", mode=mode, **fields)  # type: ignore[arg-type]


def symlink(name: str | bytes, target: str | bytes, **fields: object) -> bytes:
    return header(_raw(name), kind=b"2", link=_raw(target), mode=0o777, **fields)  # type: ignore[arg-type]


def hard_link(name: str | bytes, target: str | bytes, **fields: object) -> bytes:
    return header(_raw(name), kind=b"1", link=_raw(target), **fields)  # type: ignore[arg-type]


def device(name: str, kind: bytes, major: int, minor: int, **fields: object) -> bytes:
    return header(_raw(name), kind=kind, major=major, minor=minor, **fields)  # type: ignore[arg-type]


def fifo(name: str, mode: int = 0o600) -> bytes:
    return header(_raw(name), kind=b"6", mode=mode)


def pax_record(keyword: bytes, value: bytes) -> bytes:
    body = b" " + keyword + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax(records: Mapping[str, str | bytes], kind: bytes = b"x") -> bytes:
    return pax_raw(b"".join(pax_record(_raw(k), _raw(v)) for k, v in records.items()), kind)


def pax_raw(content: bytes, kind: bytes = b"x") -> bytes:
    return header(b"PaxHeader", kind=kind, size=len(content)) + padded(content)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind=kind, size=len(name) + 1, magic=b"ustar  \0") + padded(
        name + b"\0"
    )


def archive(*members: bytes) -> bytes:
    return b"".join(members) + END


def gzipped(*members: bytes) -> bytes:
    return gzip.compress(archive(*members), 1, mtime=0)


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def describe(root: str, mark: str = "trusted.overlay.") -> dict[str, str]:
    """What is in a tree, one short line for each name; nothing is followed.

    Directories `d755`, files `f644 content`, links `l target`, overlay's whiteouts `whiteout`,
    devices `c644 1:3`; ` opaque` after a directory that is. The root itself is left out.
    """
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = _line(path, mark)
    return found


def _line(path: str, mark: str) -> str:
    state = os.lstat(path)
    mode = f"{state.st_mode & 0o7777:o}"
    if stat.S_ISDIR(state.st_mode):
        names = os.listxattr(path)
        return f"d{mode}" + (" opaque" if mark + "opaque" in names else "")
    if stat.S_ISLNK(state.st_mode):
        return "l " + os.readlink(path)
    if stat.S_ISFIFO(state.st_mode):
        return f"p{mode}"
    if stat.S_ISREG(state.st_mode):
        with open(path, "rb") as content:
            return f"f{mode} {content.read(200).decode('latin-1')}"
    device = f"{os.major(state.st_rdev)}:{os.minor(state.st_rdev)}"
    if stat.S_ISCHR(state.st_mode):
        return "whiteout" if state.st_rdev == 0 else f"c{mode} {device}"
    return f"b{mode} {device}"
