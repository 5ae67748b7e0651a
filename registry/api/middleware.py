"""What wraps the whole application. Pure ASGI, so that bodies stream through untouched."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Lines are gathered and written together: a write for each would cost as much as the answer.
FLUSH_AFTER_S = 0.25
FLUSH_AT_LINES = 500


class AccessLog:
    """One line for each request: time, client, method, path, status, bytes, milliseconds.

    The query and every header are left out: tokens, passwords and cookies live there.
    """

    def __init__(self, app: ASGIApp, write: Callable[[str], object] | None = None) -> None:
        self._app = app
        self._write = write or sys.stderr.write
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            try:
                await self._app(scope, receive, send)
            finally:
                self.flush()
            return
        began = time.monotonic()
        status = 0
        size = 0

        async def watch(message: Message) -> None:
            nonlocal status, size
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
            elif kind == "http.response.body":
                size += len(message.get("body", b""))
            else:  # zero-copy sends name their size
                size += message.get("count", 0) or 0
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            self._note(scope, status, size, time.monotonic() - began)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        client = scope.get("client")
        path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        host = client[0] if client else "-"
        self._lines.append(
            f"{moment} {host} {scope['method']} {path} {status} {size} {seconds * 1000:.1f}ms\n"
        )
        if len(self._lines) >= FLUSH_AT_LINES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_AFTER_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            text = "".join(self._lines)
            self._lines.clear()
            self._write(text)


class ForwardedHeaders:
    """Believe X-Forwarded-For, -Proto and -Host of trusted proxies, and of nobody else.

    Anybody else could make us name another host in challenges, and so send a client and its
    password there.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[str, ...]) -> None:
        self._app = app
        self._trusted = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if scope["type"] == "http" and client and self._trusts(client[0]):
            scope = dict(scope)
            headers = dict(scope["headers"])
            scheme = _last(headers.get(b"x-forwarded-proto"))
            if scheme in ("http", "https"):
                scope["scheme"] = scheme
            host = _last(headers.get(b"x-forwarded-host"))
            if host:
                kept = [item for item in scope["headers"] if item[0] != b"host"]
                scope["headers"] = [(b"host", host.encode("latin-1")), *kept]
            address = self._client(headers.get(b"x-forwarded-for"))
            if address:
                scope["client"] = (address, 0)
        await self._app(scope, receive, send)

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _client(self, header: bytes | None) -> str:
        """The first address, from the right, that is not one of our proxies: what stands further
        left was written by the client itself."""
        for text in reversed((header or b"").decode("latin-1").split(",")):
            address = text.strip()
            if address and not self._trusts(address):
                return address
        return ""


def _last(header: bytes | None) -> str:
    """The value that the nearest proxy added."""
    return (header or b"").decode("latin-1").rpartition(",")[2].strip()
