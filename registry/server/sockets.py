"""Moving bulk bytes between a socket and a file or sink, in turns of a worker thread.

A turn ends when its slice is moved or the peer was waited for too long; the event loop then waits
for the socket, so a slow peer holds no thread. Sockets are duplicates owned by the caller: the
transport may close its own at any time, and the number must not be reused under a thread's hands.
They share O_NONBLOCK with the original and stay non-blocking.
"""

from __future__ import annotations

import asyncio
import enum
import os
import select
import socket
import threading
import time
from collections.abc import Callable

from registry.server.errors import ClientGone
from registry.server.extensions import Sink
from registry.server.framing import Framing

#: Moved in one turn at most: fairness between transfers, and the longest a cancelled task waits.
SLICE = 32 << 20
#: One sendfile call.
SENDFILE_COUNT = 4 << 20
#: Bytes that wait unsent in a socket at most if its peer is on this machine: a sender that runs
#: ahead of such a reader fills megabytes of buffer that cost both of them more than the bytes
#: themselves (measured: half of the throughput). Elsewhere, also between network namespaces, bytes
#: that wait are what keeps the link busy, and any limit was measured to cost throughput.
UNSENT_LIMIT = 32 << 10
#: One round of reading; each receiving thread owns a buffer of this size.
BUFFER_SIZE = 1 << 20
#: Waited for the peer in one turn: longer than a busy peer's pauses, and a thread is not blocked.
PATIENCE_S = 0.020
#: The same for a peer that used it up in its last turn.
SHORT_PATIENCE_S = 0.001

_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_buffers = threading.local()


class Turn(enum.Enum):
    """How a turn ended."""

    DONE = "done"
    #: The slice is full; others first.
    MORE = "more"
    #: The peer is slow: wait for the socket.
    STALLED = "stalled"


class Sending:
    """One range of a file on its way to a socket."""

    def __init__(self, out: int, file: int, offset: int, count: int) -> None:
        self._out = out
        self._file = file
        self._offset = self._start = offset
        self._stop = offset + count
        self._patience = PATIENCE_S
        _limit_unsent(out)

    @property
    def sent(self) -> int:
        """Bytes of the range that the kernel has taken."""
        return self._offset - self._start

    def turn(self) -> Turn:
        """Send a slice. Raises: ClientGone; OSError if the file ends early or cannot be read."""
        budget = _Budget(self._patience)
        slice_end = min(self._stop, self._offset + SLICE)
        self._patience = PATIENCE_S
        while self._offset < slice_end:
            count = min(SENDFILE_COUNT, slice_end - self._offset)
            try:
                sent = os.sendfile(self._out, self._file, self._offset, count)
            except BlockingIOError:
                if not budget.wait(self._out, select.POLLOUT):
                    self._patience = SHORT_PATIENCE_S
                    return Turn.STALLED
                continue
            except (ConnectionError, TimeoutError):
                raise ClientGone from None
            if sent == 0:
                raise OSError(f"file ends at {self._offset}, expected {self._stop} bytes")
            self._offset += sent
        return Turn.DONE if self._offset == self._stop else Turn.MORE


class Receiving:
    """One request body on its way from a socket to a sink."""

    def __init__(self, source: int, framing: Framing, sink: Sink) -> None:
        self._source = source
        self._framing = framing
        self._sink = sink
        self._patience = PATIENCE_S
        # What came with the head was not decoded yet, and may be the whole body.
        self._is_fresh = True
        #: Body bytes given to the sink.
        self.total = 0

    def turn(self) -> Turn:
        """Receive a slice. Raises: ClientGone, MalformedBody, what the sink raises."""
        budget = _Budget(self._patience)
        slice_end = self.total + SLICE
        self._patience = PATIENCE_S
        buffer = _thread_buffer()
        with memoryview(buffer) as view:
            while self.total < slice_end:
                filled = self._framing.restore(buffer)
                filled, ending = self._fill(view, filled, budget)
                self._is_fresh = False
                size = self._framing.decode(buffer, filled)
                if size:
                    with view[:size] as body:
                        self._sink.write(body)
                    self.total += size
                if self._framing.done:
                    return Turn.DONE
                if ending is _Ending.CLOSED:
                    raise ClientGone
                if ending is _Ending.SILENT:
                    self._patience = SHORT_PATIENCE_S
                    return Turn.STALLED
        return Turn.MORE

    def _fill(self, view: memoryview, filled: int, budget: _Budget) -> tuple[int, _Ending]:
        """Read until the buffer is full, or there is something and no more at the moment."""
        start = filled
        stop = filled + self._framing.wanted(len(view) - filled)
        while filled < stop:
            try:
                with view[filled:stop] as room:
                    count = os.readv(self._source, [room])
            except BlockingIOError:
                if filled > start or (filled and self._is_fresh):
                    break
                if not budget.wait(self._source, select.POLLIN):
                    return filled, _Ending.SILENT
                continue
            except (ConnectionError, TimeoutError):
                return filled, _Ending.CLOSED
            if count == 0:
                return filled, _Ending.CLOSED
            filled += count
        return filled, _Ending.OPEN


class _Ending(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"
    SILENT = "silent"


class _Budget:
    """Time a turn may spend waiting, over all its waits: a peer that sends a byte every few
    milliseconds must not keep a thread either."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def wait(self, fd: int, event: int) -> bool:
        """Wait until the socket is ready; False when the time is used up."""
        if self._left <= 0:
            return False
        poll = select.poll()
        poll.register(fd, event)
        began = time.monotonic()
        ready = poll.poll(self._left * 1000)
        self._left -= time.monotonic() - began
        return bool(ready)


def _limit_unsent(fd: int) -> None:
    """See `UNSENT_LIMIT`; tcp(7), TCP_NOTSENT_LOWAT. Advice: not every socket is TCP's."""
    if _NOTSENT_LOWAT is None:
        return
    sock = socket.socket(fileno=fd)
    try:
        if is_local(sock):
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, UNSENT_LIMIT)
    except OSError:
        pass
    finally:
        sock.detach()


def is_local(sock: socket.socket) -> bool:
    """Whether the peer has our own address, so that packets between us go over loopback.

    Raises: OSError if the socket is not connected any more.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return bool(sock.getpeername()[0] == sock.getsockname()[0])


def _thread_buffer() -> bytearray:
    """This thread's buffer: memory grows with threads, not with uploads."""
    buffer: bytearray | None = getattr(_buffers, "buffer", None)
    if buffer is None:
        buffer = _buffers.buffer = bytearray(BUFFER_SIZE)
    return buffer


async def writable(fd: int, limit_s: float) -> bool:
    """Wait in the event loop until the socket takes more; False after `limit_s` without."""
    loop = asyncio.get_running_loop()
    return await _ready(fd, limit_s, loop.add_writer, loop.remove_writer)


async def readable(fd: int, limit_s: float) -> bool:
    """Wait in the event loop until the socket has something; False after `limit_s` without."""
    loop = asyncio.get_running_loop()
    return await _ready(fd, limit_s, loop.add_reader, loop.remove_reader)


async def _ready(
    fd: int,
    limit_s: float,
    add: Callable[[int, Callable[[], None]], None],
    remove: Callable[[int], object],
) -> bool:
    event = asyncio.Event()
    add(fd, event.set)
    try:
        async with asyncio.timeout(limit_s):
            await event.wait()
    except TimeoutError:
        return False
    finally:
        remove(fd)
    return True
