"""Opening paths inside a root that somebody else wrote, so that no link in it leads out.

Everything starts from a descriptor of the root; nothing joins strings. Two sets of rules:
*in root* follows links as a process chrooted there would; *beneath* refuses links altogether.
Both refuse the magic links of /proc. Needs openat2(2), kernel 5.6.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.linux import syscalls
from runtime.linux.flags import (
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
BENEATH = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS

_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_ATTEMPTS = 64  # the kernel says EAGAIN when a rename anywhere raced with a ".."; attacks go on


def open_root(path: str) -> int:
    """An O_PATH descriptor of a directory, to be the root of the calls below."""
    return os.open(path, _DIRECTORY | os.O_CLOEXEC)


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open with links followed inside the root; `..` and absolute links stop at the root."""
    return _open(root_fd, path, flags, mode, IN_ROOT)


def open_beneath(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open a relative path without `..` out of it and without any link on the way.

    Raises: OSError; EXDEV if the path leaves the root, ELOOP if a part of it is a link.
    """
    return _open(root_fd, path, flags, mode, BENEATH)


def _open(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    for _ in range(_ATTEMPTS - 1):
        try:
            return syscalls.openat2(root_fd, path or ".", flags, mode, resolve)
        except BlockingIOError:  # EAGAIN
            continue
    return syscalls.openat2(root_fd, path or ".", flags, mode, resolve)


def mkdir_in_root(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Make a directory and its missing parents inside the root; return an O_PATH descriptor of it.

    What exists is used, links followed inside the root. A part that is to be made must not be `..`
    and must not be a dangling link.

    Raises: OSError; NotADirectoryError or ELOOP if something else is in the way.
    """
    missing: list[str] = []
    existing = [part for part in path.split("/") if part not in ("", ".")]
    while True:
        try:
            fd = open_in_root(root_fd, "/".join(existing), _DIRECTORY)
            break
        except FileNotFoundError:
            missing.append(existing.pop())
    for part in reversed(missing):
        try:
            fd = _make_and_enter(fd, part, mode)
        except OSError as error:
            raise OSError(error.errno, f"mkdir: {os.strerror(error.errno or 0)}", path) from error
    return fd


def _make_and_enter(parent_fd: int, name: str, mode: int) -> int:
    """Consumes `parent_fd`, whatever happens."""
    try:
        if name == "..":
            raise OSError(errno.EINVAL, "'..' below a directory that does not exist")
        try:
            os.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            pass  # somebody was faster, or a dangling link, which the next line refuses
        return open_beneath(parent_fd, name, _DIRECTORY)
    finally:
        os.close(parent_fd)


def create_in_root(root_fd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH descriptor of a file to mount on: what is there, or a new empty file.

    Missing parents are made. An existing file is not opened for reading or writing, only named.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent, _, name = path.rstrip("/").rpartition("/")
    parent_fd = mkdir_in_root(root_fd, parent)
    try:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, mode, dir_fd=parent_fd))
        return open_beneath(parent_fd, name, os.O_PATH)
    finally:
        os.close(parent_fd)


def read_in_root(root_fd: int, path: str, limit: int) -> bytes:
    """The content of a regular file inside the root, at most `limit` bytes.

    What is there is looked at before it is opened: a FIFO would make us wait, a device might act on
    being opened. Raises: OSError; EINVAL if it is no regular file, EFBIG if it is longer.
    """
    fd = open_in_root(root_fd, path, os.O_PATH)
    try:
        seen = os.fstat(fd)
    finally:
        os.close(fd)
    if not stat.S_ISREG(seen.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        opened = os.fstat(fd)
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
            raise OSError(errno.EINVAL, "changed while it was opened", path)
        if opened.st_size > limit:
            raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
        chunks: list[bytes] = []
        total = 0
        while total <= limit:
            chunk = os.read(fd, limit + 1 - total)
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)
            total += len(chunk)
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
    finally:
        os.close(fd)
