"""Terminals: the container's own from its devpts, and the user's, whose modes are borrowed."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import termios

from runtime.linux import syscalls
from runtime.linux.flags import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pty_in(root_fd: int) -> tuple[int, int]:
    """(master, slave) of a new terminal of the container.

    Its own /dev/pts/ptmx, not the host's: the slave must have a name inside. The slave is opened
    through the master, so that nothing mounted over /dev/pts can be opened in its place.
    """
    resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
    flags = os.O_RDWR | os.O_NOCTTY
    master = syscalls.openat2(root_fd, "/dev/pts/ptmx", flags, 0, resolve)
    fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
    slave = fcntl.ioctl(master, _TIOCGPTPEER, flags | os.O_CLOEXEC)
    return master, slave


def make_controlling(fd: int) -> None:
    """Make a terminal the controlling one of this session's leader, which is us."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


def size_of(fd: int) -> tuple[int, int] | None:
    """Rows and columns, or None if it is no terminal or does not know."""
    try:
        packed = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return None
    rows, columns = struct.unpack("HHHH", packed)[:2]
    return (rows, columns) if rows and columns else None


def set_size(fd: int, size: tuple[int, int]) -> None:
    """Tell a terminal its size; its foreground processes get SIGWINCH."""
    try:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EBADF):  # the container has just ended
            raise


class RawMode:
    """The user's terminal in raw mode for the time of a `with`: every key goes to the container."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = termios.tcgetattr(fd)

    def __enter__(self) -> RawMode:
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~(
            termios.IGNBRK
            | termios.BRKINT
            | termios.PARMRK
            | termios.ISTRIP
            | termios.INLCR
            | termios.IGNCR
            | termios.ICRNL
            | termios.IXON
        )
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
