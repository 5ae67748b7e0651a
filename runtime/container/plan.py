"""From a config to the ordered steps of a container's init: pure, so order is tested as data.

Why this order

1.  cgroups first, while host paths are in reach, and before the cgroup namespace is made, which
    shows as its root the cgroup its maker is in.
2.  Sources of bind mounts are taken (as detached copies) while paths still mean the host's, and
    while mounts still propagate as on the host, which `-v ...:rslave` asks to keep.
3.  The root, then the kernel's file systems. In a user namespace the kernel allows a new procfs
    only while another one is fully visible, so this is before the host's tree is let go.
4.  pivot_root. From here no path can reach the host.
5.  Masked and read-only paths lie on our own procfs and sysfs, whatever the image has there; then
    the user's mounts, attached by descriptor at places resolved inside the root.
6.  The user's ids are looked up, the working directory made, limits set: still privileged.
7.  The root becomes read-only when nothing has to be made in it any more.
8.  The filter is installed while that is still allowed, then capabilities and ids are dropped; with
    no_new_privileges the filter is last, as it then needs no privilege.
"""

from __future__ import annotations

from ocispec.runtime.config import Device
from ocispec.value import value
from runtime.container import steps as s
from runtime.container.mountoptions import parse_mount_options
from runtime.errors import EngineError
from runtime.linux import flags as f

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ocispec.runtime.config import Config, Mount
    from runtime.snapshots.base import MountPlan

NAMESPACE_FLAGS = {
    "mount": f.CLONE_NEWNS,
    "uts": f.CLONE_NEWUTS,
    "ipc": f.CLONE_NEWIPC,
    "network": f.CLONE_NEWNET,
    "cgroup": f.CLONE_NEWCGROUP,
    "pid": f.CLONE_NEWPID,
    "user": f.CLONE_NEWUSER,
    "time": f.CLONE_NEWTIME,
}
# These two are made by the fork itself: the child is born as their first process.
MADE_BY_FORK = f.CLONE_NEWPID | f.CLONE_NEWUSER

DEFAULT_DEVICES = (
    Device("/dev/null", "c", 1, 3),
    Device("/dev/zero", "c", 1, 5),
    Device("/dev/full", "c", 1, 7),
    Device("/dev/random", "c", 1, 8),
    Device("/dev/urandom", "c", 1, 9),
    Device("/dev/tty", "c", 5, 0),
)

DEFAULT_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)

KERNEL_TYPES = frozenset(("proc", "sysfs", "devpts", "mqueue"))
# A tmpfs here is part of the container's frame, mounted before the root changes.
FRAME = frozenset(("/dev", "/dev/shm"))
DEFAULT_UMASK = 0o022


@value
class CgroupView:
    """What the init needs to know of the cgroups that the parent made for it."""

    join_files: tuple[str, ...] = ()  # `tasks` of each v1 directory; empty when born in its cgroup
    version: int = 0  # 0: none
    hierarchies: tuple[str, ...] = ()


@value
class Plan:
    """Everything the child is told before it is forked."""

    fork_flags: int
    steps: tuple[s.Step, ...]
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    terminal: bool


def plan_container(
    config: Config,
    snapshot: MountPlan,
    *,
    container_id: str = "",
    seccomp: bytes = b"",
    capability_bits: Mapping[str, int],
    cgroups: CgroupView | None = None,
    copy_up: frozenset[str] = frozenset(),
) -> Plan:
    """Lay out the start of one container.

    `copy_up` are destinations of volumes that are empty and take what the image has there.
    `seccomp` is the compiled filter, empty for none.

    Raises: EngineError when the config asks for something that is not supported.
    """
    linux = config.linux
    wanted = 0
    for namespace in linux.namespaces:
        if namespace.path:
            raise EngineError(
                f"joining the {namespace.type} namespace of {namespace.path}: not supported"
            )
        wanted |= NAMESPACE_FLAGS[namespace.type]
    if not wanted & f.CLONE_NEWNS or not wanted & f.CLONE_NEWPID:
        raise EngineError("a container needs a mount and a pid namespace of its own")
    in_userns = bool(wanted & f.CLONE_NEWUSER)
    cgroups = cgroups or CgroupView()

    before: list[s.Step] = []
    if cgroups.join_files:
        before.append(s.JoinCgroups(cgroups.join_files))
    before.append(s.Unshare(wanted & ~MADE_BY_FORK))
    if container_id:
        before.append(s.JoinSessionKeyring("_ses." + container_id))

    frame: list[s.Step] = []
    attach: list[s.Step] = []
    for number, mount in enumerate(config.mounts):
        _plan_mount(mount, number, before, frame, attach, cgroups, copy_up)
        if mount.destination == "/dev" and mount.type == "tmpfs":
            _plan_devices(config, in_userns, before, frame, attach)
    before.append(s.MakeMountsPrivate())
    before.append(s.MountRoot(snapshot, config.root.path))

    inside: list[s.Step] = [s.ChangeRoot()]
    # /proc/sys is writable only until its turn to be made read-only.
    inside += [s.SetSysctl(name, setting) for name, setting in linux.sysctl]
    # In a user namespace the nodes are attached copies, and masking needs /dev/null.
    inside += [step for step in attach if isinstance(step, s.AttachSource) and step.replace_node]
    inside += [s.MaskPath(path) for path in linux.masked_paths]
    inside += [s.MakeReadonly(path) for path in linux.readonly_paths]
    inside += [
        step for step in attach if not (isinstance(step, s.AttachSource) and step.replace_node)
    ]
    if wanted & f.CLONE_NEWUTS and (config.hostname or config.domainname):
        inside.append(s.SetHostname(config.hostname, config.domainname))
    if wanted & f.CLONE_NEWNET:
        inside.append(s.BringLoopbackUp())
    return Plan(
        fork_flags=wanted & MADE_BY_FORK,
        steps=(*before, *frame, *inside, *_plan_process(config, seccomp, capability_bits)),
        args=config.process.args,
        env=config.process.env,
        cwd=config.process.cwd,
        terminal=config.process.terminal,
    )


def _plan_mount(
    mount: Mount,
    number: int,
    before: list[s.Step],
    frame: list[s.Step],
    attach: list[s.Step],
    cgroups: CgroupView,
    copy_up: frozenset[str],
) -> None:
    options = parse_mount_options(mount.options)
    if mount.type == "cgroup":
        if cgroups.version:
            read_only = bool(options.flags & f.MS_RDONLY)
            frame.append(
                s.MountCgroups(mount.destination, cgroups.version, cgroups.hierarchies, read_only)
            )
    elif options.bind or mount.type == "bind":
        key = f"mount {number}"
        before.append(
            s.CloneSource(
                key=key,
                path=mount.source,
                recursive=options.recursive,
                attributes_set=options.attributes,
                attributes_recursive=options.recursive_attributes,
                propagation=options.propagation & ~f.MS_REC or f.MS_PRIVATE,
            )
        )
        attach.append(s.AttachSource(key, mount.destination, copy_up=mount.destination in copy_up))
    elif mount.type in KERNEL_TYPES or mount.destination in FRAME:
        frame.append(
            s.MountKernelFilesystem(
                mount.destination, mount.type, mount.source, options.flags, options.data
            )
        )
    elif mount.type == "tmpfs":
        attach.append(s.MountTmpfs(mount.destination, options.flags, options.data))
    else:
        raise EngineError(
            f"cannot mount {mount.destination}: file system type {mount.type!r} is not supported"
        )


def _plan_devices(
    config: Config,
    in_userns: bool,
    before: list[s.Step],
    frame: list[s.Step],
    attach: list[s.Step],
) -> None:
    """The nodes of /dev: made where mknod works, the host's own attached in a user namespace."""
    for device in (*DEFAULT_DEVICES, *config.linux.devices):
        if not in_userns:
            frame.append(s.MakeDevice(device))
            continue
        before.append(
            s.CloneSource(
                key=device.path,
                path=device.path,
                recursive=False,
                attributes_set=0,
                attributes_recursive=False,
                propagation=f.MS_PRIVATE,
            )
        )
        attach.append(s.AttachSource(device.path, device.path, replace_node=True))
    frame += [s.MakeLink(path, target) for path, target in DEFAULT_LINKS]


def _plan_process(
    config: Config, seccomp: bytes, capability_bits: Mapping[str, int]
) -> list[s.Step]:
    process = config.process
    user = process.user
    planned: list[s.Step] = [
        s.LookUpUser(user.name, user.uid, user.gid, user.additional_gids),
        s.MakeWorkingDirectory(process.cwd),
    ]
    planned.append(s.OpenTerminal() if process.terminal else s.ReopenNull())
    if config.root.readonly:
        planned.append(s.MakeRootReadonly())
    if process.rlimits:
        planned.append(s.SetRlimits(process.rlimits))
    if process.oom_score_adj is not None:
        planned.append(s.SetOomScore(process.oom_score_adj))
    install: list[s.Step] = [s.InstallFilter(seccomp)] if seccomp else []
    if not process.no_new_privileges:
        planned += install
    caps = process.capabilities

    def bits(names: tuple[str, ...]) -> int:
        unknown = [name for name in names if name not in capability_bits]
        if unknown:
            raise EngineError(f"unknown capability {unknown[0]!r}")
        return sum(1 << capability_bits[name] for name in set(names))

    if caps is not None:
        planned.append(s.DropBoundingSet(bits(caps.bounding)))
        planned.append(
            s.BecomeUser(
                effective=bits(caps.effective),
                permitted=bits(caps.permitted),
                inheritable=bits(caps.inheritable),
                ambient=bits(caps.ambient),
                set_groups=may_set_groups(config),
                umask=DEFAULT_UMASK if user.umask is None else user.umask,
            )
        )
    else:
        raise EngineError("process.capabilities is missing: refusing to run with all of them")
    if process.no_new_privileges:
        planned.append(s.SetNoNewPrivileges())
        planned += install
    return planned


def may_set_groups(config: Config) -> bool:
    """In a user namespace with a single id, the kernel forbids setgroups(2)."""
    mappings = config.linux.gid_mappings
    return not mappings or sum(mapping.size for mapping in mappings) > 1
