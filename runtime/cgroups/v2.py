"""Cgroup v2: one directory in the one hierarchy."""

from __future__ import annotations

import os
import select

from runtime.cgroups.base import (
    PARENT,
    SIGKILL,
    CgroupError,
    Usage,
    check_name,
    make_directory,
    pids_in,
    read_number,
    read_table,
    read_text,
    remove,
    write_text,
)
from runtime.cgroups.devices import attach, v2_program
from runtime.cgroups.limits import v2_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.cgroups.devices import DeviceRule
    from runtime.cgroups.limits import Limits

CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")

_FREEZE_S = 5.0


class V2Driver:
    """`root` is the cgroup that belongs to us: the whole hierarchy for root, else what systemd or
    the administrator delegated. It must not hold processes itself for limits to work."""

    kind = "v2"

    def __init__(self, root: str, warning: str = "") -> None:
        self._root = root
        self.warning = warning

    def create(self, name: str, limits: Limits) -> V2Cgroup:
        """Raises: CgroupError."""
        cgroup = self.open(name)
        parent = f"{self._root}/{PARENT}"
        try:
            enable_controllers(self._root)
            make_directory(parent)
            enable_controllers(parent)
            make_directory(cgroup.directory)
        except OSError as error:
            cgroup.destroy()
            raise CgroupError(f"cannot create cgroup {name}: {error}") from error
        return cgroup

    def open(self, name: str) -> V2Cgroup:
        return V2Cgroup(f"{self._root}/{PARENT}/{check_name(name)}")


def enable_controllers(directory: str) -> None:
    """Let the children of a cgroup have every controller we use that it has itself.

    One by one, because the kernel takes all or nothing. One that cannot be enabled (processes sit
    in this very cgroup, real-time threads hold `cpu`) is left; `apply` then says what it means.
    """
    available = read_text(directory, "cgroup.controllers").split()
    enabled = read_text(directory, "cgroup.subtree_control").split()
    for controller in CONTROLLERS:
        if controller in available and controller not in enabled:
            try:
                write_text(directory, "cgroup.subtree_control", f"+{controller}")
            except OSError:
                continue


class V2Cgroup:
    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.directories = (directory,)

    def descriptor(self) -> int:
        return os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join(self) -> None:
        write_text(self.directory, "cgroup.procs", "0")

    def add(self, pid: int) -> None:
        write_text(self.directory, "cgroup.procs", str(pid))

    def apply(self, limits: Limits) -> tuple[str, ...]:
        settings, warnings = v2_settings(limits)
        problems = list(warnings)
        controllers = read_text(self.directory, "cgroup.controllers").split()
        for setting in settings:
            if setting.controller not in controllers:
                problems.append(
                    f"the {setting.controller} controller is not delegated to us: "
                    f"{setting.file} is not limited"
                )
                continue
            try:
                write_text(self.directory, setting.file, setting.text)
            except OSError as error:
                if not setting.optional:
                    raise CgroupError(f"cannot set {setting.file}: {error}") from error
        return tuple(dict.fromkeys(problems))

    def allow_devices(self, rules: Sequence[DeviceRule]) -> tuple[str, ...]:
        """An ordinary user may not load the program; their device nodes are bind mounts anyway."""
        try:
            fd = self.descriptor()
            try:
                attach(fd, v2_program(rules))
            finally:
                os.close(fd)
        except PermissionError:
            return ("the kernel does not let us restrict device access",)
        except OSError as error:
            raise CgroupError(f"cannot set device rules: {error}") from error
        return ()

    def freeze(self) -> None:
        """Returns when all are frozen. Raises: CgroupError after 5 s."""
        self._set_frozen(True)

    def thaw(self) -> None:
        self._set_frozen(False)

    def _set_frozen(self, frozen: bool) -> None:
        # The kernel marks cgroup.events with POLLPRI when it changes; open it before the write.
        fd = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLPRI)
            write_text(self.directory, "cgroup.freeze", str(int(frozen)))
            wanted = b"frozen %d\n" % frozen
            for _ in range(int(_FREEZE_S / 0.05)):
                if wanted in os.pread(fd, 4096, 0):
                    return
                poller.poll(50)
        finally:
            os.close(fd)
        if frozen:
            write_text(self.directory, "cgroup.freeze", "0")
            raise CgroupError(f"cgroup {self.directory} does not freeze")

    def processes(self) -> tuple[int, ...]:
        return pids_in(self.directory)

    def kill(self, signal: int = SIGKILL) -> None:
        """SIGKILL by cgroup.kill (5.14), which no fork escapes; other signals one by one."""
        if signal == SIGKILL:
            try:
                write_text(self.directory, "cgroup.kill", "1")
            except FileNotFoundError:
                return
            return
        for pid in self.processes():
            if pid > 0:
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass

    def usage(self) -> Usage:
        here = self.directory
        used = read_number(here, "memory.current")
        cache = read_table(here, "memory.stat").get("inactive_file", 0)
        cpu = read_table(here, "cpu.stat").get("usage_usec", -1)
        io = _io_totals(read_text(here, "io.stat"))
        return Usage(
            memory_bytes=max(used - cache, 0) if used >= 0 else -1,
            memory_limit=read_number(here, "memory.max"),
            cpu_ns=cpu * 1000 if cpu >= 0 else -1,
            pids=read_number(here, "pids.current"),
            pids_limit=read_number(here, "pids.max"),
            read_bytes=io.get("rbytes", -1),
            written_bytes=io.get("wbytes", -1),
            oom_kills=read_table(here, "memory.events").get("oom_kill", -1),
        )

    def destroy(self) -> None:
        remove(self.directory)


def _io_totals(text: str) -> dict[str, int]:
    """Sum up lines `8:0 rbytes=4096 wbytes=0 …` over all devices."""
    totals: dict[str, int] = {}
    for line in text.split("\n"):
        for word in line.split()[1:]:
            name, _, number = word.partition("=")
            if number.isdigit():
                totals[name] = totals.get(name, 0) + int(number)
    return totals
