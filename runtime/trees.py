"""Removing a directory tree that somebody hostile may have made.

`shutil.rmtree` is not used: it costs imports on the start path, and a tree of 100 000 nested
directories exhausts its recursion or its descriptors. This one works by directory descriptors,
never follows a link, holds at most `_DEEPEST` descriptors, and gives itself permission where a
directory of its own has none.
"""

from __future__ import annotations

import errno
import os

_DEEPEST = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Delete `path` and everything in it; nothing there is fine. A link is deleted, not followed.

    Two processes may remove the same tree at once. Mount points inside make it fail with EBUSY,
    and what they show is not touched (removal stays on one file system).
    """
    parent = os.open(os.path.dirname(path) or ".", _DIRECTORY)
    try:
        remove_entry(parent, os.path.basename(path))
    finally:
        os.close(parent)


def remove_entry(parent: int, name: str) -> None:
    """Like `remove_tree`, for the single component `name` in the directory `parent`."""
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    top = _open(parent, name)
    if top is None:
        return
    try:
        # Directories found too deep are moved up here, so the depth in hand stays bounded.
        device = os.fstat(top).st_dev
        moved = 0
        while True:
            moved = _empty(top, top, 0, device, moved)
            with os.scandir(top) as left:
                if next(left, None) is None:
                    break
    finally:
        os.close(top)
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass


def _empty(top: int, directory: int, depth: int, device: int, moved: int) -> int:
    for name, is_directory in _entries(directory):
        if not is_directory:
            try:
                os.unlink(name, dir_fd=directory)
            except FileNotFoundError:
                pass
            continue
        if depth >= _DEEPEST:
            moved += 1
            os.rename(name, f".deep-{os.getpid()}-{moved}", src_dir_fd=directory, dst_dir_fd=top)
            continue
        child = _open(directory, name)
        if child is None:
            continue
        try:
            if os.fstat(child).st_dev != device:
                raise OSError(errno.EBUSY, "a file system is mounted here", name)
            moved = _empty(top, child, depth + 1, device, moved)
        finally:
            os.close(child)
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            pass
    return moved


def _entries(directory: int) -> list[tuple[str, bool]]:
    with os.scandir(directory) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _open(parent: int, name: str) -> int | None:
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return None
    except PermissionError:
        # Ours, but without read permission (a layer may hold mode 0 directories).
        try:
            os.chmod(name, 0o700, dir_fd=parent)
        except FileNotFoundError:
            return None
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    if os.fstat(descriptor).st_mode & 0o700 != 0o700:
        os.fchmod(descriptor, 0o700)
    return descriptor
