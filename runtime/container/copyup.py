"""Fills an empty volume with what the image has at its mount point, as Docker does once.

Runs in the container's init after the root has changed: it imports nothing, follows no link, and
works from descriptors, so that a link in the image is copied as a link.
"""

from __future__ import annotations

import os
import stat

DEPTH_LIMIT = 256  # descriptors are held down the tree; deeper trees are hostile


def copy_up(source_fd: int, target_fd: int, depth: int = 0) -> None:
    """Copy everything below `source_fd` into the empty directory `target_fd`, itself included."""
    if depth > DEPTH_LIMIT:
        raise OSError(f"the image's directories are more than {DEPTH_LIMIT} deep")
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=source_fd)
    writable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target_fd)
    try:
        if depth == 0:
            _copy_metadata(os.fstat(readable), ".", writable)
        for name in os.listdir(readable):
            _copy_entry(readable, writable, name, depth)
    finally:
        os.close(readable)
        os.close(writable)


def _copy_entry(source: int, target: int, name: str, depth: int) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif kind == stat.S_IFDIR:
        os.mkdir(name, 0o700, dir_fd=target)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        below_source = os.open(name, flags, dir_fd=source)
        below_target = os.open(name, flags, dir_fd=target)
        try:
            copy_up(below_source, below_target, depth + 1)
        finally:
            os.close(below_source)
            os.close(below_target)
    elif kind == stat.S_IFREG:
        _copy_file(source, target, name)
    elif kind == stat.S_IFIFO:
        os.mkfifo(name, 0o600, dir_fd=target)
    else:
        return  # a socket is nothing without its process, a device would be the host's
    _copy_metadata(status, name, target)


def _copy_file(source: int, target: int, name: str) -> None:
    reading = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    writing = os.open(name, flags, 0o600, dir_fd=target)
    try:
        while os.sendfile(writing, reading, None, 1 << 24):
            pass
    finally:
        os.close(reading)
        os.close(writing)


def _copy_metadata(status: os.stat_result, name: str, directory: int) -> None:
    os.chown(name, status.st_uid, status.st_gid, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=directory)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
