"""The life of containers on disk: made, started, ended, removed, and collected after an accident.

What a container leaves, and who takes it away

    names/<name>, containers/<id>/, snapshots/<id>/, anonymous volumes    `remove`
    run/containers/<id>/                                                  `finish`
    cgroups                                                               `finish`
    mounts, namespaces, processes      the kernel, with the container's init (which dies with its
                                       supervisor at the latest)

Removal first takes the container out of sight by a rename, so that it is there or not, never half.
Every command that changes containers first runs `collect`, which finishes what a killed supervisor
or a killed removal left: the run directory says which containers are worth a look.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time

from ocispec.value import replace
from runtime.container import names, state
from runtime.container.state import ContainerRecord, ContainerState
from runtime.errors import (
    ContainerError,
    ContainerUnknown,
    EngineError,
    NameInUse,
    StoreUnreadable,
)
from runtime.linux.pidfd import ProcessHandle, boot_id
from runtime.paths import TEMPORARY
from runtime.trees import remove_tree
from runtime.volumes import anonymous_volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ocispec.runtime.config import Config
    from runtime.cgroups.base import CgroupDriver
    from runtime.paths import Paths
    from runtime.snapshots.base import Snapshotter

KILLED = 137  # 128 + SIGKILL: what a container without a supervisor ended with
_GONE = TEMPORARY + "removed"
_MAKING = TEMPORARY + "making"
_MAKING_S = 60.0  # at most, between making a directory and locking it
_DEATH_S = 10.0  # a killed init may have to wait for its file system


class Containers:
    """All containers of one engine.

    `snapshots` and `cgroups` give the host's drivers, looked for when needed.
    """

    def __init__(
        self,
        paths: Paths,
        snapshots: Callable[[], Snapshotter],
        cgroups: Callable[[], CgroupDriver],
    ) -> None:
        self.paths = paths
        self._snapshots = snapshots
        self._cgroups = cgroups
        self._making: tuple[str, int] | None = None  # the container being made, and its lock

    # -- reading ---------------------------------------------------------------------------------

    def find(self, wanted: str) -> ContainerRecord:
        """By name, id or a prefix of the id. Raises: ContainerUnknown."""
        container_id = names.find_id(self.paths, wanted)
        try:
            return state.read_record(self.paths, container_id)
        except FileNotFoundError:
            raise ContainerUnknown(f"No such container: {wanted}") from None

    def all(
        self, on_damage: Callable[[StoreUnreadable], None] | None = None
    ) -> Iterator[tuple[ContainerRecord, ContainerState]]:
        """Every container with its state as it really is. Those being made are left out.

        One whose files cannot be read is told to `on_damage` and left out.
        Raises: StoreUnreadable for it when nobody is to be told.
        """
        for container_id in names.all_ids(self.paths):
            try:
                yield state.read_record(self.paths, container_id), self.state(container_id)
            except FileNotFoundError:
                continue  # being made, or just removed
            except StoreUnreadable as error:
                if on_damage is None:
                    raise
                on_damage(error)

    def state(self, container_id: str) -> ContainerState:
        """The state as it really is: a container whose supervisor is gone is not running.

        Raises: FileNotFoundError.
        """
        found = state.read_state(self.paths, container_id)
        never_started = found.status == state.CREATED and found.supervisor is None
        if found.status == state.EXITED or never_started or found.is_watched():
            return found
        found = state.read_state(self.paths, container_id)  # it may have ended in between
        return found if found.status == state.EXITED else _orphaned(found)

    # -- making and running ----------------------------------------------------------------------

    def reserve(self, name: str) -> tuple[str, str]:
        """A directory of a new id and the name taken for it: (id, name)."""
        container_id = names.new_id()
        # First of all, as `collect` looks only at containers that have one.
        self._begin_making(container_id)
        try:
            os.mkdir(self.paths.container(container_id), 0o700)
            if name:
                self._take_name(name, container_id)
            else:
                name = names.take_any_name(self.paths, container_id)
        except BaseException:
            self.discard(container_id)
            raise
        return container_id, name

    def _take_name(self, name: str, container_id: str) -> None:
        try:
            names.take_name(self.paths, name, container_id)
        except NameInUse:
            if not self.collect():  # it may be the name of what a killed process left
                raise
            names.take_name(self.paths, name, container_id)

    def create(self, record: ContainerRecord, config: Config) -> ContainerState:
        """Write down a reserved container; it exists from here on, watched by this process.

        One that is removed with its end is not worth a disk flush: a power cut ends it.
        """
        import json

        from ocispec.image.layout import write_file_atomically

        sync = not record.auto_remove
        write_file_atomically(
            self.paths.container_config(record.id), json.dumps(config.to_json()).encode(), sync=sync
        )
        made = self.take_over(record.id, ContainerState(state.CREATED))
        state.write_record(self.paths, record, sync=sync)
        self._end_making(record.id)
        return made

    def _begin_making(self, container_id: str) -> None:
        """Make the run directory, locked before it can be seen: the lock goes with this process,
        so that `collect` knows at once what a killed one was making."""
        final = self.paths.container_run(container_id)
        os.mkdir(final + _MAKING, 0o700)
        held = os.open(final + _MAKING, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._making = (container_id, held)
        fcntl.flock(held, fcntl.LOCK_EX)
        os.rename(final + _MAKING, final)

    def _end_making(self, container_id: str) -> None:
        if self._making is not None and self._making[0] == container_id:
            fcntl.flock(self._making[1], fcntl.LOCK_UN)  # what was forked meanwhile has it, too
            os.close(self._making[1])
            self._making = None

    def take_over(self, container_id: str, current: ContainerState) -> ContainerState:
        """Record this process as the supervisor."""
        own = replace(current, supervisor=ProcessHandle.of(os.getpid()), boot=boot_id())
        state.write_state(self.paths, container_id, own)
        return own

    def started(self, container_id: str, current: ContainerState, pid: int) -> ContainerState:
        """Record the init; called before its program may run."""
        running = replace(
            current,
            status=state.RUNNING,
            init=ProcessHandle.of(pid),
            started_ns=time.time_ns(),
        )
        state.write_state(self.paths, container_id, running)
        return running

    def failed(self, record: ContainerRecord, exit_code: int, error: str) -> None:
        """Record that the program could not be started: the container stays as created."""
        self._drop_cgroups(record.id)
        if record.auto_remove:
            self._delete(record, volumes=True)
        else:
            never = ContainerState(state.CREATED, exit_code=exit_code, error=error)
            state.write_state(self.paths, record.id, never, sync=True)
        self._drop_run_directory(record.id)

    def discard(self, container_id: str) -> None:
        """Remove whatever was made for a container that was not written down."""
        self._end_making(container_id)
        for name in names.names_of(self.paths, container_id):
            names.release_name(self.paths, name, container_id)
        self._drop_cgroups(container_id)
        for volume in anonymous_volumes(self.paths, container_id):
            self._remove_tree(self.paths.volume(volume))
        self._remove_snapshot(container_id)
        _remove_if_there(self.paths.container(container_id))
        _remove_if_there(self.paths.container(container_id) + _GONE)
        self._drop_run_directory(container_id)

    def finish(
        self, record: ContainerRecord, current: ContainerState, exit_code: int, error: str = ""
    ) -> None:
        """Record the end and take away what only a running container has; then maybe all of it."""
        oom_killed = self._was_out_of_memory(record.id, exit_code)
        self._drop_cgroups(record.id)
        if not record.auto_remove:
            ended = replace(
                current,
                status=state.EXITED,
                exit_code=exit_code,
                finished_ns=time.time_ns(),
                oom_killed=oom_killed,
                error=error,
            )
            state.write_state(self.paths, record.id, ended, sync=True)
        else:
            self._delete(record, volumes=True)
        self._drop_run_directory(record.id)

    # -- removing --------------------------------------------------------------------------------

    def remove(self, wanted: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container that does not run; with `force` it is killed first.

        `volumes` removes its anonymous volumes as well. `force` also removes one whose files are
        damaged. Raises: ContainerUnknown; ContainerError if it runs; StoreUnreadable.
        """
        container_id = names.find_id(self.paths, wanted)
        try:
            record = state.read_record(self.paths, container_id)
            current = self.state(container_id)
        except FileNotFoundError:
            raise ContainerUnknown(f"No such container: {wanted}") from None
        except StoreUnreadable:
            if not force:
                raise
            self._cgroups().open(container_id).kill()
            self.discard(container_id)
            return
        if current.status == state.RUNNING or (
            current.status == state.CREATED and current.is_watched()
        ):
            if not force:
                raise ContainerError(
                    f'cannot remove container "{record.name}": container is running: '
                    "stop the container before removing or force remove"
                )
            self._kill(record, current)
        self._drop_cgroups(record.id)
        self._delete(record, volumes=volumes)
        self._drop_run_directory(record.id)

    def _kill(self, record: ContainerRecord, current: ContainerState) -> None:
        """Kill the init, and wait until the supervisor has written the end or is gone."""
        if current.init is not None:
            current.init.signal(signal.SIGKILL)
            current.init.wait(_DEATH_S)
        if current.supervisor is None or current.supervisor.pid == os.getpid():
            return
        deadline = time.monotonic() + _DEATH_S
        while time.monotonic() < deadline:
            try:
                now = state.read_state(self.paths, record.id)
            except FileNotFoundError:
                return  # --rm: the supervisor has removed it
            if now.status == state.EXITED or not now.is_watched():
                return
            if now.init is not None and now.init != current.init:
                now.init.signal(signal.SIGKILL)  # it was being started while we looked
            time.sleep(0.005)
        raise ContainerError(f"could not kill container {record.id[:12]}: it did not end in time")

    def _delete(self, record: ContainerRecord, *, volumes: bool) -> None:
        names.release_name(self.paths, record.name, record.id)
        # Volumes first: only the record, which the rename hides, knows which ones.
        for volume in record.anonymous_volumes if volumes else ():
            self._remove_tree(self.paths.volume(volume))
        directory = self.paths.container(record.id)
        try:
            os.rename(directory, directory + _GONE)
        except FileNotFoundError:
            return  # somebody else removes it at this moment
        self._delete_rest(record.id)

    def _remove_tree(self, path: str) -> None:
        try:
            _remove_if_there(path)
        except PermissionError:
            from runtime.linux.userns import as_owner

            as_owner(lambda: _remove_if_there(path))

    def _remove_snapshot(self, container_id: str) -> None:
        try:
            self._snapshots().remove(container_id)
        except PermissionError:
            from runtime.linux.userns import as_owner

            as_owner(lambda: self._snapshots().remove(container_id))

    def _delete_rest(self, container_id: str) -> None:
        self._remove_snapshot(container_id)
        _remove_if_there(self.paths.container(container_id) + _GONE)

    def _drop_cgroups(self, container_id: str) -> None:
        self._cgroups().open(container_id).destroy()

    def _was_out_of_memory(self, container_id: str, exit_code: int) -> bool:
        """Was somebody in its cgroup killed for want of memory? Only asked for the killed."""
        if exit_code != KILLED:
            return False
        return self._cgroups().open(container_id).usage().oom_kills > 0

    def _drop_run_directory(self, container_id: str) -> None:
        _remove_if_there(self.paths.container_run(container_id))

    # -- after an accident -----------------------------------------------------------------------

    def collect(self) -> int:
        """Finish what killed processes left behind; how many containers that concerned."""
        try:
            candidates = os.listdir(self.paths.run_containers)
        except FileNotFoundError:
            return 0
        marker = f"{self.paths.run}/boot"
        sweeping = _read_text(marker) != boot_id()
        lock = os.open(self.paths.run_containers, os.O_RDONLY | os.O_CLOEXEC)
        collected = 0
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if sweeping:
                candidates = self._all_on_disk()
            for container_id in candidates:
                collected += self._collect_one(container_id)
            if sweeping:
                with open(marker, "w", encoding="ascii") as file:
                    file.write(boot_id())
        except BlockingIOError:
            pass  # somebody else is at it
        finally:
            os.close(lock)
        return collected

    def _all_on_disk(self) -> list[str]:
        """Whatever has a directory: the run directory did not survive the machine's last end."""
        found = set(os.listdir(self.paths.containers)) | set(os.listdir(self.paths.run_containers))
        return sorted({name.removesuffix(_GONE) for name in found})

    def _collect_one(self, container_id: str) -> bool:
        try:
            current = state.read_state(self.paths, container_id)
            if current.is_watched():
                return False
            record = state.read_record(self.paths, container_id)
        except FileNotFoundError:
            return self._collect_unrecorded(container_id)
        except StoreUnreadable:
            return False  # somebody has to look at it, and `ps` says so
        if current.status == state.CREATED and current.supervisor is None:
            return False  # its start failed, and that is written down
        if current.init is not None and current.boot == boot_id():
            current.init.signal(signal.SIGKILL)
            current.init.wait(_DEATH_S)
        if current.status == state.EXITED:
            self._drop_cgroups(container_id)
            if record.auto_remove:
                self._delete(record, volumes=True)
            self._drop_run_directory(container_id)
        else:
            orphan = _orphaned(current)
            self.finish(record, orphan, orphan.exit_code, orphan.error)
        return True

    def _collect_of_another_boot(self, container_id: str) -> bool:
        """One without a run directory, which is made first and removed last: nobody is at it."""
        directory = self.paths.container(container_id)
        if os.path.exists(self.paths.container_record(container_id)):
            return False
        if not (os.path.isdir(directory) or os.path.isdir(directory + _GONE)):
            return False
        self.discard(container_id)
        return True

    def _collect_unrecorded(self, container_id: str) -> bool:
        """A container that was never written down, or is out of sight already."""
        path = self.paths.container_run(container_id)
        try:
            held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._collect_of_another_boot(container_id)
        try:
            if not os.path.isdir(self.paths.container(container_id) + _GONE):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.endswith(_MAKING) and time.time() - os.fstat(held).st_mtime < _MAKING_S:
                return False  # about to be locked
            if os.path.exists(self.paths.container_record(container_id)):
                return False  # written down since we looked
            self.discard(container_id)
            return True
        except BlockingIOError:
            return False  # being made right now
        finally:
            os.close(held)


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read(64).strip()
    except FileNotFoundError:
        return ""


def _orphaned(found: ContainerState) -> ContainerState:
    """What a container is whose supervisor did not live to write its end."""
    if found.status == state.CREATED:
        return replace(
            found,
            status=state.EXITED,
            exit_code=KILLED,
            error="the process starting this container was killed",
        )
    return replace(
        found,
        status=state.EXITED,
        exit_code=KILLED,
        finished_ns=found.finished_ns or found.started_ns,
        error="the process watching this container was killed",
    )


def _remove_if_there(path: str) -> None:
    try:
        remove_tree(path)
    except FileNotFoundError:
        pass
    except PermissionError:
        raise  # the caller may know somebody with more rights
    except OSError as error:
        raise EngineError(f"cannot remove {path}: {error.strerror}") from error
