"""The engine: containers from images, put together from its parts. No daemon: each call does it.

`create` makes a container out of an image that is unpacked in the store; `run` starts it and stays
with it, `run_detached` starts it under a monitor of its own; `Containers` finds and removes them.
"""

from __future__ import annotations

import errno
import os
import time

from ocispec.value import replace, value
from runtime.cgroups.devices import DeviceRule
from runtime.container import monitor
from runtime.container.files import write_files
from runtime.container.launch import launch
from runtime.container.lifecycle import Containers
from runtime.container.logs import LogWriter
from runtime.container.plan import CgroupView, plan_container
from runtime.container.spec import Host, container_config
from runtime.container.state import ContainerRecord
from runtime.errors import ContainerError, EngineError, SystemCallFailed
from runtime.images.store import LayerStore
from runtime.linux import capabilities, seccomp
from runtime.volumes import PreparedVolumes, prepare_volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ocispec.image.config import ImageConfig
    from ocispec.runtime.config import Config
    from runtime.cgroups.base import Cgroup, CgroupDriver
    from runtime.cgroups.limits import Limits
    from runtime.container.launch import Started
    from runtime.container.options import RunOptions
    from runtime.container.plan import Plan
    from runtime.container.state import ContainerState
    from runtime.linux.idmap import IdMaps
    from runtime.paths import Paths
    from runtime.snapshots.base import MountPlan, Snapshotter


@value
class Prepared:
    """A container that exists on disk and can be started by this process."""

    record: ContainerRecord
    state: ContainerState
    plan: Plan
    maps: IdMaps | None  # of its user namespace
    cgroup: Cgroup
    limits: Limits
    devices: tuple[DeviceRule, ...]

    @property
    def id(self) -> str:
        return self.record.id


class Engine:
    """One engine on one store. Making it touches nothing on disk.

    `warn` is told what works less well on this host than it should.
    """

    def __init__(
        self, paths: Paths, *, rootless: bool, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self.paths = paths
        self.rootless = rootless
        self.layers = LayerStore(paths)
        self._warn = warn
        self._driver: CgroupDriver | None = None
        self._snapshotter: Snapshotter | None = None
        self.containers = Containers(paths, self.snapshots, self.cgroups)

    def snapshots(self) -> Snapshotter:
        """Overlay where it can be mounted, else copies; found once."""
        if self._snapshotter is None:
            from runtime.snapshots.probe import choose_snapshotter

            self._snapshotter = choose_snapshotter(
                self.layers, rootless=self.rootless, warn=self._warn
            )
        return self._snapshotter

    def cgroups(self) -> CgroupDriver:
        """The driver for this host's cgroups, found once."""
        if self._driver is None:
            from runtime.cgroups.detect import driver

            self._driver = driver()
        return self._driver

    def create(
        self, image: ImageConfig, options: RunOptions, *, image_name: str, image_id: str
    ) -> Prepared:
        """Make a container; its layers must be in the store. After an error there is none.

        Raises: EngineError; NameInUse; LayerUnknown.
        """
        self.paths.create()
        container_id, name = self.containers.reserve(options.name)
        try:
            volumes = prepare_volumes(
                self.paths, container_id, options.volumes, _volumes(image, options)
            )
            return self._create(image, options, volumes, container_id, name, image_name, image_id)
        except BaseException:
            self.containers.discard(container_id)
            raise

    def _create(
        self,
        image: ImageConfig,
        options: RunOptions,
        volumes: PreparedVolumes,
        container_id: str,
        name: str,
        image_name: str,
        image_id: str,
    ) -> Prepared:
        maps = self._maps()
        host = _host(maps)
        hostname = options.hostname or (
            host.hostname if options.network == "host" else container_id[:12]
        )
        files = write_files(self.paths, container_id, options, hostname)
        snapshot = self._snapshot(container_id, image, volatile=options.auto_remove)
        cgroup = self.cgroups().create(container_id, options.limits)
        config = container_config(
            image,
            options,
            container_id=container_id,
            host=host,
            files=files,
            volumes=volumes.mounts,
        )
        plan = plan_container(
            config,
            snapshot,
            container_id=container_id,
            seccomp=self._filter(config.process.capabilities.bounding, options)
            if config.process.capabilities is not None
            else b"",
            capability_bits=capabilities.NUMBERS,
            cgroups=self._view(cgroup),
            copy_up=volumes.copy_up,
        )
        record = ContainerRecord(
            id=container_id,
            name=name,
            image=image_name,
            image_id=image_id,
            created_ns=time.time_ns(),
            command=config.process.args,
            network=options.network,
            auto_remove=options.auto_remove,
            detached=options.detach,
            tty=options.tty,
            interactive=options.interactive,
            labels=tuple({**dict(image.labels), **dict(options.labels)}.items()),
            mounts=tuple(mount.destination for mount in volumes.mounts),
            anonymous_volumes=volumes.anonymous,
            stop_signal=options.stop_signal or image.stop_signal or "",
        )
        state = self.containers.create(record, config)
        return Prepared(record, state, plan, maps, cgroup, options.limits, device_rules(config))

    def _snapshot(self, container_id: str, image: ImageConfig, *, volatile: bool) -> MountPlan:
        """The container's root. Where layers have directories of other users of the namespace, it
        can only be prepared by the namespace's root."""

        def prepare() -> MountPlan:
            return self.snapshots().prepare(container_id, image.diff_ids, volatile=volatile)

        try:
            return prepare()
        except SystemCallFailed as error:
            if not self.rootless or error.errno not in (errno.EPERM, errno.EACCES):
                raise
        from runtime.linux.userns import as_owner

        as_owner(prepare)
        return self.snapshots().mounts(container_id)

    def _view(self, cgroup: Cgroup) -> CgroupView:
        """What the init is told: v1 directories end in `<hierarchy>/pyreg/<id>`."""
        kind = self.cgroups().kind
        if kind == "v1":
            return CgroupView(
                join_files=tuple(f"{directory}/tasks" for directory in cgroup.directories),
                version=1,
                hierarchies=tuple(
                    os.path.basename(os.path.dirname(os.path.dirname(directory)))
                    for directory in cgroup.directories
                ),
            )
        return CgroupView(version=2 if kind == "v2" else 0)

    def _filter(self, held: tuple[str, ...], options: RunOptions) -> bytes:
        if options.seccomp_unconfined or options.privileged:
            return b""
        return seccomp.compile_filter(seccomp.default_profile(held))

    def _maps(self) -> IdMaps | None:
        if not self.rootless:
            return None
        from runtime.linux import idmap

        return idmap.of_caller()

    # -- running ---------------------------------------------------------------------------------

    def run(
        self,
        prepared: Prepared,
        *,
        stdin: int | None,
        stdout: int,
        stderr: int,
        pass_signals: bool = True,
    ) -> int:
        """Start a container and stay until it ends; its exit status, 128+n for signal n.

        The container ends with this process. What it writes goes to `stdout` and `stderr`, and to
        its log unless it is removed at its end anyway.

        Raises: EngineError, also when the container has ended but its output is lost: a full disk.
        """
        with monitor.SignalProxy(terminal=prepared.plan.terminal, enabled=pass_signals) as proxy:
            if prepared.plan.terminal:
                return self._run_on_terminal(prepared, proxy, stdin, stdout)
            streams = monitor.Streams(
                stdin=stdin, stdout=stdout, stderr=stderr, capture=not prepared.record.auto_remove
            )
            started, state = self._launch(prepared, streams.stdio)
            streams.close_container_ends()
            proxy.attach(started.pidfd)
            self.containers.collect()
            watch = monitor.Watch(started, self._log(prepared.record))
            watch.carry(streams)
            status = self._end(prepared.record, state, watch.run())
            if watch.lost:
                raise EngineError(watch.lost)
            return status

    def _run_on_terminal(
        self, prepared: Prepared, proxy: monitor.SignalProxy, stdin: int | None, stdout: int
    ) -> int:
        from runtime.container import tty

        own = next((fd for fd in (stdin, stdout) if fd is not None and os.isatty(fd)), None)
        size = tty.size_of(own) if own is not None else None
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        started, state = self._launch(prepared, (null, null, null), terminal_size=size)
        os.close(null)
        proxy.attach(started.pidfd)
        self.containers.collect()
        watch = monitor.Watch(started, self._log(prepared.record))
        watch.carry_terminal(stdin=stdin, stdout=stdout)
        if own is None:
            return self._end(prepared.record, state, watch.run())
        watch.follow_size(own)
        if stdin is None or not os.isatty(stdin):
            return self._end(prepared.record, state, watch.run())
        with tty.RawMode(stdin):
            status = watch.run()
        return self._end(prepared.record, state, status)

    def run_detached(self, prepared: Prepared) -> None:
        """Start a container under a monitor that stays; return when its program runs.

        Raises: EngineError as `run`, with what the monitor met.
        """

        def work(report: Callable[[bytes], None]) -> None:
            self._monitor(prepared, report)

        words = monitor.detach(work)
        if words == b"ok":
            return
        if not words:
            self.containers.collect()
            raise ContainerError("the monitor of the container was killed before it started")
        status, _, text = words.decode(errors="replace").partition("\0")
        message, _, hint = text.partition("\0")
        failure = ContainerError(message, hint=hint)
        failure.exit_status = int(status)
        raise failure

    def _monitor(self, prepared: Prepared, report: Callable[[bytes], None]) -> None:
        """What the monitor's process does with its life."""
        taken = self.containers.take_over(prepared.id, prepared.state)
        prepared = replace(prepared, state=taken)
        try:
            if prepared.plan.terminal:
                null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                started, state = self._launch(prepared, (null, null, null))
                os.close(null)
                watch = monitor.Watch(started, self._log(prepared.record))
                watch.carry_terminal(stdin=None, stdout=None)
            else:
                streams = monitor.Streams(stdin=None, stdout=None, stderr=None, capture=True)
                started, state = self._launch(prepared, streams.stdio)
                streams.close_container_ends()
                watch = monitor.Watch(started, self._log(prepared.record))
                watch.carry(streams)
        except EngineError as error:
            report(f"{error.exit_status}\0{error}\0{error.hint}".encode())
            return
        report(b"ok")
        monitor.lower_oom_score()
        self.containers.collect()
        self._end(prepared.record, state, watch.run())

    def _launch(
        self,
        prepared: Prepared,
        stdio: tuple[int, int, int],
        terminal_size: tuple[int, int] | None = None,
    ) -> tuple[Started, ContainerState]:
        state = prepared.state

        def on_fork(pid: int) -> None:
            nonlocal state
            state = self.containers.started(prepared.id, state, pid)

        cgroup_fd = prepared.cgroup.descriptor()

        try:
            # Before there is a child: while the rules are written, the kernel denies the devices
            # that it makes in its /dev.
            prepared.cgroup.apply(prepared.limits)
            prepared.cgroup.allow_devices(prepared.devices)
            started = launch(
                prepared.plan,
                stdio,
                on_fork=on_fork,
                write_mappings=_mapper(prepared.maps),
                terminal_size=terminal_size,
                cgroup_fd=cgroup_fd,
            )
        except BaseException as error:
            status = error.exit_status if isinstance(error, EngineError) else 125
            self.containers.failed(prepared.record, status, str(error))
            raise
        finally:
            if cgroup_fd >= 0:
                os.close(cgroup_fd)
        return started, state

    def _log(self, record: ContainerRecord) -> LogWriter | None:
        """A container that goes away with its command leaves nobody to read its log."""
        if record.auto_remove and not record.detached:
            return None
        return LogWriter(self.paths.container_log(record.id))

    def _end(self, record: ContainerRecord, state: ContainerState, wait_status: int) -> int:
        code = os.waitstatus_to_exitcode(wait_status)
        status = 128 - code if code < 0 else code
        self.containers.finish(record, state, status)
        return status


def device_rules(config: Config) -> tuple[DeviceRule, ...]:
    """The config's rules in the cgroup driver's words."""
    return tuple(
        DeviceRule(rule.allow, rule.type, rule.major, rule.minor, rule.access)
        for rule in config.linux.device_rules
    )


def _mapper(maps: IdMaps | None) -> Callable[[int], None] | None:
    if maps is None:
        return None
    from runtime.linux import idmap

    return lambda pid: idmap.write(pid, maps)


def _volumes(image: ImageConfig, options: RunOptions) -> tuple[str, ...]:
    """The image's volumes that no tmpfs of the user takes the place of."""
    covered = {mount.destination.rstrip("/") for mount in options.tmpfs}
    return tuple(path for path in image.volumes if path.rstrip("/") not in covered)


def _host(maps: IdMaps | None) -> Host:
    from ocispec.runtime.config import IdMapping

    def mappings(ranges: object) -> tuple[IdMapping, ...]:
        return tuple(IdMapping(r.inside, r.outside, r.count) for r in ranges)  # type: ignore[attr-defined]

    return Host(
        rootless=maps is not None,
        uid_mappings=mappings(maps.uids) if maps is not None else (),
        gid_mappings=mappings(maps.gids) if maps is not None else (),
        hostname=os.uname().nodename,
        thermal_throttle=_thermal_throttle(),
    )


_PROCESSORS = "/sys/devices/system/cpu"


def _thermal_throttle() -> tuple[str, ...]:
    """The directories that tell how hot each processor is; most machines in a cloud have none."""
    if not os.path.isdir(f"{_PROCESSORS}/cpu0/thermal_throttle"):
        return ()
    found = []
    for name in os.listdir(_PROCESSORS):
        path = f"{_PROCESSORS}/{name}/thermal_throttle"
        if name.startswith("cpu") and name[3:].isdigit() and os.path.isdir(path):
            found.append(path)
    return tuple(found)
