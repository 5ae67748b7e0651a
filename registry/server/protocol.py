"""The uvicorn protocol whose large bodies bypass ASGI messages.

    uvicorn.Config(app, http=RegistryProtocol)

Theory of operation

Sending. `http.response.zerocopysend` duplicates the socket and calls sendfile in turns of a worker
thread (see `registry.server.sockets`), after the headers have left the transport. A file range of
at most 128 KiB that is in the page cache is read and written in the event loop: a thread hop would
cost more than the bytes.

Receiving. When the head of a request with a large body is complete in one read on an idle
connection, only the head goes to the parser. The rest is *held*, with reading paused, until one of:
    the handler calls the intake      a thread reads the body from the socket; a fresh parser then
                                      takes what followed it
    the handler calls `receive`       the held bytes go to the parser, and all is as in uvicorn
    the response ends                 the same: the parser skips the body
A head that arrives in pieces, a pipelined request and a small body are never held.

This touches names of uvicorn that are not its public interface; `missing_names` checks them. With
TLS the socket cannot be used directly: nothing is advertised, and all is as in uvicorn.

Uvicorn leaves some waits unbounded; they are bounded here: size of a head, time for a head, and
time for the rest of a body that nobody wants.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from typing import Any, cast

import httptools
from uvicorn.protocols.http import httptools_impl
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from registry.server.counters import COUNTERS as COUNTERS
from registry.server.errors import ClientGone, ClientStalled
from registry.server.extensions import INTAKE, ZERO_COPY, Message, Receive, Scope, Send, Sink
from registry.server.framing import ChunkedFraming, Framing, LengthFraming
from registry.server.immediate import ImmediateProtocol
from registry.server.overload import Overloaded
from registry.server.pace import SLOWEST, Pace
from registry.server.sockets import (
    BUFFER_SIZE,
    Receiving,
    Sending,
    Turn,
    readable,
    writable,
)
from registry.server.threads import RECEIVERS, SENDERS, in_thread

#: Up to here a cached range is cheaper to copy in the event loop than to send from a thread.
IN_LOOP_COUNT = 128 << 10
#: From here a body is worth a thread.
INTAKE_LENGTH = 64 << 10
#: Request line and headers together. Tokens of a few kilobytes are usual.
MAX_HEAD = 64 << 10

_BODY_METHODS = (b"PUT ", b"PATCH ", b"POST ")
_HEAD_END = b"\r\n\r\n"
# RFC 3986, 3.2.2, without user information: a name, an IPv4 or a bracketed IPv6 address; a port.
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def missing_names() -> list[str]:
    """What this version of uvicorn, or this system, lacks for the fast paths; empty is good."""
    needed = {
        HttpToolsProtocol.__init__: (
            "app",
            "parser",
            "cycle",
            "flow",
            "transport",
            "pipeline",
            "headers",
            "server_state",
            "limit_concurrency",
            "root_path",
            "timeout_keep_alive_task",
        ),
        FlowControl.__init__: ("write_paused",),
        RequestResponseCycle.__init__: (
            "transport",
            "more_body",
            "expected_content_length",
            "chunked_encoding",
            "disconnected",
            "keep_alive",
            "waiting_for_100_continue",
            "response_started",
            "response_complete",
        ),
    }
    missing = [
        f"{function.__qualname__}: {name}"
        for function, names in needed.items()
        for name in names
        if name not in function.__code__.co_names
    ]
    for owner, names in (
        (HttpToolsProtocol, ("on_message_begin", "on_headers_complete", "on_response_complete")),
        (HttpToolsProtocol, ("_unset_keepalive_if_required", "timeout_keep_alive_handler")),
        (FlowControl, ("pause_reading", "resume_reading")),
        (httptools_impl, ("RequestResponseCycle", "STATUS_LINE")),
        (os, ("sendfile", "readv", "preadv", "RWF_NOWAIT")),
    ):
        missing += [f"{owner.__name__}.{name}" for name in names if not hasattr(owner, name)]
    return missing


_MISSING = missing_names()


class RegistryProtocol(ImmediateProtocol):
    #: Seconds without a byte after which a transfer is given up.
    idle_s = 60.0
    #: Seconds for a request's head, from the connection or its first byte.
    head_s = 30.0
    #: Seconds for a client to finish a body that was answered without being read.
    unread_s = 60.0
    #: Seconds for a client to notice an early answer before the connection is closed.
    linger_s = 5.0
    #: False: behave as if the system had no fast paths.
    fast_paths = True
    #: Connections of this process beyond which requests get 503; 0 is no limit.
    max_connections = 0

    _fast = False
    _in_message = False
    _in_head = False
    _head_size = 0
    _host = b""
    _held: Intake | None = None
    _discarding = False
    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    # --- connection ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.max_connections and len(self.connections) > self.max_connections:
            self.app = cast(Any, Overloaded(self.app))
            self.responder = None
        if not self.fast_paths or _MISSING:
            self.responder = None
        self._fast = self.fast_paths and not _MISSING and self.scheme == "http"
        if self._fast:
            self._application = self.app
            self.app = cast(Any, self._run)
        self._arm(self.head_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._stop_watching_reader()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        if self._fast and not self._in_message and data.startswith(_BODY_METHODS):
            end = data.find(_HEAD_END, 0, MAX_HEAD)
            if end >= 0 and (self.cycle is None or self.cycle.response_complete):
                self._head_with_body(data[: end + 4], data[end + 4 :])
                return
        room = MAX_HEAD - self._head_size if self._in_head else MAX_HEAD
        if len(data) > room and self._is_head_too_large(data, room):
            self._refuse_head()
            return
        super().data_received(data)
        if self._in_head:
            self._await_head()
            self._head_size += len(data)
            if self._head_size > MAX_HEAD:
                self._refuse_head()

    def _is_head_too_large(self, data: bytes, room: int) -> bool:
        """Whether one read brings the rest of a head beyond the limit: later would be too late."""
        if self._in_message and not self._in_head:
            return False
        if self._in_head and data.startswith((b"\n", b"\r\n")):
            return False  # the end may have begun in the read before
        return data.find(_HEAD_END, 0, room) < 0

    def _refuse_head(self) -> None:
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_TOO_LARGE)
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Uvicorn would write it into the middle of an earlier answer that is still being sent."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _head_with_body(self, head: bytes, rest: bytes) -> None:
        before = self.cycle
        super().data_received(head)
        cycle = self.cycle
        if cycle is not before and self._in_message and not self.transport.is_closing():
            framing = self._framing(cycle, rest)
            if framing is not None:
                self.flow.pause_reading()
                self._held = Intake(self, cycle, rest, framing)
                cycle.transport = cast(Any, _LingeringTransport(self))
                cast(Scope, cycle.scope)["extensions"][INTAKE] = self._held
                return
        if rest and not self.transport.is_closing():
            super().data_received(rest)
            if self._in_head:
                self._await_head()

    def _framing(self, cycle: RequestResponseCycle, rest: bytes) -> Framing | None:
        """How the body of this request ends, if it is worth an intake."""
        if len(rest) > BUFFER_SIZE // 2 or self.parser.should_upgrade():
            return None
        if self.parser.get_http_version() != "1.1":
            return None
        headers = cycle.scope["headers"]
        codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
        lengths = [value for name, value in headers if name == b"content-length"]
        if codings == [b"chunked"] and not lengths:
            return ChunkedFraming(rest)
        # The parser refuses what is not a number, repeated, or beside a transfer coding.
        if not codings and lengths and int(lengths[0]) >= INTAKE_LENGTH:
            return LengthFraming(int(lengths[0]), rest)
        return None

    def _unsupported_upgrade_warning(self) -> None:
        """The parser takes what follows a head with `Upgrade` for another protocol, and a body as
        well: read on, it would be the next request of somebody else. So this one is the last, and
        with a body it is none."""
        cycle = self.cycle
        self._discarding = True
        names = [name for name, value in cycle.scope["headers"] if value != b"0"]
        if not (b"content-length" in names or b"transfer-encoding" in names):
            cycle.keep_alive = False
        elif self.pipeline:
            self.transport.abort()
        else:
            cycle.disconnected = True
            self.send_400_response("An upgrade with a body is not supported.")

    # --- parser -------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_message = self._in_head = True
        self._head_size = 0
        if self._fast:
            cast(Scope, self.scope)["extensions"] = {ZERO_COPY: {}}

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        self._check_host()
        super().on_headers_complete()

    def _check_host(self) -> None:
        """Refuse with 400 what RFC 9112, 3.2 says: no Host, several, or one that is no host."""
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) == 1 and hosts[0] == self._host:
            return
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            raise ValueError("a request needs one Host header")
        if hosts:
            if _HOST.fullmatch(hosts[0]) is None:
                raise ValueError("this Host header names no host")
            self._host = hosts[0]

    def on_message_complete(self) -> None:
        self._in_message = False
        if self.cycle is not None and self.cycle.response_complete:
            self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        held = self._held
        if self.transport.is_closing() or self._discarding:
            return
        if held is not None:
            held.release()
        if self._in_message and not self._in_head and self.cycle.response_complete:
            self._arm(self.unread_s)

    def restart_parser(self, tail: bytes) -> None:
        """Go on after a body that the parser did not see; `tail` came behind it."""
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        except AttributeError:
            pass
        self._in_message = False
        self.flow.resume_reading()
        if tail:
            self.data_received(tail)

    def _await_head(self) -> None:
        """A head has begun and not ended: a whole one in one read needs no deadline."""
        if self._deadline is None:
            self._arm(self.head_s)

    # --- deadlines ----------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._stop_watching_reader()
        super().resume_writing()

    def _watch_reader(self) -> None:
        """Bytes wait for a client to read: it must take some, even of a connection that is being
        closed, which otherwise lasts until the last of them is gone."""
        self._stop_watching_reader()
        waiting = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(self.idle_s, self._look_at_reader, waiting)

    def _stop_watching_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _look_at_reader(self, before: int) -> None:
        if before - self.transport.get_write_buffer_size() < SLOWEST * self.idle_s:
            self.transport.abort()
        else:
            self._watch_reader()

    def close_lingering(self) -> None:
        """Close after an answer that came before the end of the request.

        Closing with unread bytes resets the connection, and the reset may overtake the answer.
        So: end our side, and drop what still comes for a moment.
        """
        if self.transport.is_closing() or self._discarding:
            return
        self._discarding = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._arm(self.linger_s)

    # --- application --------------------------------------------------------------------------

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application, with `send` and `receive` that know the extensions."""
        cycle = getattr(send, "__self__", None)
        if not isinstance(cycle, RequestResponseCycle):
            await self._application(scope, receive, send)
            return
        held = scope["extensions"].get(INTAKE)

        async def send_fast(message: Message) -> None:
            if self.transport.is_closing():
                cycle.disconnected = True  # uvloop fails where asyncio drops what is written now
            if message["type"] == ZERO_COPY:
                await self._zero_copy(cycle, send, message)
            else:
                await send(message)

        async def receive_held() -> Message:
            held.release()
            return await receive()

        await self._application(
            scope,
            receive if held is None else receive_held,
            send_fast,
        )

    async def _zero_copy(self, cycle: RequestResponseCycle, send: Send, message: Message) -> None:
        file = message["file"]
        file = file if isinstance(file, int) else file.fileno()
        offset, more_body = message.get("offset", 0), message.get("more_body", False)
        count = message["count"] if "count" in message else os.fstat(file).st_size - offset
        if not cycle.response_started or cycle.chunked_encoding is not False:
            raise RuntimeError("a zero-copy send needs a Content-Length")
        if cycle.scope["method"] == "HEAD":
            count = 0
        elif count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        if 0 < count <= IN_LOOP_COUNT:
            data = _read_cached(file, offset, count)
            if data is not None:
                COUNTERS.in_loop += 1
                await send({"type": "http.response.body", "body": data, "more_body": more_body})
                return
        if count:
            if not await self._send_file(cycle, file, offset, count):
                return
            cycle.expected_content_length -= count
        if not more_body:
            await send({"type": "http.response.body", "body": b""})

    async def _send_file(
        self, cycle: RequestResponseCycle, file: int, offset: int, count: int
    ) -> bool:
        """Send from threads; False if the client is gone or does not read any more."""
        if not await self._flushed(cycle):
            return False
        COUNTERS.zero_copy += 1
        out = _duplicate(self.transport)
        try:
            sending = Sending(out, file, offset, count)
            pace = Pace(self.idle_s)
            while not cycle.disconnected:
                turn = await in_thread(SENDERS, sending.turn)
                if turn is Turn.DONE:
                    return True
                if turn is Turn.STALLED:
                    COUNTERS.stalled += 1
                    began = time.monotonic()
                    if not await writable(out, pace.left(sending.sent)):
                        break
                    pace.waited(time.monotonic() - began)
        except ClientGone:
            pass
        finally:
            os.close(out)
        self.give_up(cycle)
        return False

    async def _flushed(self, cycle: RequestResponseCycle) -> bool:
        """Wait until the transport has written all it was given; False if it never will."""
        began = self.loop.time()
        pause = 0.0  # uvloop writes at the end of the current round: mostly once is enough
        while not cycle.disconnected and not self.transport.is_closing():
            if self.transport.get_write_buffer_size() == 0:
                return True
            if self.loop.time() - began > self.idle_s:
                self.give_up(cycle)
                break
            await asyncio.sleep(pause)
            pause = min(0.05, pause * 2 + 0.0005)
        return False

    def give_up(self, cycle: RequestResponseCycle) -> None:
        """Break the connection; nothing that the application still sends goes anywhere."""
        cycle.disconnected = True
        self.transport.abort()


class Intake:
    """The body of one request that is held; called, it reads the body into a sink."""

    def __init__(
        self,
        protocol: RegistryProtocol,
        cycle: RequestResponseCycle,
        rest: bytes,
        framing: Framing,
    ) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._rest = rest
        self._framing = framing
        self._used = False
        #: Bytes of the body that were read so far.
        self.received = 0

    def release(self) -> None:
        """Let the parser have the body after all; nothing once it was released or read."""
        protocol = self._protocol
        if protocol._held is not self:
            return
        if self._used:
            raise RuntimeError("receive() while the intake reads the body")
        protocol._held = None
        if protocol.parser is not None and not protocol.transport.is_closing():
            protocol.flow.resume_reading()
            if self._rest:
                protocol.data_received(self._rest)

    async def __call__(self, sink: Sink) -> int:
        """See `pyreg.intake` in `registry.server.extensions`."""
        if self._used or self._protocol._held is not self:
            raise RuntimeError("the body was read already")
        self._used = True
        COUNTERS.intake += 1
        cycle, protocol = self._cycle, self._protocol
        if cycle.disconnected or protocol.transport.is_closing():
            raise ClientGone
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            protocol.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        source = _duplicate(protocol.transport)
        try:
            total = await self._receive(source, sink)
        except BaseException as error:
            self._give_up(error)
            raise
        finally:
            os.close(source)
            protocol._held = None
        cycle.more_body = False
        if protocol.parser is not None:
            protocol.restart_parser(self._framing.tail)
        return total

    async def _receive(self, source: int, sink: Sink) -> int:
        receiving = Receiving(source, self._framing, sink)
        pace = Pace(self._protocol.idle_s)
        while not self._cycle.disconnected:
            try:
                turn = await in_thread(RECEIVERS, receiving.turn)
            finally:
                self.received = receiving.total
            if turn is Turn.DONE:
                return receiving.total
            if turn is Turn.STALLED:
                COUNTERS.stalled += 1
                began = time.monotonic()
                if not await readable(source, pace.left(receiving.total)):
                    raise ClientStalled(self._protocol.idle_s)
                pace.waited(time.monotonic() - began)
        raise ClientGone

    def _give_up(self, error: BaseException) -> None:
        """Part of the body is still to come: the connection serves no other request."""
        cycle = self._cycle
        if isinstance(error, ClientGone):
            self._protocol.give_up(cycle)
        else:
            cycle.keep_alive = False


class _LingeringTransport:
    """What the cycle of a held body sees of the transport: `close` before its end lingers."""

    def __init__(self, protocol: RegistryProtocol) -> None:
        self._protocol = protocol

    def write(self, data: bytes) -> None:
        self._protocol.transport.write(data)

    def is_closing(self) -> bool:
        return self._protocol.transport.is_closing()

    def close(self) -> None:
        if self._protocol._in_message:
            self._protocol.close_lingering()
        else:
            self._protocol.transport.close()


def _duplicate(transport: asyncio.Transport) -> int:
    sock: socket.socket = transport.get_extra_info("socket")
    return os.dup(sock.fileno())


def _read_cached(file: int, offset: int, count: int) -> bytes | None:
    """The bytes if all of them are in the page cache; None if it would mean waiting for a disk."""
    data = bytearray(count)
    try:
        if os.preadv(file, [data], offset, os.RWF_NOWAIT) != count:
            return None
    except OSError:  # not cached, or a file system without RWF_NOWAIT
        return None
    return bytes(data)
