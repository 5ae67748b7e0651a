"""`/livez` and `/readyz`, for whoever restarts or routes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

log = logging.getLogger("pyreg.registry")

_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]

#: How long a verdict is good: probes of many replicas must not become a load.
REMEMBER_S = 1.0
#: How long the database or the storage may take to answer.
PATIENCE_S = 5.0

Check = Callable[[], Awaitable[object]]


class Readiness:
    """Whether requests should come here; asked of what the registry depends on."""

    def __init__(
        self,
        checks: dict[str, Check],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._checks = checks
        self._clock = clock
        self._patience_s = patience_s
        self._lock = asyncio.Lock()
        self._until = 0.0
        self._reason = ""
        self._draining = False

    def drain(self) -> None:
        """From now on: not ready, because the server stops."""
        self._draining = True

    async def reason(self) -> str:
        """Why not, as the name of what fails; empty if ready. The log says more."""
        if self._draining:
            return "not ready: stopping"
        async with self._lock:
            if self._clock() >= self._until:
                before, self._reason = self._reason, await self._find()
                self._until = self._clock() + REMEMBER_S
                if before and not self._reason:
                    log.warning("ready again")
        return self._reason

    async def _find(self) -> str:
        for name, check in self._checks.items():
            try:
                async with asyncio.timeout(self._patience_s):
                    await check()
            except Exception as error:
                said = str(error) or f"no answer within {self._patience_s:g} s"
                log.error("not ready: %s: %s", name, said)
                return f"not ready: {name}"
        return ""


async def live(exchange: Exchange) -> None:
    """The process answers; says nothing about what it depends on."""
    await exchange.reply(200, _TEXT, b"ok\n")


async def ready(exchange: Exchange) -> None:
    """Database and storage answer. Anybody may ask, so the answer names no host and no path."""
    reason = await exchange.services.readiness.reason()
    headers = [*_TEXT, (b"retry-after", b"1")] if reason else _TEXT
    await exchange.reply(503 if reason else 200, headers, f"{reason or 'ok'}\n".encode())
