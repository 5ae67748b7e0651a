"""The steps that turn a forked child into a container: plain values, in the order of the plan.

Each step is one thing that `runtime.container.apply` can do, with everything it needs to do it.
Paths inside the container are absolute in the container's own terms; "the root" is the container's.
"""

from __future__ import annotations

from ocispec.runtime.config import Device, Rlimit
from ocispec.value import value
from runtime.snapshots.base import MountPlan


@value
class JoinCgroups:
    """Put this process into its cgroups, by writing `0` to each file."""

    files: tuple[str, ...]


@value
class Unshare:
    """New namespaces, CLONE_NEW* bits."""

    flags: int


@value
class JoinSessionKeyring:
    """A session keyring of its own, so that the caller's keys are not in reach."""

    name: str


@value
class MakeMountsPrivate:
    """No mount of ours may reach the host, and none of the host's us."""


@value
class CloneSource:
    """Take a detached copy of a host mount or file, to be attached after the root has changed.

    The copy is made while host paths still mean host paths; `key` names it for `AttachSource`.
    """

    key: str
    path: str
    recursive: bool
    attributes_set: int  # MOUNT_ATTR_*
    attributes_recursive: bool
    propagation: int  # MS_PRIVATE, MS_SLAVE or MS_SHARED


@value
class MountRoot:
    """Mount the snapshot at `target` and enter it."""

    snapshot: MountPlan
    target: str


@value
class MountKernelFilesystem:
    """proc, sysfs, devpts, mqueue, tmpfs: never through a symbolic link of the image."""

    destination: str
    type: str
    source: str
    flags: int
    data: str


@value
class MountCgroups:
    """Show the container its own cgroups at `destination`, one directory a v1 controller."""

    destination: str
    version: int  # 1 or 2
    hierarchies: tuple[str, ...]  # v1: mount options of each ("memory", "cpu,cpuacct")
    read_only: bool


@value
class MakeDevice:
    """A node of the container's own /dev, by mknod."""

    device: Device


@value
class MakeLink:
    """A symbolic link in the container's own /dev."""

    path: str
    target: str


@value
class ChangeRoot:
    """pivot_root into the mounted root and let go of the host's tree."""


@value
class AttachSource:
    """Attach the copy `key` at `destination`, resolved inside the root; made if it is missing."""

    key: str
    destination: str
    copy_up: bool = False  # fill the (empty) source from what the image has at the destination
    replace_node: bool = False  # destination is a file of our own /dev


@value
class MountTmpfs:
    """A tmpfs that the user asked for, at a destination resolved inside the root."""

    destination: str
    flags: int
    data: str


@value
class MaskPath:
    """Hide a file behind /dev/null or a directory behind an empty one, if it exists."""

    path: str


@value
class MakeReadonly:
    """Bind a path on itself, read-only, if it exists."""

    path: str


@value
class MakeRootReadonly:
    """Remount the root itself read-only; other mounts keep their mode."""


@value
class SetHostname:
    name: str
    domain: str = ""


@value
class SetSysctl:
    name: str
    setting: str


@value
class BringLoopbackUp:
    """127.0.0.1 and ::1 of a new network namespace."""


@value
class ReopenNull:
    """Where stdin, stdout or stderr is the host's /dev/null, use the container's own instead.

    Its root could otherwise change the mode of the host's node through the descriptor.
    """


@value
class OpenTerminal:
    """Take a terminal from the container's own devpts, send its master to the supervisor."""


@value
class LookUpUser:
    """Find the ids, groups and home of `user` in the container's own files."""

    user: str
    uid: int
    gid: int
    additional_gids: tuple[int, ...]


@value
class MakeWorkingDirectory:
    path: str


@value
class SetRlimits:
    limits: tuple[Rlimit, ...]


@value
class SetOomScore:
    adjustment: int


@value
class SetNoNewPrivileges:
    """From here on no exec can give privileges, and a filter needs none to be installed."""


@value
class InstallFilter:
    """The seccomp program, compiled."""

    program: bytes


@value
class DropBoundingSet:
    """Capabilities (bits) that no exec can ever bring back are all but these."""

    keep: int


@value
class BecomeUser:
    """Groups, gid, uid, then exactly these capabilities in the five sets."""

    effective: int
    permitted: int
    inheritable: int
    ambient: int
    set_groups: bool  # False where the kernel forbids it: a user namespace with one id
    umask: int


Step = (
    JoinCgroups
    | Unshare
    | JoinSessionKeyring
    | MakeMountsPrivate
    | CloneSource
    | MountRoot
    | MountKernelFilesystem
    | MountCgroups
    | MakeDevice
    | MakeLink
    | ChangeRoot
    | AttachSource
    | MountTmpfs
    | MaskPath
    | MakeReadonly
    | MakeRootReadonly
    | SetHostname
    | SetSysctl
    | BringLoopbackUp
    | ReopenNull
    | OpenTerminal
    | LookUpUser
    | MakeWorkingDirectory
    | SetRlimits
    | SetOomScore
    | SetNoNewPrivileges
    | InstallFilter
    | DropBoundingSet
    | BecomeUser
)
