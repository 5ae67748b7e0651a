"""What trusted proxies say about a request: who sent it, by which scheme, to which host.

Each proxy appends to X-Forwarded-For the address it was called from, so the list is read from the
right: behind each address that is one of our proxies stands what that proxy saw. The first that is
not ours is the client; what stands left of it was written by the client itself. X-Forwarded-Proto
and -Host count where that client met our outermost proxy if they list as many hops, else the value
of the nearest proxy.

`Forwarded` (RFC 7239) is not read: proxies that set X-Forwarded-* pass it on as clients wrote it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

# Longer lists are nobody's proxies.
_MOST_HOPS = 32
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")


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
            scope = self._believe(dict(scope))
        await self._app(scope, receive, send)

    def address(self, client: tuple[str, int] | None, fields: Mapping[bytes, bytes]) -> str:
        """Who sent a request with these headers; empty if nobody knows."""
        if client is None:
            return ""
        if not self._trusts(client[0]):
            return client[0]
        said = fields.get(b"x-forwarded-for")
        return (self._client(_split(said))[0] if said else "") or client[0]

    def _believe(self, scope: Scope) -> Scope:
        headers = scope["headers"]
        hops = _values(headers, b"x-forwarded-for")
        address, back = self._client(hops)
        if address:
            scope["client"] = (address, 0)
        scheme = _at(_values(headers, b"x-forwarded-proto"), back, len(hops)).lower()
        if scheme in ("http", "https"):
            scope["scheme"] = scheme
        host = _at(_values(headers, b"x-forwarded-host"), back, len(hops))
        if _HOST.fullmatch(host):
            kept = [item for item in headers if item[0] != b"host"]
            scope["headers"] = [(b"host", host.encode("ascii")), *kept]
        return scope

    def _trusts(self, address: str) -> bool:
        parsed = _parse(address)
        return parsed is not None and any(parsed in network for network in self._trusted)

    def _client(self, hops: list[str]) -> tuple[str, int]:
        """The client's address, empty if nobody says it, and how far from the right it stands."""
        known = 1
        for back, text in enumerate(reversed(hops), 1):
            parsed = _parse(text)
            if parsed is None:
                break  # "unknown", or made up
            known = back
            if not any(parsed in network for network in self._trusted):
                return str(parsed), back
        return "", known


def _parse(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as proxies write it: maybe with a port or in brackets; IPv4 in IPv6 is IPv4."""
    text = text.strip().strip('"')
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::[0-9]{1,5})?", text)
    with_port = re.fullmatch(r"([0-9.]+):[0-9]{1,5}", text)
    if bracketed:
        text = bracketed[1]
    elif with_port:
        text = with_port[1]
    if "%" in text:
        return None  # a zone means something on one machine only
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def _values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[str]:
    """The list in all fields of this name, in order; the last hops of a long one."""
    joined = b",".join(value for key, value in headers if key == name)
    return _split(joined) if joined else []


def _split(joined: bytes) -> list[str]:
    parts = joined.decode("latin-1").rsplit(",", _MOST_HOPS)[-_MOST_HOPS:]
    return [part.strip() for part in parts]


def _at(values: list[str], back: int, hops: int) -> str:
    if not values:
        return ""
    return values[-back] if len(values) == hops else values[-1]
