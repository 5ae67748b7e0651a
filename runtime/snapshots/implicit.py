"""Directories that a layer has only because something is in them.

Their attributes are those of the topmost layer below that has the directory for itself. Layers are
shared between images, so this is decided for each snapshot, in its upper.
"""

from __future__ import annotations

import errno
import os

from runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_CONFINED = 0x02 | 0x04 | 0x08  # NO_MAGICLINKS, NO_SYMLINKS, BENEATH
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def restore_attributes(
    upper: str, trees: Sequence[str], implicit: Sequence[frozenset[str]]
) -> None:
    """Make in `upper` each directory that is implicit in the topmost tree that has it.

    `trees` and `implicit` go together, the base first; `upper` is new and nobody else's.
    """
    own = (os.geteuid(), os.getegid())
    roots = [os.open(tree, _DIRECTORY) for tree in trees]
    try:
        wanted = {path for paths in implicit for path in paths}
        made: dict[str, os.stat_result] = {}
        for path in sorted(wanted):
            if not _is_covered(roots, implicit, path):
                continue
            parts = path.split("/")
            for count in range(1, len(parts) + 1):
                prefix = "/".join(parts[:count])
                state = None if prefix in made else _attributes(roots, implicit, prefix)
                if state is not None:
                    os.mkdir(f"{upper}/{prefix}", 0o700)
                    made[prefix] = state
        for path in sorted(made, reverse=True):
            state = made[path]
            if (state.st_uid, state.st_gid) != own:
                os.chown(f"{upper}/{path}", state.st_uid, state.st_gid)
            os.chmod(f"{upper}/{path}", state.st_mode & 0o7777)
            os.utime(f"{upper}/{path}", ns=(state.st_mtime_ns, state.st_mtime_ns))
    finally:
        for root in roots:
            os.close(root)


def _is_covered(roots: list[int], implicit: Sequence[frozenset[str]], path: str) -> bool:
    """True if the topmost tree with this directory does not have it for itself, but another has."""
    for index in reversed(range(len(roots))):
        if _state(roots[index], path) is not None:
            return path in implicit[index] and _own(roots[:index], implicit, path) is not None
    return False


def _attributes(
    roots: list[int], implicit: Sequence[frozenset[str]], path: str
) -> os.stat_result | None:
    """Those of the topmost tree that has it for itself, else of the topmost that has it."""
    found = _own(roots, implicit, path)
    if found is not None:
        return found
    return next((s for root in reversed(roots) if (s := _state(root, path)) is not None), None)


def _own(roots: list[int], implicit: Sequence[frozenset[str]], path: str) -> os.stat_result | None:
    for index in reversed(range(len(roots))):
        if path not in implicit[index]:
            state = _state(roots[index], path)
            if state is not None:
                return state
    return None


def _state(root: int, path: str) -> os.stat_result | None:
    """What a directory below `root` is like; None if it is not there or something else is."""
    try:
        fd = syscalls.openat2(root, path, _DIRECTORY, resolve=_CONFINED)
    except OSError as error:
        # ENOSYS: a kernel before 5.6 goes without, as other engines do everywhere.
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENOSYS):
            return None
        raise
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
