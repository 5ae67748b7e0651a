"""Worker threads for bulk bytes, and the one safe way to wait for them.

Two pools, so that uploads never wait for downloads. Their threads run at a lower priority than the
event loop: on a busy machine that keeps small requests at a tenth of the latency. Senders go lower
still. It sounds wrong and was measured: a sender that does not push a reading process aside finds
the socket's buffer emptier, moves more in one call and uses half the CPU (1.2 to 1.4 times the
throughput of a niceness of 5, on a busy machine too).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")

#: Added to the niceness of pool threads; `configure` changes it before the first use.
SEND_NICENESS = 15
RECEIVE_NICENESS = 5


class WorkerPool:
    """A lazily started pool of `2 x cores` threads."""

    def __init__(self, name: str, niceness: int) -> None:
        self._name = name
        self._niceness = niceness
        self._size = 2 * (os.cpu_count() or 1)
        self._executor: ThreadPoolExecutor | None = None
        self._process = 0
        self._lock = threading.Lock()

    def configure(self, *, niceness: int | None = None, size: int | None = None) -> None:
        """For threads that start from now on."""
        self._niceness = self._niceness if niceness is None else niceness
        self._size = self._size if size is None else size

    @property
    def executor(self) -> ThreadPoolExecutor:
        """The running pool; a forked child gets its own, as threads do not survive a fork."""
        if self._executor is None or self._process != os.getpid():
            with self._lock:
                if self._executor is None or self._process != os.getpid():
                    self._process = os.getpid()
                    self._executor = ThreadPoolExecutor(
                        self._size, f"pyreg-{self._name}", self._start_thread
                    )
        return self._executor

    def _start_thread(self) -> None:
        if self._niceness:
            # Linux keeps a niceness for each thread. It is refused in some sandboxes: not vital.
            with contextlib.suppress(OSError):
                thread = threading.get_native_id()
                niceness = min(19, os.getpriority(os.PRIO_PROCESS, thread) + self._niceness)
                os.setpriority(os.PRIO_PROCESS, thread, niceness)


#: Reads files and writes sockets.
SENDERS = WorkerPool("send", SEND_NICENESS)
#: Reads sockets, hashes and writes files.
RECEIVERS = WorkerPool("receive", RECEIVE_NICENESS)


async def in_thread(
    pool: WorkerPool, function: Callable[[*Arguments], Result], *arguments: *Arguments
) -> Result:
    """Call a blocking function in a pool thread; return only when it has ended.

    A cancelled task keeps waiting for its thread and is cancelled then: whoever owns a descriptor
    or buffer may release it as soon as this returns, in every case.
    """
    call = _Call(asyncio.get_running_loop(), function, arguments)
    pool.executor.submit(call.run)
    try:
        await call.ended
    except asyncio.CancelledError:
        while not call.is_over:
            call.ended = call.loop.create_future()
            with contextlib.suppress(asyncio.CancelledError):
                await call.ended
        raise
    if call.error is not None:
        try:
            raise call.error
        finally:
            del call  # it has the error, whose traceback has this frame
    return call.result  # type: ignore[no-any-return]


class _Call:
    """A call in a thread and who waits for it. A chain of asyncio's futures does the same with
    several times the work, which counts in a request of a few hundred microseconds."""

    __slots__ = ("arguments", "ended", "error", "function", "is_over", "loop", "result")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, function: Callable[..., Any], arguments: Any
    ) -> None:
        self.loop = loop
        self.function = function
        self.arguments = arguments
        self.result: Any = None
        self.error: BaseException | None = None
        #: Set in the event loop, and nowhere else.
        self.is_over = False
        #: Wakes who waits; whoever is cancelled while waiting makes a new one.
        self.ended: asyncio.Future[None] = loop.create_future()

    def run(self) -> None:
        try:
            self.result = self.function(*self.arguments)
        except BaseException as error:
            self.error = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.is_over = True
        if not self.ended.done():
            self.ended.set_result(None)
