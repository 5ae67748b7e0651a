"""Layers unpacked at the same time, each in a process of its own.

    the command ── one socket ── the pool's server ──┬─ a child for layer A, in a chroot
    (threads, HTTP)   jobs, results                  └─ a child for layer B, in a chroot

The server is forked from the command while that is still small and has one thread: start the pool
before importing an HTTP client. It loads everything an unpacking needs, then forks a child for each
layer, the largest first. The child locks itself up in the new layer's directory before it reads the
first byte, so even a mistake in the extractor would end there. It imports nothing after that: a
name like `encodings.py` would come from the image.

The server begins and commits layers in the store; its children only fill them. When the command
goes away, however it dies, the socket ends and the server takes its children with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

from ocispec.digest import Digest
from ocispec.value import replace, value
from runtime import errors
from runtime.errors import EngineError, LayerError, StoreError
from runtime.linux import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Any

    from runtime.images.limits import Limits
    from runtime.images.store import LayerStore, PendingLayer
    from runtime.images.unpack import Rules
    from runtime.linux.idmap import IdMaps

_MESSAGE = 1 << 16
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


@value
class UnpackJob:
    """One layer to unpack: the blob in `path` has `digest` and `size`, its archive `diff_id`."""

    path: str
    digest: Digest
    size: int
    diff_id: Digest


class UnpackPool:
    """Unpacks layers into a store. A context manager; leaving it ends what still runs.

    `left_out` says what collected layers had that is not on disk, such as devices without root.
    Only one thread may be in a method at a time.
    """

    def __init__(
        self,
        store: LayerStore,
        *,
        rootless: bool | None = None,
        workers: int = 0,
        limits: Limits | None = None,
    ) -> None:
        """Fork the server. `workers` 0 means one more than there are cores.

        `rootless` says how the layers will be mounted: by a user namespace's root. It is taken from
        the effective user when it is not given.
        """
        store.paths.create()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        count = workers or len(os.sched_getaffinity(0)) + 1
        self._waiting = 0
        self._socket = ours
        self.left_out: list[str] = []
        sys.stdout.flush()
        sys.stderr.flush()
        if rootless is None:
            rootless = os.geteuid() != 0
        maps = None
        if rootless:
            maps = idmap.of_caller() or idmap.single(os.getuid(), os.getgid())
        if maps is None or maps.is_single:
            self._pid = os.fork()
        else:
            from runtime.linux.userns import fork_as_root

            self._pid = fork_as_root(maps)
        if self._pid == 0:
            status = 1
            try:
                ours.close()
                _Server(theirs, store, rules=_rules(maps), workers=count, limits=limits).serve()
                status = 0
            finally:
                os._exit(status)
        theirs.close()

    @property
    def waiting(self) -> int:
        """Jobs submitted whose end has not been collected."""
        return self._waiting

    def submit(self, job: UnpackJob) -> None:
        """Begin, or queue. A layer that the store already has ends at once."""
        document = {
            "path": job.path,
            "digest": str(job.digest),
            "size": job.size,
            "diff_id": str(job.diff_id),
        }
        try:
            self._socket.send(json.dumps(document).encode())
        except OSError as error:
            raise _gone() from error
        self._waiting += 1

    def collect(self, timeout_s: float | None = None) -> tuple[Digest, EngineError | None] | None:
        """The next layer that ended: its diff id and what went wrong, if anything.

        Waits `timeout_s`, or for ever; None if nothing ended or nothing is waiting.
        """
        if not self._waiting:
            return None
        ready, _, _ = select.select([self._socket], [], [], timeout_s)
        if not ready:
            return None
        try:
            raw = self._socket.recv(_MESSAGE)
        except OSError as error:
            raise _gone() from error
        if not raw:
            raise _gone()
        self._waiting -= 1
        document = json.loads(raw)
        self.left_out += document["left_out"]
        diff_id = Digest.parse(document["diff_id"])
        problem = document["error"]
        return diff_id, None if problem is None else error_from_document(problem)

    def finish(self) -> None:
        """Wait for every job. Raises: the first error, as soon as it is known."""
        while (ended := self.collect()) is not None:
            if ended[1] is not None:
                raise ended[1]

    def close(self) -> None:
        """End the server and whatever it runs. A second time does nothing."""
        if self._pid:
            self._socket.close()
            os.waitpid(self._pid, 0)
            self._pid = 0

    def __enter__(self) -> UnpackPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _rules(maps: IdMaps | None) -> Rules:
    """What the server may do with owners: `maps` are its user namespace's, None is root's own."""
    from runtime.images.unpack import ROOT_RULES, ROOTLESS_RULES

    if maps is None:
        return ROOT_RULES
    if maps.is_single:
        return ROOTLESS_RULES
    uids, gids = (sum(each.count for each in ranges) for ranges in (maps.uids, maps.gids))
    return replace(ROOTLESS_RULES, keep_owners=True, uids=uids, gids=gids)


class _Child:
    __slots__ = ("diff_id", "output", "pending", "pid")

    def __init__(self, pid: int, diff_id: Digest, pending: PendingLayer) -> None:
        self.pid = pid
        self.diff_id = diff_id
        self.pending = pending
        self.output = b""


class _Server:
    """The loop of the forked process: jobs in, at most `workers` children, results out."""

    def __init__(
        self,
        channel: socket.socket,
        store: LayerStore,
        *,
        rules: Rules,
        workers: int,
        limits: Limits | None,
    ) -> None:
        from runtime.images.limits import Limits

        self._channel = channel
        self._store = store
        self._workers = workers
        self._rules = rules
        self._limits = limits or Limits()
        self._queue: list[UnpackJob] = []
        self._children: dict[int, _Child] = {}  # by the descriptor their result comes from

    def serve(self) -> None:
        # Ctrl-C reaches the whole group; the command decides what it means and closes the socket.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _load_everything()
        self._store.collect()  # what a killed command left
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        try:
            while True:
                self._start_children(poll)
                for fd, _ in poll.poll():
                    if fd == self._channel.fileno():
                        raw = self._channel.recv(_MESSAGE)
                        if not raw:
                            return
                        self._accept(json.loads(raw))
                    else:
                        self._hear(fd, poll)
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            self._end_children()

    def _accept(self, document: dict[str, Any]) -> None:
        job = UnpackJob(
            document["path"],
            Digest.parse(document["digest"]),
            document["size"],
            Digest.parse(document["diff_id"]),
        )
        self._queue.append(job)
        self._queue.sort(key=lambda queued: queued.size)

    def _start_children(self, poll: select.poll) -> None:
        while self._queue and len(self._children) < self._workers:
            job = self._queue.pop()
            try:
                if self._store.has(job.diff_id):
                    self._report(job.diff_id, None)
                    continue
                self._start(job, poll)
            except EngineError as error:
                self._report(job.diff_id, error)
            except OSError as error:
                self._report(job.diff_id, StoreError(f"cannot unpack {job.path}: {error}"))

    def _start(self, job: UnpackJob, poll: select.poll) -> None:
        self._store.require_space(job.size)
        blob = os.open(job.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            pending = self._store.begin(job.diff_id)
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    self._channel.close()
                    _unpack_and_exit(job, blob, pending.tree, writing, self._rules, self._limits)
                finally:
                    os._exit(1)
            os.close(writing)
        finally:
            os.close(blob)
        self._children[reading] = _Child(pid, job.diff_id, pending)
        poll.register(reading, select.POLLIN)

    def _hear(self, fd: int, poll: select.poll) -> None:
        child = self._children[fd]
        data = os.read(fd, 1 << 16)
        child.output += data
        if data:
            return
        poll.unregister(fd)
        os.close(fd)
        del self._children[fd]
        _, status = os.waitpid(child.pid, 0)
        try:
            left_out = self._conclude(child, status)
        except EngineError as error:
            self._report(child.diff_id, error)
        except OSError as error:
            self._report(child.diff_id, StoreError(f"cannot keep layer {child.diff_id}: {error}"))
        else:
            self._report(child.diff_id, None, left_out)
        finally:
            child.pending.abort()

    def _conclude(self, child: _Child, status: int) -> list[str]:
        """Commit what a child unpacked; return what it left out. Raises: what it reports."""
        if not child.output:
            code = os.waitstatus_to_exitcode(status)
            raise LayerError(
                f"unpacking ended with {'signal' if code < 0 else 'status'} {abs(code)}",
                hint="was it out of memory? see the kernel's log",
                layer=str(child.diff_id),
            )
        document = json.loads(child.output)
        if document["error"] is not None:
            raise error_from_document(document["error"])
        child.pending.commit(
            entries=document["entries"],
            size=document["size"],
            opaque=document["opaque"],
            implicit=tuple(document["implicit"]),
        )
        left_out: list[str] = document["left_out"]
        return left_out

    def _report(
        self, diff_id: Digest, error: EngineError | None, left_out: Sequence[str] = ()
    ) -> None:
        document = {
            "diff_id": str(diff_id),
            "left_out": left_out,
            "error": None if error is None else error_document(error),
        }
        self._channel.send(json.dumps(document).encode())

    def _end_children(self) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            child.pending.abort()


def _load_everything() -> None:
    """Whatever an unpacking may need, before there is a chroot to find it in."""
    from runtime.images import compression, unpack  # noqa: F401

    for algorithm in Digest.SIZES:
        Digest.of(b"", algorithm)
    compression.load()


def _unpack_and_exit(
    job: UnpackJob, blob: int, tree: str, output: int, rules: Rules, limits: Limits
) -> None:
    from runtime.images.unpack import unpack_layer
    from runtime.linux import syscalls

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    syscalls.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    if os.geteuid() == 0:
        try:
            os.chroot(tree)
            os.chdir("/")
        except PermissionError:  # root without CAP_SYS_CHROOT: openat2 still confines every name
            pass
    sys.path.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if _is_safe(finder)]
    try:
        with open(blob, "rb", buffering=0, closefd=False) as file:
            done = unpack_layer(
                file,
                root,
                digest=job.digest,
                size=job.size,
                diff_id=job.diff_id,
                rules=rules,
                limits=limits,
                ahead=len(os.sched_getaffinity(0)) > 1,
            )
        document: dict[str, Any] = {
            "error": None,
            "entries": done.entries,
            "size": done.size,
            "opaque": done.opaque,
            "implicit": done.implicit,
            "left_out": done.skipped,
        }
    except EngineError as error:
        if isinstance(error, LayerError):
            error.layer = error.layer or str(job.digest)
        document = {"error": error_document(error)}
    except MemoryError:
        document = {"error": error_document(LayerError("out of memory", layer=str(job.digest)))}
    except Exception as error:  # a mistake of ours: there is no other way out of here to tell it
        text = f"unexpected {type(error).__name__}: {error}"
        document = {"error": error_document(LayerError(text, layer=str(job.digest)))}
    raw = json.dumps(document).encode()
    while raw:
        raw = raw[os.write(output, raw) :]
    os._exit(0)


def _is_safe(finder: object) -> bool:
    return getattr(finder, "__name__", "") in ("BuiltinImporter", "FrozenImporter")


def error_document(error: EngineError) -> dict[str, Any]:
    """An error as JSON, to cross from one process to another."""
    facts = {
        name: fact
        for name, fact in vars(error).items()
        if isinstance(fact, str | int) and len(str(fact)) < 4096
    }
    return {"kind": type(error).__name__, "text": str(error.args[0])[:8192], "facts": facts}


def error_from_document(document: dict[str, Any]) -> EngineError:
    """The error again, of the same kind and with the same facts."""
    kind = getattr(errors, document["kind"], EngineError)
    error: EngineError = kind.__new__(kind)
    Exception.__init__(error, document["text"])
    vars(error).update(document["facts"])
    return error


def _gone() -> EngineError:
    return EngineError(
        "the processes that unpack layers have died", hint="was the machine out of memory?"
    )
