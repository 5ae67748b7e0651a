"""Control groups of containers: what a driver does, whatever the host's cgroup version.

Life of a cgroup: `create` makes the directories; `apply` and `allow_devices` set limits; the first
process of the container enters (v2: born in it by clone3 with `descriptor`; otherwise it calls
`join` itself, still single threaded); everything it starts stays inside; `kill` ends them all;
`destroy` removes the directories.

Nothing here mounts, remounts or changes a cgroup that is not below our own `pyreg` parent, but for
switching controllers on for it in v2.
"""

from __future__ import annotations

import errno
import os
import time

from ocispec.value import value
from runtime.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Protocol

    from runtime.cgroups.devices import DeviceRule
    from runtime.cgroups.limits import Limits

    class Cgroup(Protocol):
        """The control group of one container."""

        @property
        def directories(self) -> tuple[str, ...]:
            """Where it is in the file system; one per hierarchy, empty without cgroups."""

        def descriptor(self) -> int:
            """A directory for clone3 (CLONE_INTO_CGROUP), for the caller to close; -1: `join`."""

        def join(self) -> None:
            """Put the calling, single-threaded process in."""

        def add(self, pid: int) -> None:
            """Put another process in, with all its threads; 20 times slower than `join`."""

        def apply(self, limits: Limits) -> tuple[str, ...]:
            """Set limits; return sentences on those this host cannot keep."""

        def allow_devices(self, rules: Sequence[DeviceRule]) -> tuple[str, ...]:
            """Set the device rules; return sentences on what this host cannot keep."""

        def freeze(self) -> None: ...
        def thaw(self) -> None: ...

        def processes(self) -> tuple[int, ...]:
            """Pids of all processes in it and below, as this process sees them."""

        def kill(self, signal: int = 9) -> None:
            """Send a signal to all; with SIGKILL none escapes by forking."""

        def usage(self) -> Usage: ...

        def destroy(self) -> None:
            """Remove it and what was made below; twice is harmless. Raises: CgroupBusy."""

    class CgroupDriver(Protocol):
        """Makes and finds the cgroups of one host."""

        @property
        def kind(self) -> str:
            """v1, v2 or none."""

        @property
        def warning(self) -> str:
            """A sentence on what this host cannot do at all; "" if nothing."""

        def create(self, name: str, limits: Limits) -> Cgroup:
            """A new cgroup; `limits` only says which controllers are needed, `apply` sets them."""

        def open(self, name: str) -> Cgroup:
            """The cgroup made earlier under that name; it need not exist any more."""


PARENT = "pyreg"  # every container's cgroup is below a directory of this name
# cpuset only when asked for: its cpus and mems must be filled first, or entering fails with ENOSPC.
V1_CONTROLLERS = ("devices", "pids", "memory", "cpu", "cpuacct", "freezer", "blkio")
SIGKILL = 9  # the `signal` module would cost an import of `enum`
MAX_FILE_BYTES = 4 * 1024 * 1024  # a cgroup.procs with 500,000 pids

_RETRY_S = 2.0  # rmdir says EBUSY until the last dead process is reaped


class CgroupError(EngineError):
    """The kernel refused something about a cgroup."""


class CgroupBusy(CgroupError):
    """Processes are still inside."""


@value
class Usage:
    """What a cgroup used; -1 where this host does not tell."""

    memory_bytes: int = -1  # without the page cache that could be dropped at once
    memory_limit: int = -1
    cpu_ns: int = -1
    pids: int = -1
    pids_limit: int = -1
    read_bytes: int = -1
    written_bytes: int = -1
    oom_kills: int = -1


def check_name(name: str) -> str:
    """The name, if it can be one directory and nothing else. Raises: CgroupError."""
    allowed = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if not (allowed.isascii() and allowed.isalnum()) or name[0] in "-._" or len(name) > 200:
        raise CgroupError(f"invalid cgroup name {name!r}")
    return name


def write_text(directory: str, file: str, text: str) -> None:
    """One write(2). Raises: OSError that names the file."""
    fd = os.open(f"{directory}/{file}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    except OSError as error:
        raise OSError(
            error.errno, f"writing {text!r}: {error.strerror}", f"{directory}/{file}"
        ) from error
    finally:
        os.close(fd)


def read_text(directory: str, file: str) -> str:
    """The content, "" if there is no such file."""
    try:
        with open(f"{directory}/{file}", "rb") as opened:
            return opened.read(MAX_FILE_BYTES).decode("ascii", "replace")
    except OSError:
        return ""


def read_number(directory: str, file: str) -> int:
    """The number in a file; -1 for `max`, nonsense and no file."""
    text = read_text(directory, file).strip()
    return int(text) if text.isdigit() and len(text) < 25 else -1


def read_table(directory: str, file: str) -> dict[str, int]:
    """Lines of `name number`."""
    found = {}
    for line in read_text(directory, file).split("\n"):
        name, _, number = line.partition(" ")
        if number.strip().isdigit():
            found[name] = int(number)
    return found


def make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass


def below(directory: str) -> Iterator[str]:
    """A cgroup and all below it, the deepest first."""
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for name in names:
        yield from below(f"{directory}/{name}")
    yield directory


def pids_in(directory: str) -> tuple[int, ...]:
    """The processes in a cgroup and below; 0 stands for those another pid namespace hides."""
    found: list[int] = []
    for each in below(directory):
        found += (int(word) for word in read_text(each, "cgroup.procs").split())
    return tuple(dict.fromkeys(found))


def remove(directory: str) -> None:
    """rmdir a cgroup and all below, waiting a little for the dead to be reaped.

    Raises: CgroupBusy.
    """
    deadline = time.monotonic() + _RETRY_S
    pause_s = 0.001
    for each in below(directory):
        while True:
            try:
                os.rmdir(each)
                break
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise CgroupError(f"cannot remove cgroup {each}: {error.strerror}") from error
                if time.monotonic() > deadline:
                    raise CgroupBusy(
                        f"cgroup {each} is still in use",
                        hint=f"processes inside: {pids_in(directory)[:10]}",
                    ) from error
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.05)
