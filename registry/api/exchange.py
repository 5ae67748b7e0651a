"""One request and its response, as the handlers of the API see them.

A thin layer on ASGI messages instead of Starlette's Request and Response: the paths that serve
manifests run it ten thousand times a second.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from registry.api.middleware import ABOUT
from registry.api.params import Query
from registry.api.routes import Target
from registry.observe.requests import About
from registry.server.errors import ClientStalled
from registry.server.extensions import IDLE_S
from registry.server.pace import Pace

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from registry.api.services import Services

Header = tuple[bytes, bytes]

# Every answer carries these. `nosniff`: a blob is whatever its pusher wanted it to be, and must
# never become a page or a script of our origin in somebody's browser.
_ALWAYS: list[Header] = [
    (b"docker-distribution-api-version", b"registry/2.0"),
    (b"x-content-type-options", b"nosniff"),
]


def always_headers(warning: str = "") -> list[Header]:
    """What every answer carries; `warning` is the operator's word to all who push and pull.

    Spec: distribution-spec, "Warnings"; the only code is 299, the agent is unknown.
    """
    if not warning:
        return _ALWAYS
    quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
    return [*_ALWAYS, (b"warning", f'299 - "{quoted}"'.encode("ascii"))]


_HOST = re.compile(r"[A-Za-z0-9._\[\]:-]{1,255}")

JSON = b"application/json"


class Exchange:
    """What one handler works with; it lives as long as the request."""

    __slots__ = (
        "_query",
        "always",
        "method",
        "receive",
        "scope",
        "send",
        "services",
        "started",
        "target",
    )

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, target: Target, services: Services
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.target = target
        self.services = services
        self.method: str = scope["method"]
        self.started = False
        self.always = services.always
        self._query: Query | None = None

    @property
    def about(self) -> About:
        """What log and traces will say of this request; handlers add what they learn."""
        about: About | None = self.scope.get(ABOUT)
        return About() if about is None else about

    def header(self, name: bytes) -> bytes | None:
        """The first header of this lower-case name."""
        for key, value in self.scope["headers"]:
            if key == name:
                found: bytes = value
                return found
        return None

    def header_text(self, name: bytes) -> str:
        """The first header of this name as text, empty if absent."""
        value = self.header(name)
        return value.decode("latin-1") if value is not None else ""

    @property
    def query(self) -> Query:
        if self._query is None:
            self._query = Query(self.scope["query_string"])
        return self._query

    async def reply(self, status: int, headers: Iterable[Header] = (), body: bytes = b"") -> None:
        """Send a whole response; for HEAD the same without its body."""
        self.started = True
        fields = [*self.always, *headers]
        if status != 204 and status != 304:
            fields.append((b"content-length", b"%d" % len(body)))
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
        await self.send(
            {"type": "http.response.body", "body": b"" if self.method == "HEAD" else body}
        )

    async def reply_json(
        self, status: int, document: Any, headers: Iterable[Header] = (), media_type: bytes = JSON
    ) -> None:
        body = json.dumps(document, separators=(",", ":")).encode()
        await self.reply(status, [(b"content-type", media_type), *headers], body)

    async def reply_head(self, status: int, headers: Iterable[Header], length: int) -> None:
        """Answer HEAD as GET would be answered with a body of `length` bytes."""
        self.started = True
        fields = [*self.always, *headers, (b"content-length", b"%d" % length)]
        await self.send({"type": "http.response.start", "status": status, "headers": fields})
        await self.send({"type": "http.response.body", "body": b""})

    def with_always(self, headers: Iterable[Header]) -> list[Header]:
        """Headers for an answer that is sent in other ways."""
        return [*self.always, *headers]

    def content_length(self) -> int | None:
        """The announced size of the body, None if it is not announced."""
        announced = self.header(b"content-length")
        if announced is None or not announced.isdigit() or len(announced) > 18:
            return None
        return int(announced)

    def has_body(self) -> bool:
        """Whether a body comes at all."""
        return bool(self.content_length()) or self.header(b"transfer-encoding") is not None

    async def read_body(self, limit: int) -> bytes | None:
        """The whole body, or None if it is longer than `limit` bytes or never ended.

        A length announced above the limit is refused before a byte is read.
        Raises: ClientStalled.
        """
        announced = self.content_length()
        if announced is not None and announced > limit:
            return None
        parts: list[bytes] = []
        size = 0
        pace = Pace(IDLE_S)
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(pace.left(size)):
                    message = await self.receive()
            except TimeoutError:
                raise ClientStalled(IDLE_S) from None
            pace.waited(time.monotonic() - began)
            if message["type"] == "http.disconnect":
                return None
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                return None
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    def client_address(self) -> str:
        """Where the request comes from, as far as trusted proxies say; empty if nobody knows."""
        client = self.scope.get("client")
        return str(client[0]) if client else ""

    def base_url(self) -> str:
        """How the client reaches us: scheme and host, without a slash at the end."""
        settings = self.services.settings
        if settings.public_url:
            return settings.public_url.rstrip("/")
        host = self.header_text(b"host")
        if not _is_host(host):
            server = self.scope.get("server") or ("localhost", settings.port)
            host = f"{server[0]}:{server[1]}"
        scheme = "https" if self.scope.get("scheme") == "https" else "http"
        return f"{scheme}://{host}"


def _is_host(text: str) -> bool:
    """Whether this can stand in a URL and a quoted header parameter."""
    return _HOST.fullmatch(text) is not None
