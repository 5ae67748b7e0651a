"""`/livez` and `/readyz`, for whoever restarts or routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

_TEXT = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]


async def live(exchange: Exchange) -> None:
    """The process answers; says nothing about what it depends on."""
    await exchange.reply(200, _TEXT, b"ok\n")


async def ready(exchange: Exchange) -> None:
    """The database answers. An error becomes 503 like any other."""
    await exchange.services.metadata.accounts.find("admin")
    await exchange.reply(200, _TEXT, b"ok\n")
