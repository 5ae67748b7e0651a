"""`/metrics` on the registry's own address, for whom the settings let see it.

A caller on this machine counts only if nothing points at a proxy in between: with `public_url`, a
forwarding header, or a Host that is not of this machine, somebody else may be behind it.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING

from registry.api.problems import Refusal

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

_FORWARDED = (b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded", b"via")


async def metrics(exchange: Exchange) -> None:
    """The counts of all workers. Raises: Refusal."""
    settings = exchange.services.settings
    if settings.metrics == "off":
        raise Refusal(404, "UNSUPPORTED", "metrics are not served here")
    if not _shows_token(exchange, settings.metrics_token) and not (
        settings.metrics == "loopback" and not settings.public_url and _is_local(exchange)
    ):
        raise Refusal(
            401 if settings.metrics_token else 403,
            "DENIED",
            "metrics are for the registry's own machine, or for who has the metrics token",
            headers=[(b"www-authenticate", b'Bearer realm="metrics"')]
            if settings.metrics_token
            else [],
        )
    body, content_type = await exchange.services.monitoring.metrics(exchange.header_text(b"accept"))
    await exchange.reply(
        200, [(b"content-type", content_type.encode()), (b"cache-control", b"no-store")], body
    )


def _shows_token(exchange: Exchange, token: str) -> bool:
    given = exchange.header(b"authorization") or b""
    scheme, _, value = given.partition(b" ")
    if not token or scheme.lower() != b"bearer":
        return False
    return hmac.compare_digest(value.strip(), token.encode())


def _is_local(exchange: Exchange) -> bool:
    client = exchange.scope.get("client")
    if not client or any(exchange.header(name) is not None for name in _FORWARDED):
        return False
    host = exchange.header_text(b"host")
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return _is_loopback(client[0]) and (name == "localhost" or _is_loopback(name.strip("[]")))


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
