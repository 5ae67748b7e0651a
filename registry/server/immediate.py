"""Answers from the parser's callback: no task, no ASGI messages, one write.

An application may have a *responder*, a plain function that is asked about every GET and HEAD
before a task is made for it:

    responder(method, path, fields, client) -> Answer | None

`path` is the request target as it came, `fields` the headers by lower-case name, `client` the
peer's address. None means: by the ordinary way. So a responder answers what it can without waiting,
and nothing else needs to know that it exists. Never asked about: requests with a body, `Expect`,
an upgrade or a repeated header; requests behind one that is still being answered; and all of
them while a client does not read, or the server is at `limit_concurrency`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from registry.server.alert import HAS_ROOM, Alert
from registry.server.counters import COUNTERS

LOGGER = logging.getLogger("registry.server")

#: Answers in a row to requests that came in one read; more would keep others waiting.
IN_A_ROW = 32


class Answer(NamedTuple):
    """A whole response.

    fields: the header lines as bytes, each with its CR LF, without Date and Connection.
    body: empty for HEAD.
    """

    status: int
    fields: bytes
    body: bytes


Client = tuple[str, int] | None
Responder = Callable[[bytes, bytes, Mapping[bytes, bytes], Client], Answer | None]

# With any of these the connection does not simply go on behind the head.
_FRAMING = frozenset(
    {b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"http2-settings"}
)


class ImmediateProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which asks a responder first."""

    responder: Responder | None = None

    _answered = False
    _in_a_row = 0
    _alert: Alert | None = None
    _idle_since: float | None = None
    _idle_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        self._in_a_row = 0
        if self._alert is not None:
            self._alert.requested()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        if self.transport.is_closing():
            # An answer has ended the connection: what came behind its request is for nobody.
            self._answered = True
        elif self.responder is not None and self._respond(self.responder):
            self._answered = True
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._answered:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._answered:
            self._answered = False
        else:
            super().on_message_complete()

    def _respond(self, responder: Responder) -> bool:
        """Whether the request was answered."""
        cycle, parser = self.cycle, self.parser
        if cycle is not None and not cycle.response_complete:
            return False
        method = parser.get_method()
        if method != b"GET" and method != b"HEAD":
            return False
        fields = dict(self.headers)
        if len(fields) != len(self.headers) or not _FRAMING.isdisjoint(fields):
            return False
        if self.flow.write_paused or self._in_a_row >= IN_A_ROW or self._is_crowded():
            return False
        if parser.should_upgrade() or self.root_path:
            return False
        try:
            answer = responder(method, self.url, fields, self.client)
        except Exception:
            # The ordinary way meets the same error, and has the words for it.
            LOGGER.debug("the responder failed", exc_info=True)
            return False
        if answer is None:
            return False
        COUNTERS.immediate += 1
        self._in_a_row += 1
        self._write(answer, parser.get_http_version() != "1.0" and parser.should_keep_alive())
        return True

    def _is_crowded(self) -> bool:
        limit, state = self.limit_concurrency, self.server_state
        return limit is not None and (len(state.connections) >= limit or len(state.tasks) >= limit)

    def _is_alone(self) -> bool:
        return len(self.connections) == 1 and not self.tasks and not self.transport.is_closing()

    def _write(self, answer: Answer, keep_alive: bool) -> None:
        state = self.server_state
        parts = [STATUS_LINE[answer.status]]
        for name, value in state.default_headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (
            answer.fields,
            b"\r\n" if keep_alive else b"connection: close\r\n\r\n",
            answer.body,
        )
        self.transport.write(b"".join(parts))
        state.total_requests += 1
        if not keep_alive:
            self.transport.close()
            return
        if self._alert is None and HAS_ROOM:
            self._alert = Alert(self.loop, self._is_alone)
        if self._alert is not None:
            self._alert.answered()
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._look_if_idle)

    # --- idle connections: one timer that looks when it fires, instead of one for each answer --

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None
        super()._unset_keepalive_if_required()

    def _look_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._look_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None
        super().connection_lost(exc)
