"""What is written about a container: what it was made from, and how it is.

    container.json   ContainerRecord: written once, when the container is made
    state.json       ContainerState: replaced by rename at every change
    config.json      the runtime-spec config, see `ocispec.runtime.config`

Each file carries a version. A file of a newer version is refused, never guessed at.

A container passes through created → running → exited. Who runs it, its *supervisor*, is recorded
with its start time from the beginning: when that process is gone and the state does not say exited,
nobody will write the end any more, and whoever notices collects it (`runtime.container.lifecycle`).
"""

from __future__ import annotations

import json
import os

from ocispec.image.layout import write_file_atomically
from ocispec.value import value
from runtime.errors import StoreUnreadable
from runtime.linux.pidfd import ProcessHandle, boot_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from runtime.paths import Paths

VERSION = 1
FILE_LIMIT = 4 << 20

CREATED = "created"
RUNNING = "running"
EXITED = "exited"


@value
class ContainerRecord:
    """What a container was made from; never changes."""

    id: str  # 64 hexadecimal digits
    name: str
    image: str  # as the user wrote it
    image_id: str  # digest of the image's config
    created_ns: int  # since the epoch
    command: tuple[str, ...]  # program and arguments, entrypoint included
    network: str
    auto_remove: bool = False
    detached: bool = False
    tty: bool = False
    interactive: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    mounts: tuple[str, ...] = ()  # destinations of the user's mounts
    anonymous_volumes: tuple[str, ...] = ()  # named by us, removed with the container on request
    stop_signal: str = ""
    snapshotter: str = "overlay"


@value
class ContainerState:
    """How a container is."""

    status: str
    boot: str = ""  # of the boot in which the processes below ran
    supervisor: ProcessHandle | None = None
    init: ProcessHandle | None = None  # None until it is forked
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""

    def is_watched(self) -> bool:
        """Is the process that will write the end of this container still there?"""
        return (
            self.supervisor is not None and self.boot == boot_id() and self.supervisor.is_running()
        )


def write_record(paths: Paths, record: ContainerRecord, *, sync: bool) -> None:
    document = {
        "version": VERSION,
        "id": record.id,
        "name": record.name,
        "image": record.image,
        "imageId": record.image_id,
        "created": record.created_ns,
        "command": record.command,
        "network": record.network,
        "autoRemove": record.auto_remove,
        "detached": record.detached,
        "tty": record.tty,
        "interactive": record.interactive,
        "labels": dict(record.labels),
        "mounts": record.mounts,
        "anonymousVolumes": record.anonymous_volumes,
        "stopSignal": record.stop_signal,
        "snapshotter": record.snapshotter,
    }
    raw = json.dumps(document).encode()
    write_file_atomically(paths.container_record(record.id), raw, sync=sync)


def read_record(paths: Paths, container_id: str) -> ContainerRecord:
    """Raises: FileNotFoundError if there is no such container; StoreUnreadable."""
    path = paths.container_record(container_id)
    found = _read(path)
    try:
        return ContainerRecord(
            id=found["id"],
            name=found["name"],
            image=found["image"],
            image_id=found["imageId"],
            created_ns=int(found["created"]),
            command=tuple(found["command"]),
            network=found["network"],
            auto_remove=found["autoRemove"],
            detached=found["detached"],
            tty=found["tty"],
            interactive=found["interactive"],
            labels=tuple(found["labels"].items()),
            mounts=tuple(found["mounts"]),
            anonymous_volumes=tuple(found["anonymousVolumes"]),
            stop_signal=found["stopSignal"],
            snapshotter=found["snapshotter"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from error


def write_state(
    paths: Paths, container_id: str, state: ContainerState, *, sync: bool = False
) -> None:
    """Replace the state. Without `sync` a power cut may bring back the state before."""
    document = {
        "version": VERSION,
        "status": state.status,
        "boot": state.boot,
        "supervisor": _process_json(state.supervisor),
        "init": _process_json(state.init),
        "started": state.started_ns,
        "finished": state.finished_ns,
        "exitCode": state.exit_code,
        "oomKilled": state.oom_killed,
        "error": state.error,
    }
    raw = json.dumps(document).encode()
    write_file_atomically(paths.container_state(container_id), raw, sync=sync)


def read_state(paths: Paths, container_id: str) -> ContainerState:
    """Raises: FileNotFoundError; StoreUnreadable."""
    path = paths.container_state(container_id)
    found = _read(path)
    try:
        return ContainerState(
            status=found["status"],
            boot=found["boot"],
            supervisor=_parse_process(found["supervisor"]),
            init=_parse_process(found["init"]),
            started_ns=int(found["started"]),
            finished_ns=int(found["finished"]),
            exit_code=int(found["exitCode"]),
            oom_killed=found["oomKilled"],
            error=found["error"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _process_json(process: ProcessHandle | None) -> list[int] | None:
    return [process.pid, process.start_time] if process is not None else None


def _parse_process(found: list[int] | None) -> ProcessHandle | None:
    return ProcessHandle(int(found[0]), int(found[1])) if found is not None else None


def _read(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        raw = file.read(FILE_LIMIT)
    try:
        found = json.loads(raw)
        version = found["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    if version != VERSION:
        raise StoreUnreadable(
            f"{os.path.basename(path)} of container {os.path.basename(os.path.dirname(path))[:12]} "
            f"has version {version}, this pyreg reads {VERSION}",
            hint="use the pyreg that made it, or a newer one",
        )
    members: dict[str, Any] = found
    return members


def _damaged(path: str, error: Exception) -> StoreUnreadable:
    short_id = os.path.basename(os.path.dirname(path))[:12]
    return StoreUnreadable(
        f"{path} is damaged: {type(error).__name__}: {error}",
        hint=f"remove the container with `pyreg rm -f {short_id}`",
    )
