"""Where a mount goes in an image: the place its path leads to inside the root, made if missing.

Links are followed as a process in the container would follow them, also those that lead to nothing:
`/etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf` is common, and the target is then
made, inside the root. Links of procfs that lead anywhere the kernel likes are refused.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.linux.safeopen import open_beneath, open_in_root

LINKS_AT_MOST = 40  # as the kernel follows


def open_mount_point(root_fd: int, path: str, *, directory: bool, mode: int = 0o755) -> int:
    """An O_PATH descriptor of the directory or file to mount on.

    Raises: OSError; NotADirectoryError or IsADirectoryError if the other kind is there, ELOOP for
    a loop of links.
    """
    try:
        fd = open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        fd = _make(root_fd, path, directory, mode)
    if stat.S_ISDIR(os.fstat(fd).st_mode) != directory:
        os.close(fd)
        kind = errno.ENOTDIR if directory else errno.EISDIR
        raise OSError(kind, os.strerror(kind), path)
    return fd


def _make(root_fd: int, path: str, directory: bool, mode: int) -> int:
    """Walk the path name by name; `reached` has no link in it, so it can be opened as it is."""
    reached: list[str] = []
    waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    while waiting:
        name = waiting.pop()
        if name == "..":
            del reached[-1:]
            continue
        parent = open_beneath(root_fd, "/".join(reached), os.O_PATH | os.O_DIRECTORY)
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > LINKS_AT_MOST:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(name, dir_fd=parent)
                if target.startswith("/"):
                    reached = []
                waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
                continue
        except FileNotFoundError:
            if waiting or directory:
                os.mkdir(name, mode, dir_fd=parent)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
        finally:
            os.close(parent)
        reached.append(name)
    return open_beneath(root_fd, "/".join(reached), os.O_PATH)
