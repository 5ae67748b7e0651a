"""Other issuers of tokens: where their keys are, and whether a token is theirs.

Nothing that comes from outside says where we connect: an issuer is one that an administrator wrote
down, its keys lie on its own host or one that the settings name, and no redirect is followed. What
an issuer answers is bounded in bytes and time. Its keys are kept an hour, and looked for again when
a token names one that is not among them, but not for every such token.

Spec: OpenID Connect Discovery 1.0, RFC 7517, RFC 7519, RFC 8725.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from ocispec.errors import InvalidDocument
from ocispec.jsondoc import parse_object
from registry.errors import InvalidSettings, Unauthenticated, Unavailable

if TYPE_CHECKING:
    import httpx

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
MAX_TOKEN = 16 * 1024
MAX_DOCUMENT = 256 * 1024
MAX_KEYS = 100
ANSWER_S = 5.0

_KEEP_S = 3600.0
_AGAIN_S = 30.0
_REMEMBERED = 100
_SKEW_S = 30
# Tokens of CI systems and logins last minutes.
_LONGEST_S = 24 * 3600
_MIN_RSA_BITS = 2048
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_issuer(url: str) -> str:
    """The URL itself. Raises: ValueError with what is wrong."""
    try:
        parts = urlsplit(url)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"{url[:200]!r} is no issuer: it looks like https://host[:port][/path]")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError(f"the issuer {url[:200]!r} must be an https URL")
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > 500:
        raise ValueError("an issuer has at most 500 plain characters")
    return url


def require_httpx() -> None:
    """Raises: InvalidSettings if what asks other issuers is not installed."""
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise InvalidSettings(
            "other issuers of tokens need the extra `oidc`", hint='pip install "pyreg[server,oidc]"'
        ) from None


@dataclass(slots=True)
class _Known:
    """What is known of one issuer, and when it was asked last (monotonic)."""

    keys: dict[str, Any] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)
    fetched: float = -_KEEP_S
    asked: float = -_KEEP_S
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Issuers:
    """For one event loop."""

    def __init__(
        self, hosts: Iterable[str] = (), *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._hosts = frozenset(hosts)
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def verify(self, text: str, issuer: str, audiences: Iterable[str]) -> dict[str, Any]:
        """The claims of a token of `issuer` for one of the audiences.

        Raises: Unauthenticated if it is not one; Unavailable if the issuer does not answer.
        """
        header = header_of(text)
        key = await self._key(issuer, header)
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                key,
                algorithms=[header["alg"]],
                audience=list(audiences),
                issuer=issuer,
                leeway=_SKEW_S,
                options={"require": ["iss", "sub", "aud", "exp", "iat"]},
            )
        except (jwt.PyJWTError, UnicodeError, ValueError, TypeError) as error:
            raise Unauthenticated(f"the token of {issuer} is not valid here: {error}") from error
        if claims["exp"] - claims["iat"] > _LONGEST_S:
            raise Unauthenticated(f"the token of {issuer} lasts longer than a day")
        return claims

    async def discover(self, issuer: str) -> Mapping[str, Any]:
        """What the issuer says of itself. Raises: Unavailable."""
        return (await self._fresh(issuer)).document

    async def _key(self, issuer: str, header: Mapping[str, Any]) -> Any:
        known = await self._fresh(issuer)
        found = _choose(known.keys, header)
        if found is None and self._clock() - known.asked >= _AGAIN_S:
            known = await self._fresh(issuer, older_than=self._clock())
            found = _choose(known.keys, header)
        if found is None:
            raise Unauthenticated(f"the token was signed with a key that {issuer} does not show")
        return found

    async def _fresh(self, issuer: str, *, older_than: float | None = None) -> _Known:
        known = self._known.setdefault(issuer, _Known())
        self._known.move_to_end(issuer)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        async with known.lock:
            now = self._clock()
            limit = now - _KEEP_S if older_than is None else older_than
            if known.fetched > limit:
                return known
            if now - known.asked < _AGAIN_S:
                if known.keys and now - known.fetched < _KEEP_S:
                    return known
                raise Unavailable(f"the issuer {issuer} did not answer a moment ago")
            known.asked = now
            known.document, known.keys = await self._ask(issuer)
            known.fetched = now
        return known

    async def _ask(self, issuer: str) -> tuple[Mapping[str, Any], dict[str, Any]]:
        address = issuer.rstrip("/") + "/.well-known/openid-configuration"
        document = await self.fetch(issuer, address)
        if document.get("issuer") != issuer:
            raise Unavailable(f"{address} is about another issuer")
        jwks = document.get("jwks_uri")
        if not isinstance(jwks, str):
            raise Unavailable(f"{address} does not say where the keys are")
        return document, _keys(await self.fetch(issuer, jwks))

    def allows(self, issuer: str, url: str) -> bool:
        """Whether we connect to a URL because this issuer named it."""
        try:
            mine, there = urlsplit(issuer), urlsplit(check_issuer(url.partition("?")[0]))
        except ValueError:
            return False
        if there.scheme == mine.scheme and there.netloc == mine.netloc:
            return True
        return (
            there.scheme == "https"
            and there.port in (None, 443)
            and (there.hostname in self._hosts)
        )

    async def fetch(
        self, issuer: str, url: str, *, form: Mapping[str, str] | None = None, **options: Any
    ) -> Mapping[str, Any]:
        """A JSON object, by GET or by POST of a form. Raises: Unavailable."""
        if not self.allows(issuer, url):
            raise Unavailable(
                f"the issuer {issuer} names {url[:200]!r}, which is another host",
                hint="the setting issuer_hosts lists the hosts that are fine",
            )
        require_httpx()
        import httpx

        try:
            async with (
                asyncio.timeout(ANSWER_S),
                httpx.AsyncClient(
                    follow_redirects=False, trust_env=False, timeout=ANSWER_S
                ) as client,
            ):
                return await _read(client, url, form, options)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, InvalidDocument) as error:
            why = str(error) or "it took too long"
            raise Unavailable(f"the issuer {issuer} did not answer as it must: {why}") from error


async def _read(
    client: httpx.AsyncClient, url: str, form: Mapping[str, str] | None, options: dict[str, Any]
) -> Mapping[str, Any]:
    method = "GET" if form is None else "POST"
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    async with client.stream(method, url, data=form, headers=headers, **options) as answer:
        if answer.status_code != 200:
            raise InvalidDocument(f"{method} {url.partition('?')[0]} gave {answer.status_code}")
        raw = b""
        # Raw, so that nothing small becomes large by being unpacked.
        async for part in answer.aiter_raw(64 * 1024):
            raw += part
            if len(raw) > MAX_DOCUMENT:
                raise InvalidDocument(f"more than {MAX_DOCUMENT} bytes")
    return parse_object(raw, limit=MAX_DOCUMENT, depth=20)


def header_of(text: str) -> dict[str, Any]:
    """The header of a token that may be looked at further. Raises: Unauthenticated."""
    if len(text) > MAX_TOKEN:
        raise Unauthenticated("the token is too long")
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, UnicodeError, ValueError) as error:
        raise Unauthenticated("the token is malformed") from error
    if header.get("alg") not in ALGORITHMS or "crit" in header or "b64" in header:
        raise Unauthenticated("the token is signed in a way that is not taken here")
    return header


def issuer_of(text: str) -> str:
    """Who a token says it is from; nothing of it is proven. Raises: Unauthenticated."""
    header_of(text)
    try:
        claims = jwt.decode(text, options={"verify_signature": False})
    except (jwt.PyJWTError, UnicodeError, ValueError, RecursionError) as error:
        raise Unauthenticated("the token is malformed") from error
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or not 0 < len(issuer) <= 500 or "\0" in issuer:
        raise Unauthenticated("the token does not say who it is from")
    return issuer


def _keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Public keys that sign, by `kid`. Shared secrets and keys we cannot use are left out."""
    listed = document.get("keys")
    keys: dict[str, Any] = {}
    for each in listed[:MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("kty") not in ("RSA", "EC"):
            continue
        kid = each.get("kid", "")
        if isinstance(kid, str) and each.get("use", "sig") == "sig":
            keys[kid] = each
    return keys


def _choose(keys: Mapping[str, Any], header: Mapping[str, Any]) -> Any:
    kid, algorithm = header.get("kid", ""), header["alg"]
    document = keys.get(kid) if isinstance(kid, str) else None
    if document is None or document.get("alg", algorithm) != algorithm:
        return None
    public = {name: value for name, value in document.items() if name not in ("d", "p", "q")}
    try:
        key = jwt.PyJWK(public, algorithm=algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        return None
    return key
