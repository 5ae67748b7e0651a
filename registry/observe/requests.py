"""What is told of every request when it ended, and to whom.

Two callers: the ASGI middleware for most requests, and the server's immediate answers, which never
become ASGI messages:

    about = About(…) if observer.wants_about else None
    observer.ended(kind, method, status, seconds, received, sent, about)

Counting is all that happens while nobody wants to know more.
"""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from registry.observe.counts import RequestCounts

REQUEST_ID = b"x-request-id"

# What we take over from a proxy: short, and nothing that a log or a terminal could misread.
_PLAIN = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(slots=True)
class About:
    """What only a log or a trace wants to know of a request; filled in while it is answered.

    kind: as in `registry.observe.counts.KINDS`.
    request_id: what the client is told in X-Request-Id.
    client: its address, behind trusted proxies.
    path: the raw path of the request line, without the query.
    subject: the account, empty for nobody.
    repository: empty where the request names none.
    traceparent: of W3C's Trace Context, as it came.
    received: bytes of the request's body.
    """

    kind: str = "other"
    request_id: str = ""
    client: str = ""
    path: bytes = b""
    subject: str = ""
    repository: str = ""
    user_agent: bytes = b""
    traceparent: bytes = b""
    received: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished request. status: 0 if the client was gone before an answer began."""

    method: str
    status: int
    seconds: float
    received: int
    sent: int
    about: About


class Observer:
    """Counts requests and tells readers of them; for one event loop."""

    def __init__(self) -> None:
        self.requests = RequestCounts()
        #: Whether anybody reads more than counts.
        self.wants_about = False
        self._readers: list[Callable[[Ended], None]] = []
        # Not before the first request: the process may still be forked.
        self._ids: Callable[[], int] | None = None
        self._prefix = ""

    def add_reader(self, reader: Callable[[Ended], None]) -> None:
        """From now on `reader` is called with every request. It must not block or raise."""
        self._readers.append(reader)
        self.wants_about = True

    def remove_reader(self, reader: Callable[[Ended], None]) -> None:
        self._readers.remove(reader)
        self.wants_about = bool(self._readers)

    def request_id(self, given: bytes | None) -> str:
        """The id that came with the request if it is short and plain, else a new one."""
        if given is not None and _PLAIN.fullmatch(given):
            return given.decode("ascii")
        if self._ids is None:
            self._prefix = secrets.token_hex(6)
            self._ids = itertools.count(1).__next__
        return f"{self._prefix}{self._ids():08x}"

    def ended(
        self,
        kind: str,
        method: str,
        status: int,
        seconds: float,
        received: int,
        sent: int,
        about: About | None = None,
    ) -> None:
        """Say that a request ended. `received` and `sent` are bytes of bodies."""
        self.requests.add(kind, method, status, seconds, received, sent)
        if about is not None and self._readers:
            ended = Ended(method, status, seconds, received, sent, about)
            for reader in self._readers:
                reader(ended)
