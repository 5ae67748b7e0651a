"""Directories below one root, reached by descriptor and never by a joined path.

Names come from an archive that may want to leave the root. So a directory is opened either by
openat2 with RESOLVE_BENEATH, NO_SYMLINKS and NO_MAGICLINKS, where the kernel refuses to leave or to
follow, or one component at a time with O_NOFOLLOW. A symbolic link in the middle of a name is read
and resolved here, inside the root: `/` and any number of `..` end at the root, as in a chroot. That
is what docker and containerd give an image that has `lib -> usr/lib` and then `lib/x`.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.errors import HostileEntry, LimitExceeded
from runtime.images.tarheader import printable
from runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
WHITEOUT = os.makedev(0, 0)

_LINKS_AT_MOST = 40  # as the kernel follows
_OPEN_AT_MOST = 200  # descriptors kept; a process has 1024 by default
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CONFINED = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


class Directory:
    """An open directory: `fd` for the *at calls, `path` its real name below the root.

    `path` has no symbolic link in it and no slash at either end; the root's is empty.
    """

    __slots__ = ("fd", "path")

    def __init__(self, fd: int, path: bytes) -> None:
        self.fd = fd
        self.path = path

    def child(self, name: bytes) -> bytes:
        """The real path of an entry of this directory."""
        return self.path + b"/" + name if self.path else name


class RootDirectory:
    """Opens directories below `root`, a descriptor that stays the caller's.

    `make_missing(directory, name)` is called when a component of a name is not there, or is a
    whiteout; it must make the directory. The results are cached: call `forget` after anything
    that is not a regular file was removed or replaced.
    """

    def __init__(
        self,
        root: int,
        *,
        depth: int,
        path_bytes: int,
        make_missing: Callable[[Directory, bytes], None],
        use_openat2: bool = True,
    ) -> None:
        self.root = Directory(root, b"")
        self._depth = depth
        self._path_bytes = path_bytes
        self._make_missing = make_missing
        self._use_openat2 = use_openat2
        self._open: dict[bytes, Directory] = {}

    def directory(self, path: bytes) -> Directory:
        """The directory `path` (clean, relative), made with its parents where it is missing.

        Valid until the next call. Raises: HostileEntry if something else is in the way.
        """
        found = self._open.get(path)
        return found if found is not None else self._miss(path, make=True)

    def existing(self, path: bytes, *, beside: Directory) -> Directory:
        """Like `directory`, but nothing is made, and `beside` stays open too.

        Raises: FileNotFoundError.
        """
        found = self._open.get(path)
        return found if found is not None else self._miss(path, make=False, beside=beside)

    def forget(self) -> None:
        """Close every cached directory: names may mean something else now."""
        for directory in self._open.values():
            os.close(directory.fd)
        self._open.clear()

    def check_depth(self, path: bytes) -> None:
        """Raises: LimitExceeded if a real path is too deep or too long to be walked later."""
        if path.count(b"/") >= self._depth:
            raise LimitExceeded(f"more than {self._depth} nested directories", limit="depth")
        if len(path) > self._path_bytes:
            raise LimitExceeded(f"a path of more than {self._path_bytes} bytes", limit="path_bytes")

    def _miss(self, path: bytes, *, make: bool, beside: Directory | None = None) -> Directory:
        if not path:
            return self.root
        try:
            found = Directory(self._beneath(path), path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
                raise
            found = self._walk(path, make)
        if len(self._open) >= _OPEN_AT_MOST:
            for oldest in list(self._open)[: _OPEN_AT_MOST // 2]:
                if self._open[oldest] is not beside:
                    os.close(self._open.pop(oldest).fd)
        self._open[path] = found
        return found

    def _beneath(self, path: bytes) -> int:
        """Open a directory below the root, following nothing. Raises: OSError."""
        if self._use_openat2:
            try:
                return self._openat2(path)
            except OSError as error:
                # Before Linux 5.6, or forbidden by a seccomp filter that does not know it.
                if error.errno not in (errno.ENOSYS, errno.EPERM):
                    raise
                self._use_openat2 = False
        fd = self.root.fd
        for component in path.split(b"/"):
            try:
                below = os.open(component, _DIRECTORY, dir_fd=fd)
            finally:
                if fd != self.root.fd:
                    os.close(fd)
            fd = below
        return fd

    def _openat2(self, path: bytes) -> int:
        while True:
            try:
                return syscalls.openat2(
                    self.root.fd, os.fsdecode(path), _DIRECTORY, resolve=_CONFINED
                )
            except BlockingIOError:  # EAGAIN: something was renamed meanwhile
                continue

    def _walk(self, path: bytes, make: bool) -> Directory:
        """One component at a time: make what is missing, resolve links inside the root."""
        waiting = path.split(b"/")[::-1]
        here = self._duplicate_root()
        links = 0
        try:
            while waiting:
                name = waiting.pop()
                if name in (b"", b"."):
                    continue
                if name == b"..":
                    here = self._moved(here, here.path.rpartition(b"/")[0])
                    continue
                try:
                    below = os.open(name, _DIRECTORY, dir_fd=here.fd)
                except FileNotFoundError:
                    if not make:
                        raise
                    self.check_depth(here.child(name))
                    self._make_missing(here, name)
                    below = os.open(name, _DIRECTORY, dir_fd=here.fd)
                except OSError as error:
                    if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                        raise
                    state = os.stat(name, dir_fd=here.fd, follow_symlinks=False)
                    if stat.S_ISLNK(state.st_mode):
                        links += 1
                        target = os.readlink(name, dir_fd=here.fd)
                        if links > _LINKS_AT_MOST:
                            raise HostileEntry(
                                "too many symbolic links on the way", name=printable(path)
                            ) from None
                        if target.startswith(b"/"):
                            here = self._moved(here, b"")
                        waiting.extend(target.split(b"/")[::-1])
                        continue
                    if not (make and is_whiteout(state)):
                        raise HostileEntry(
                            f"{printable(name)} on its way is not a directory", name=printable(path)
                        ) from None
                    self._make_missing(here, name)
                    below = os.open(name, _DIRECTORY, dir_fd=here.fd)
                os.close(here.fd)
                here = Directory(below, here.child(name))
        except BaseException:
            os.close(here.fd)
            raise
        return here

    def _duplicate_root(self) -> Directory:
        return Directory(os.dup(self.root.fd), b"")

    def _moved(self, here: Directory, path: bytes) -> Directory:
        """`here` closed, and `path`, known to be real, opened instead."""
        there = Directory(self._beneath(path), path) if path else self._duplicate_root()
        os.close(here.fd)
        return there


def is_whiteout(state: os.stat_result) -> bool:
    """True for overlay's mark that a name is gone: a character device 0:0."""
    return stat.S_ISCHR(state.st_mode) and state.st_rdev == WHITEOUT
