"""`GET /v2/`: whether this is a registry, and for clients: how to log in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.api.exchange import Exchange


async def version(exchange: Exchange) -> None:
    """Answer 200, or 401 to callers without credentials wherever there is something to log in to.

    Even if everybody may pull: clients read the challenge only here, and without one `docker login`
    would have nothing to log in to. Spec: distribution-spec, end-1.
    """
    await exchange.services.guard.require_login(exchange)
    await exchange.reply_json(200, {})
