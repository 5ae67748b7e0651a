"""What a container is to be: an image's config and the user's options become a runtime-spec config.

Pure: everything about the host arrives as `Host`, so that tests compare whole configs. The defaults
are Docker's, because an image that works there must work here: 14 capabilities in the bounding,
permitted and effective sets and none in the others, seven mounts, masked and read-only paths.
"""

from __future__ import annotations

from ocispec.runtime.config import (
    Capabilities,
    Config,
    DeviceRule,
    IdMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Root,
    User,
)
from ocispec.value import value
from runtime.container.environment import merge_environment
from runtime.container.options import RunOptions
from runtime.errors import EngineError
from runtime.linux import capabilities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.image.config import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEVICE_RULES = (
    DeviceRule(False),
    DeviceRule(True, "c", -1, -1, "m"),  # making a node is not opening it
    DeviceRule(True, "b", -1, -1, "m"),
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 7),  # full
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 1),  # console
    DeviceRule(True, "c", 5, 2),  # ptmx
    DeviceRule(True, "c", 136, -1),  # pts
    DeviceRule(False, "c", 10, 229),  # fuse
)

PRIVILEGED_DEVICE_RULES = (DeviceRule(True),)

SHM_BYTES = 64 << 20

# Files below /proc that lxcfs may replace; anything else there is the kernel's.
PROC_MOUNTS_ALLOWED = frozenset(
    "/proc/" + name
    for name in (
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
    )
)


@value
class Host:
    """What the config depends on beside image and options."""

    rootless: bool = False
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    hostname: str = "localhost"
    thermal_throttle: tuple[str, ...] = ()  # directories that leak how hot the processor is


@value
class Files:
    """Where the files that the engine writes for one container are."""

    rootfs: str
    resolv_conf: str
    hostname: str
    hosts: str


def container_config(
    image: ImageConfig,
    options: RunOptions,
    *,
    container_id: str,
    host: Host,
    files: Files,
    volumes: tuple[Mount, ...] = (),
) -> Config:
    """The whole config of one container.

    `volumes` are the user's mounts with their sources already found or made. The seccomp filter is
    not in it: it is compiled for the capabilities by `runtime.linux.seccomp`.

    Raises: EngineError when there is no command, or an option does not fit another.
    """
    hostname = options.hostname or (
        host.hostname if options.network == "host" else container_id[:12]
    )
    kept = capabilities.adjust(
        capabilities.DEFAULT,
        ("ALL",) if options.privileged else options.cap_add,
        options.cap_drop,
    )
    return Config(
        process=Process(
            args=command_line(image, options),
            cwd=working_directory(image, options),
            env=environment(image, options, hostname),
            user=User(name=options.user or image.user),
            terminal=options.tty,
            capabilities=Capabilities(bounding=kept, effective=kept, permitted=kept),
            rlimits=options.ulimits,
            no_new_privileges=options.no_new_privileges,
        ),
        root=Root(path=files.rootfs, readonly=options.read_only),
        hostname=hostname,
        mounts=_mounts(options, host, files, volumes),
        linux=Linux(
            namespaces=_namespaces(options, host),
            uid_mappings=host.uid_mappings,
            gid_mappings=host.gid_mappings,
            sysctl=_sysctl(options, host),
            device_rules=PRIVILEGED_DEVICE_RULES if options.privileged else DEVICE_RULES,
            masked_paths=(
                () if options.privileged else (*MASKED_PATHS, *sorted(host.thermal_throttle))
            ),
            readonly_paths=() if options.privileged else READONLY_PATHS,
        ),
    )


def command_line(image: ImageConfig, options: RunOptions) -> tuple[str, ...]:
    """Docker's rule: an entrypoint given by the user makes the image's Cmd void."""
    if options.entrypoint is not None:
        words = (*((options.entrypoint,) if options.entrypoint else ()), *options.command)
    else:
        words = (*(image.entrypoint or ()), *(options.command or image.cmd or ()))
    if not words:
        raise EngineError(
            "no command specified", hint="the image names none; write one after the image"
        )
    if not words[0]:
        raise EngineError("the command is an empty string")
    return words


def working_directory(image: ImageConfig, options: RunOptions) -> str:
    chosen = options.working_directory or image.working_dir or "/"
    if not chosen.startswith("/"):
        if options.working_directory:
            raise EngineError(
                f"the working directory {chosen!r} is invalid, it needs to be an absolute path"
            )
        chosen = "/" + chosen
    return clean_path(chosen)


def environment(image: ImageConfig, options: RunOptions, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME and TERM, then the image's variables, then the user's. HOME comes at start."""
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={hostname}"]
    if options.tty:
        defaults.append("TERM=xterm")
    return merge_environment(defaults, image.env, options.env)


def _namespaces(options: RunOptions, host: Host) -> tuple[Namespace, ...]:
    kinds = ["mount", "uts", "pid", "ipc", "cgroup"]
    if options.network != "host":
        kinds.insert(1, "network")
    if host.rootless:
        kinds.insert(0, "user")
    return tuple(Namespace(kind) for kind in kinds)


def _sysctl(options: RunOptions, host: Host) -> tuple[tuple[str, str], ...]:
    """Docker's two: any user of a network namespace of its own may take low ports, and ping."""
    if options.network == "host":
        return ()
    ports = (("net.ipv4.ip_unprivileged_port_start", "0"),)
    # The range is of ids that must exist, which a user namespace's may not.
    return ports if host.rootless else (*ports, ("net.ipv4.ping_group_range", "0 2147483647"))


def _mounts(
    options: RunOptions, host: Host, files: Files, volumes: tuple[Mount, ...]
) -> tuple[Mount, ...]:
    own = {clean_path(volume.destination) for volume in volumes}
    own |= {clean_path(mount.destination) for mount in options.tmpfs}
    devpts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if _is_mapped(5, host):
        devpts.append("gid=5")
    access = "rw" if options.privileged else "ro"
    kernel = (
        Mount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        Mount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        Mount("/dev/pts", "devpts", "devpts", tuple(devpts)),
        (
            # A user namespace may mount sysfs only over a network namespace of its own.
            Mount("/sys", "bind", "/sys", ("rbind", "nosuid", "noexec", "nodev", "rro"))
            if host.rootless and options.network == "host"
            else Mount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", access))
        ),
        Mount("/sys/fs/cgroup", "cgroup", "cgroup", (access, "nosuid", "noexec", "nodev")),
        Mount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
        Mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            ("nosuid", "noexec", "nodev", "mode=1777", f"size={options.shm_bytes or SHM_BYTES}"),
        ),
    )
    bind = ("rbind", "rprivate", "ro" if options.read_only else "rw")
    written = (
        Mount("/etc/resolv.conf", "bind", files.resolv_conf, bind),
        Mount("/etc/hostname", "bind", files.hostname, bind),
        Mount("/etc/hosts", "bind", files.hosts, bind),
    )
    for mount in (*volumes, *options.tmpfs):
        check_destination(mount.destination)
    chosen = sorted((*volumes, *options.tmpfs), key=lambda mount: _depth(mount.destination))
    return (
        *(mount for mount in kernel if mount.destination not in own),
        *(mount for mount in written if mount.destination not in own),
        *chosen,
    )


def check_destination(path: str) -> None:
    """Refuse a mount over the root, or over the kernel's own files below /proc."""
    cleaned = clean_path(path)
    if not path.startswith("/"):
        raise EngineError(f"invalid mount path: {path!r}, it must be absolute")
    if cleaned == "/":
        raise EngineError("invalid mount: the destination cannot be '/'")
    below_proc = cleaned == "/proc" or cleaned.startswith("/proc/")
    if below_proc and cleaned not in PROC_MOUNTS_ALLOWED:
        raise EngineError(f"{path!r} cannot be mounted because it is inside /proc")


def clean_path(path: str) -> str:
    """An absolute path without `.`, `..` and doubled slashes, never above the root."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _depth(path: str) -> int:
    cleaned = clean_path(path)
    return cleaned.count("/") if cleaned != "/" else 0


def _is_mapped(gid: int, host: Host) -> bool:
    return not host.rootless or any(
        mapping.container_id <= gid < mapping.container_id + mapping.size
        for mapping in host.gid_mappings
    )
