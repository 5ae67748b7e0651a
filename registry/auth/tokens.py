"""Access tokens: signed by us with ES256, verified by us, remembered for a minute.

What verification believes: a signature of one of our own keys, found by `kid` in our own list.
Others may verify too: `jwks` is what they need, RFC 7517.
Nothing that a token says about keys or algorithms is followed; a header with anything else in it
than `alg`, `typ` and `kid` is refused outright, because we never make such a token.

Verifying costs 150 µs, a remembered token well under one. What is remembered ends with the token,
after a minute, or when the keys are loaded anew.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from ocispec.distribution.scope import Scope, merge
from ocispec.errors import InvalidScope
from registry.errors import Unauthenticated
from registry.metadata.base import Credentials, SigningKey

_ALGORITHM = "ES256"
_HEADER = {"alg", "typ", "kid"}
_CLAIMS = ("iss", "sub", "aud", "exp", "nbf", "iat")

# Clients that are told less assume a minute all the same.
MIN_LIFETIME_S = 60
DEFAULT_LIFETIME_S = 15 * 60

# A token with the most scopes a request may have is about half of this.
MAX_TOKEN_CHARACTERS = 64 * 1024

_REMEMBERED = 4096
_REMEMBER_S = 60.0

# Clocks of replicas differ a little.
_SKEW_S = 10

# A token with an unknown key makes us look for new keys, but not for every such token.
_RELOAD_S = 5.0

# How long a retired key verifies beyond the life of its last token: as long as an expired token
# still finishes an upload, see `registry.auth.guard.UPLOAD_GRACE_S`.
_KEEP_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An access token as its client gets it."""

    text: str
    #: Seconds since 1970.
    issued_at: int
    expires_in_s: int


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a token of ours says."""

    #: The account's name; empty for somebody without credentials.
    subject: str
    #: Actions by type and name of the resource.
    grants: Mapping[tuple[str, str], frozenset[str]]
    #: Seconds since 1970.
    expires_at: int
    #: The password it was given for, as `registry.auth.login.credential_of` names it.
    credential: str = ""

    def actions(self, kind: str, name: str) -> frozenset[str]:
        """Granted actions on one resource; `*` is left as it is."""
        return self.grants.get((kind, name), frozenset())


class UnknownKey(Unauthenticated):
    """The token names a key that we do not have: another replica may have made one since."""

    def __init__(self) -> None:
        super().__init__("the token was signed with a key that is not ours")


class TokenExpired(Unauthenticated):
    """The token is one of ours, and its time is over; `token` is what it said."""

    def __init__(self, token: VerifiedToken) -> None:
        super().__init__("the token has expired")
        self.token = token


def new_signing_key(now: int) -> SigningKey:
    """A fresh P-256 key, named by a hash of its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningKey(
        kid=hashlib.sha256(public).hexdigest()[:32],
        private_pem=pem.decode("ascii"),
        created_at=now,
        current=True,
    )


class Tokens:
    """Issues and verifies. For one event loop: not for several threads."""

    def __init__(
        self,
        keys: Iterable[SigningKey],
        *,
        issuer: str,
        service: str,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._service = service
        self._lifetime_s = max(lifetime_s, MIN_LIFETIME_S)
        self._clock = clock
        self._remembered: OrderedDict[str, tuple[float, VerifiedToken]] = OrderedDict()
        self.load(keys)

    @property
    def service(self) -> str:
        """Our name in challenges; tokens for another one are refused."""
        return self._service

    def load(self, keys: Iterable[SigningKey]) -> None:
        """Use these keys from now on, the current one to sign; forget every verified token."""
        self._public: dict[str, ec.EllipticCurvePublicKey] = {}
        for key in keys:
            private = load_pem_private_key(key.private_pem.encode("ascii"), None)
            if not isinstance(private, ec.EllipticCurvePrivateKey):
                raise ValueError(f"signing key {key.kid} is not an elliptic curve key")
            self._public[key.kid] = private.public_key()
            if key.current:
                self._signing = key.kid, private
        self._remembered.clear()

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public keys, the signing one first. Spec: RFC 7517, RFC 7518 section 6.2."""
        shown = []
        for kid, key in self._public.items():
            document = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)
            shown.append({**document, "kid": kid, "use": "sig", "alg": _ALGORITHM})
        return {"keys": shown}

    def issue(self, subject: str, grants: Iterable[Scope], *, credential: str = "") -> IssuedToken:
        """A token for our own service that allows its bearer exactly `grants`."""
        now = int(self._clock())
        kid, private = self._signing
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": self._service,
            "exp": now + self._lifetime_s,
            "nbf": now,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": [
                {"type": scope.type, "name": scope.name, "actions": sorted(scope.actions)}
                for scope in merge(grants)
            ],
        }
        if credential:
            claims["cred"] = credential
        text = jwt.encode(claims, private, algorithm=_ALGORITHM, headers={"kid": kid})
        return IssuedToken(text, now, self._lifetime_s)

    def verify(self, text: str) -> VerifiedToken:
        """Raises: Unauthenticated if the token is not one of ours for us and for now; UnknownKey if
        only its key is not known (yet); TokenExpired if only its time is over."""
        now = self._clock()
        remembered = self._remembered.get(text)
        if remembered is not None and now < remembered[0]:
            self._remembered.move_to_end(text)
            return remembered[1]
        verified = self._verify(text, now)
        self._remembered[text] = min(now + _REMEMBER_S, float(verified.expires_at)), verified
        if len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)
        return verified

    def _verify(self, text: str, now: float) -> VerifiedToken:
        if len(text) > MAX_TOKEN_CHARACTERS:
            raise Unauthenticated("the token is too long")
        try:
            header = jwt.get_unverified_header(text)
        except (jwt.PyJWTError, UnicodeError) as error:
            raise Unauthenticated("the token is malformed") from error
        if header.get("alg") != _ALGORITHM or not header.keys() <= _HEADER:
            raise Unauthenticated("the token is not one of ours")
        kid = header.get("kid")
        key = self._public.get(kid) if isinstance(kid, str) else None
        if key is None:
            raise UnknownKey()
        try:
            # Times are checked below, by the same clock that issues.
            claims = jwt.decode(
                text,
                key,
                algorithms=[_ALGORITHM],
                audience=self._service,
                issuer=self._issuer,
                options={
                    "require": list(_CLAIMS),
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, UnicodeError, ValueError) as error:
            raise Unauthenticated("the token is not valid here") from error
        return _verified(claims, now)


def _verified(claims: Mapping[str, Any], now: float) -> VerifiedToken:
    subject, expires_at, not_before = claims["sub"], claims["exp"], claims["nbf"]
    credential = claims.get("cred", "")
    numbers, texts = (expires_at, not_before), (subject, credential)
    if any(type(each) is not int for each in numbers) or any(type(t) is not str for t in texts):
        raise Unauthenticated("the token is malformed")
    if now < not_before - _SKEW_S:
        raise Unauthenticated("the token is not valid yet")
    token = VerifiedToken(subject, _grants(claims.get("access")), expires_at, credential)
    if now >= expires_at:
        raise TokenExpired(token)
    return token


def _grants(access: object) -> Mapping[tuple[str, str], frozenset[str]]:
    try:
        if not isinstance(access, list):
            raise TypeError
        scopes = merge(Scope(each["type"], each["name"], each["actions"]) for each in access)
    except (KeyError, TypeError, InvalidScope) as error:
        raise Unauthenticated("the token is malformed") from error
    return {(scope.type, scope.name): scope.actions for scope in scopes}


class TokenService:
    """Tokens whose keys are kept in the database and shared by all replicas."""

    def __init__(
        self,
        tokens: Tokens,
        keys: tuple[SigningKey, ...],
        credentials: Credentials,
        *,
        keep_s: int,
        version_now: Callable[[], Awaitable[int]] | None,
        monotonic: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._keys = keys
        self._credentials = credentials
        self._keep_s = keep_s
        self._version_now = version_now
        self._version = -1
        self._monotonic = monotonic
        self._loaded_at = monotonic()
        #: Counted up with every change of keys: what was verified before is to be verified again.
        self.generation = 0

    @property
    def service(self) -> str:
        """Our name in challenges; tokens for another one are refused."""
        return self._tokens.service

    def issue(self, subject: str, grants: Iterable[Scope], *, credential: str = "") -> IssuedToken:
        """A token for our own service that allows its bearer exactly `grants`."""
        return self._tokens.issue(subject, grants, credential=credential)

    async def verify(self, text: str) -> VerifiedToken:
        """As `Tokens.verify`; a key unknown here is looked for in the database, now and then.

        Raises: Unauthenticated; TokenExpired.
        """
        try:
            return self._tokens.verify(text)
        except UnknownKey:
            if not await self._may_be_newer():
                raise
        await self.reload()
        return self._tokens.verify(text)

    async def _may_be_newer(self) -> bool:
        """Whether another process may have made a key: every rotation counts as a change of rights;
        that number is cheap to ask for, however many junk tokens come."""
        if self._monotonic() - self._loaded_at >= _RELOAD_S:
            return True
        if self._version_now is None:
            return False
        version, before = await self._version_now(), self._version
        self._version = version
        return version != before

    async def reload(self) -> None:
        """Load the keys anew; if they are others now, forget every verified token."""
        self._loaded_at = self._monotonic()
        self._take(await self._credentials.signing_keys())

    def _take(self, keys: tuple[SigningKey, ...]) -> None:
        if keys != self._keys:
            self._tokens.load(keys)
            self._keys = keys
            self.generation += 1

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """As they were loaded last, the signing one first."""
        return self._keys

    def verifies_until(self, key: SigningKey) -> int | None:
        """When tokens of a retired key have all ended; None for the one that signs."""
        return None if key.retired_at is None else key.retired_at + self._keep_s

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Our public keys, RFC 7517."""
        return self._tokens.jwks()

    async def rotate(self, *, drop: bool = False) -> None:
        """Sign with a new key. Tokens of those before stay valid, unless `drop` says that they must
        not: then every access token that was ever given out has ended."""
        key = new_signing_key(int(time.time()))
        keep_s = 0 if drop else self._keep_s
        self._take(await self._credentials.rotate_signing_key(key, keep_s))


async def open_token_service(
    credentials: Credentials,
    *,
    issuer: str,
    service: str,
    lifetime_s: int = DEFAULT_LIFETIME_S,
    version_now: Callable[[], Awaitable[int]] | None = None,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> TokenService:
    """Tokens signed with the database's key; the first process to start makes it.

    `version_now` counts changes of rights, see `registry.metadata.base.HotReads`: with it a key
    that another process made is known at once.
    """
    keys = await credentials.signing_keys()
    if not keys:
        keys = await credentials.offer_signing_key(new_signing_key(int(clock())))
    tokens = Tokens(keys, issuer=issuer, service=service, lifetime_s=lifetime_s, clock=clock)
    return TokenService(
        tokens,
        keys,
        credentials,
        keep_s=max(lifetime_s, MIN_LIFETIME_S) + _KEEP_S,
        version_now=version_now,
        monotonic=monotonic,
    )
