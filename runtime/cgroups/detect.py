"""What cgroups this host has, and the driver that fits.

Decided from the mount table and /proc/self/cgroup, never by names of directories. Possible are v1,
v2, both at once (hybrid: v2 is then without controllers and v1 is used), or nothing we may write
to, in which case containers run without limits and one sentence says so.
"""

from __future__ import annotations

import os

from ocispec.value import value
from runtime.cgroups.base import (
    PARENT,
    SIGKILL,
    V1_CONTROLLERS,
    CgroupError,
    Usage,
    check_name,
)
from runtime.linux import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from runtime.cgroups.base import CgroupDriver
    from runtime.cgroups.devices import DeviceRule
    from runtime.cgroups.limits import Limits
    from runtime.linux.mountinfo import Mount


@value
class Layout:
    """What is mounted."""

    v1: tuple[tuple[str, str], ...]  # (controller, directory of its hierarchy)
    v2: str  # directory of the v2 hierarchy, or ""
    own_v2: str  # this process's cgroup in it, as a path from that directory, or ""

    @property
    def kind(self) -> str:
        if self.v1:
            return "hybrid" if self.v2 else "v1"
        return "v2" if self.v2 else "none"


def layout(mounts: Iterable[Mount], own: str) -> Layout:
    """From the mount table and the text of /proc/self/cgroup."""
    v1: dict[str, str] = {}
    v2, v2_root = "", "/"
    known = (*V1_CONTROLLERS, "cpuset")
    for mount in mounts:
        if mount.fstype == "cgroup":
            for option in mount.super_options:
                if option in known:
                    v1.setdefault(option, mount.target)
        elif mount.fstype == "cgroup2" and not v2:
            v2, v2_root = mount.target, mount.root
    own_v2 = ""
    for line in own.split("\n"):
        if line.startswith("0::"):
            own_v2 = line[3:].removeprefix(v2_root if v2_root != "/" else "").strip("/")
    return Layout(tuple(v1.items()), v2, own_v2)


def delegated_root(directory: str, own: str, is_writable: Callable[[str], bool]) -> str:
    """The highest cgroup from the hierarchy's top down to our own that we may write to, or "".

    A user's delegated subtree begins in the middle: /user.slice/…/user@1000.service.
    """
    path = directory
    for part in ["", *own.split("/")]:
        path = f"{path}/{part}" if part else path
        if is_writable(path):
            return path
    return ""


def detect() -> Layout:
    """The layout of this host, as this process sees it."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        own = file.read(1024 * 1024)
    return layout(mountinfo.read(), own)


def driver(found: Layout | None = None) -> CgroupDriver:
    """The driver for this host; its `warning` says what cannot be done here."""
    found = found or detect()
    if found.v1:
        from runtime.cgroups.v1 import V1Driver  # only the version that is used is loaded

        usable = {name: path for name, path in found.v1 if _is_writable_v1(path)}
        if usable:
            missing = [name for name in V1_CONTROLLERS if name not in usable]
            return V1Driver(
                usable,
                f"no limits on {', '.join(missing)}: these cgroups are missing or read-only"
                if missing
                else "",
            )
    elif found.v2:
        from runtime.cgroups.v2 import V2Driver

        root = delegated_root(found.v2, found.own_v2, _is_writable_v2)
        if root:
            return V2Driver(root)
    return NoCgroups(found.kind)


def _is_writable_v1(directory: str) -> bool:
    parent = f"{directory}/{PARENT}"
    return os.access(parent if os.path.isdir(parent) else directory, os.W_OK)


def _is_writable_v2(directory: str) -> bool:
    """Making directories is not enough: moving a process in needs cgroup.procs of the root of the
    delegated part."""
    return os.access(directory, os.W_OK) and os.access(f"{directory}/cgroup.procs", os.W_OK)


class NoCgroups:
    """The driver of a host where we may not make cgroups: containers run without limits."""

    kind = "none"

    def __init__(self, found: str) -> None:
        reason = (
            "this host has no cgroups" if found == "none" else f"cgroup {found} is not ours to use"
        )
        advice = (
            "" if found == "none" else "; as an ordinary user run inside a systemd session of yours"
        )
        self.warning = (
            f"{reason}: containers run without limits on memory, processors and processes{advice}"
        )

    def create(self, name: str, limits: Limits) -> NoCgroup:
        check_name(name)
        return NoCgroup()

    def open(self, name: str) -> NoCgroup:
        check_name(name)
        return NoCgroup()


class NoCgroup:
    """Accepts everything, limits nothing, knows no processes."""

    directories: tuple[str, ...] = ()

    def descriptor(self) -> int:
        return -1

    def join(self) -> None:
        """Nothing to join."""

    def add(self, pid: int) -> None:
        """Nothing to join."""

    def apply(self, limits: Limits) -> tuple[str, ...]:
        """The driver's one warning has said it."""
        return ()

    def allow_devices(self, rules: Sequence[DeviceRule]) -> tuple[str, ...]:
        return ()

    def freeze(self) -> None:
        raise CgroupError("containers cannot be paused without cgroups")

    def thaw(self) -> None:
        """Nothing was frozen."""

    def processes(self) -> tuple[int, ...]:
        return ()

    def kill(self, signal: int = SIGKILL) -> None:
        """The end of the container's pid namespace kills them."""

    def usage(self) -> Usage:
        return Usage()

    def destroy(self) -> None:
        """Nothing was made."""
