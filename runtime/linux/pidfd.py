"""A process that can be named safely: its pid together with the moment it started.

A bare pid may belong to somebody else by the time it is used. Pid and start time (in clock ticks
since boot) together do not come back before the next boot; an open pidfd pins the process.
"""

from __future__ import annotations

import os
import select

from ocispec.value import value
from runtime.linux import syscalls

_STAT_BYTES = 4096  # one line of some fifty numbers; the name in it has at most 64 bytes


@value
class ProcessHandle:
    """One process of this boot."""

    pid: int
    start_time: int  # field 22 of /proc/PID/stat: clock ticks since boot

    @classmethod
    def of(cls, pid: int) -> ProcessHandle:
        """The process that has this pid now. Raises: ProcessLookupError."""
        found = _state_and_start(pid)
        if found is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(pid, found[1])

    def exists(self) -> bool:
        """Whether it is still there, a zombie included."""
        found = _state_and_start(self.pid)
        return found is not None and found[1] == self.start_time

    def is_running(self) -> bool:
        """Whether it is there and not a zombie."""
        found = _state_and_start(self.pid)
        return found is not None and found[1] == self.start_time and found[0] not in "ZX"

    def open(self) -> int:
        """A pidfd of exactly this process, close-on-exec; the caller closes it.

        The start time is checked after opening, so a pid that was given away is noticed.
        Raises: ProcessLookupError.
        """
        fd = syscalls.pidfd_open(self.pid)
        if self.exists():
            return fd
        os.close(fd)
        raise ProcessLookupError(f"process {self.pid} has ended")

    def signal(self, number: int) -> bool:
        """Send a signal; False if the process had already ended."""
        try:
            fd = self.open()
        except ProcessLookupError:
            return False
        try:
            syscalls.pidfd_send_signal(fd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(fd)
        return True

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until it has ended, without reaping it; False if it still runs after the time."""
        try:
            fd = self.open()
        except ProcessLookupError:
            return True
        try:
            return has_ended(fd, timeout_s)
        finally:
            os.close(fd)


def has_ended(pidfd: int, timeout_s: float | None = 0) -> bool:
    """Whether the process of a pidfd has ended, waiting up to `timeout_s` (None: for ever)."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(None if timeout_s is None else timeout_s * 1000))


def boot_id() -> str:
    """The kernel's random name for this boot: what was written before it knows no process now."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(64).strip()


def parse_stat(line: bytes) -> tuple[str, int]:
    """(state letter, start time) from the text of /proc/PID/stat.

    The name is in parentheses and may hold spaces and parentheses itself: count from the last one.
    Raises: ValueError.
    """
    _, separator, rest = line.rpartition(b")")
    fields = rest.split()
    if not separator or len(fields) < 20:
        raise ValueError("not a line of /proc/PID/stat")
    return fields[0].decode("ascii"), int(fields[19])


def _state_and_start(pid: int) -> tuple[str, int] | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return parse_stat(os.read(fd, _STAT_BYTES))
    except ProcessLookupError:  # it ended between open and read
        return None
    finally:
        os.close(fd)
