"""Cgroup v1: one directory in each controller's hierarchy."""

from __future__ import annotations

import os
import time

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
from runtime.cgroups.devices import v1_writes
from runtime.cgroups.limits import v1_settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from runtime.cgroups.devices import DeviceRule
    from runtime.cgroups.limits import Limits

_FREEZE_S = 5.0
_KILL_ROUNDS = 100
_HUGE = 1 << 60  # the kernel writes "no limit" as the largest multiple of a page


class V1Driver:
    """`hierarchies` maps each usable controller to the directory its hierarchy is mounted on."""

    kind = "v1"

    def __init__(self, hierarchies: Mapping[str, str], warning: str = "") -> None:
        self._hierarchies = dict(hierarchies)
        self.warning = warning

    def create(self, name: str, limits: Limits) -> V1Cgroup:
        """Raises: CgroupError, after removing what was already made."""
        cgroup = self._cgroup(name, with_cpuset=limits.needs_cpuset)
        try:
            for directory in cgroup.directories:
                make_directory(os.path.dirname(directory))
                make_directory(directory)
            if limits.needs_cpuset and "cpuset" in self._hierarchies:
                self._fill_cpuset(f"{self._hierarchies['cpuset']}/{PARENT}")
                self._fill_cpuset(f"{self._hierarchies['cpuset']}/{PARENT}/{name}")
        except OSError as error:
            cgroup.destroy()
            raise CgroupError(f"cannot create cgroup {name}: {error}") from error
        return cgroup

    def open(self, name: str) -> V1Cgroup:
        return self._cgroup(name, with_cpuset=True)

    def _cgroup(self, name: str, *, with_cpuset: bool) -> V1Cgroup:
        check_name(name)
        return V1Cgroup(
            {
                controller: f"{mount}/{PARENT}/{name}"
                for controller, mount in self._hierarchies.items()
                if controller != "cpuset" or with_cpuset
            }
        )

    def _fill_cpuset(self, directory: str) -> None:
        parent = os.path.dirname(directory)
        for file in ("cpuset.cpus", "cpuset.mems"):
            if not read_text(directory, file).strip():
                write_text(directory, file, read_text(parent, file).strip())


class V1Cgroup:
    """One container's directories, by controller; several controllers may share a hierarchy."""

    def __init__(self, by_controller: Mapping[str, str]) -> None:
        self._by_controller = dict(by_controller)
        self.directories = tuple(dict.fromkeys(by_controller.values()))

    def descriptor(self) -> int:
        return -1

    def join(self) -> None:
        """By way of `tasks`, which moves one thread and waits for nobody: 0.4 ms for seven
        hierarchies, where `cgroup.procs` takes 8."""
        for directory in self.directories:
            try:
                write_text(directory, "tasks", "0")
            except FileNotFoundError:  # `open` named a cpuset that this container never had
                continue

    def add(self, pid: int) -> None:
        for directory in self.directories:
            try:
                write_text(directory, "cgroup.procs", str(pid))
            except FileNotFoundError:
                continue

    def apply(self, limits: Limits) -> tuple[str, ...]:
        settings, warnings = v1_settings(limits)
        problems = list(warnings)
        for setting in settings:
            directory = self._by_controller.get(setting.controller)
            if directory is None:
                problems.append(
                    f"this host has no {setting.controller} cgroup: {setting.file} is not limited"
                )
                continue
            try:
                write_text(directory, setting.file, setting.text)
            except OSError as error:
                if not setting.optional:
                    raise CgroupError(f"cannot set {setting.file}: {error}") from error
        return tuple(dict.fromkeys(problems))

    def allow_devices(self, rules: Sequence[DeviceRule]) -> tuple[str, ...]:
        directory = self._by_controller.get("devices")
        if directory is None:
            return ("this host has no devices cgroup: device access is not restricted",)
        try:
            for file, line in v1_writes(rules):
                write_text(directory, file, line)
        except OSError as error:
            raise CgroupError(f"cannot set device rules: {error}") from error
        return ()

    def freeze(self) -> None:
        """Returns when all are frozen. Raises: CgroupError without a freezer or after 5 s."""
        directory = self._by_controller.get("freezer")
        if directory is None:
            raise CgroupError("this host has no freezer cgroup", hint="mount it, or use cgroup v2")
        deadline = time.monotonic() + _FREEZE_S
        pause_s = 0.0005
        while True:
            # Written again each time: a process that forked meanwhile leaves the state FREEZING.
            write_text(directory, "freezer.state", "FROZEN")
            if read_text(directory, "freezer.state").strip() == "FROZEN":
                return
            if time.monotonic() > deadline:
                self.thaw()
                raise CgroupError(f"cgroup {directory} does not freeze")
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 0.02)

    def thaw(self) -> None:
        directory = self._by_controller.get("freezer")
        if directory is not None:
            write_text(directory, "freezer.state", "THAWED")

    def processes(self) -> tuple[int, ...]:
        return pids_in(self._main())

    def kill(self, signal: int = SIGKILL) -> None:
        """With SIGKILL: frozen first so that none forks away, and repeated until none is left."""
        frozen = signal == SIGKILL and "freezer" in self._by_controller
        for _ in range(_KILL_ROUNDS):
            if not os.path.isdir(self._main()):
                return
            if frozen:
                try:
                    self.freeze()
                except (CgroupError, OSError):
                    frozen = False  # some process is stuck in the kernel: kill without
            pids = [pid for pid in self.processes() if pid > 0]
            for pid in pids:
                try:
                    os.kill(pid, signal)
                except ProcessLookupError:
                    pass
            if frozen:
                self.thaw()
            if not pids or signal != SIGKILL or frozen:
                return
            time.sleep(0.005)

    def usage(self) -> Usage:
        memory, pids = self._by_controller.get("memory", ""), self._by_controller.get("pids", "")
        cpu, blkio = self._by_controller.get("cpuacct", ""), self._by_controller.get("blkio", "")
        used, limit = (read_number(memory, f"memory.{f}_in_bytes") for f in ("usage", "limit"))
        cache = read_table(memory, "memory.stat").get("total_inactive_file", 0)
        io = read_table_of_devices(read_text(blkio, "blkio.throttle.io_service_bytes"))
        return Usage(
            memory_bytes=max(used - cache, 0) if used >= 0 else -1,
            memory_limit=-1 if limit > _HUGE else limit,
            cpu_ns=read_number(cpu, "cpuacct.usage"),
            pids=read_number(pids, "pids.current"),
            pids_limit=read_number(pids, "pids.max"),
            read_bytes=io.get("Read", 0) if blkio else -1,
            written_bytes=io.get("Write", 0) if blkio else -1,
            oom_kills=read_table(memory, "memory.oom_control").get("oom_kill", -1),
        )

    def destroy(self) -> None:
        for directory in self.directories:
            remove(directory)

    def _main(self) -> str:
        """The directory to ask for processes: any has them all, the freezer if there is one."""
        fallback = self.directories[0] if self.directories else "/nonexistent"
        return self._by_controller.get("freezer", fallback)


def read_table_of_devices(text: str) -> dict[str, int]:
    """Sum up lines `8:0 Read 4096` over all devices."""
    totals: dict[str, int] = {}
    for line in text.split("\n"):
        words = line.split()
        if len(words) == 3 and words[2].isdigit():
            totals[words[1]] = totals.get(words[1], 0) + int(words[2])
    return totals
