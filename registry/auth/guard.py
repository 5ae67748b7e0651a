"""Who asks, and what they may do: the one way from a request to a repository.

A handler gets an `Access` from here and every query takes one, so there is no way to ask for a
repository by bare name. Three kinds of callers:

    with a token      may do what the token grants, as long as the account may do it
    with a password   (Basic, sent straight to us) may do what the account may do
    with nothing      may do what everybody may do

Unknown and forbidden repositories get the same answer: nobody learns by trying which exist.

What was found out about a token or a password is remembered for a few seconds, as long as the
account stays what it was: that is asked for every request, so a removed, disabled or demoted
account loses its rights with the next one. Authorisation happens when a request starts and never
again: a token may expire while a layer is being uploaded.
"""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from ocispec.distribution.challenge import Challenge
from ocispec.distribution.name import RepositoryName
from ocispec.distribution.scope import ANY, DELETE, PULL, PUSH, REPOSITORY, Scope, format_scopes
from registry.auth.access_tokens import is_access_token
from registry.auth.limits import RequestLimits
from registry.auth.live import LivePolicy
from registry.auth.login import Logins, access_token_of, credential_of, session_of, trust_rule_of
from registry.auth.policy import (
    ANONYMOUS,
    API,
    CATALOG,
    REGISTRY,
    Policy,
    Rights,
    Subject,
    opens_api,
    subject_of,
)
from registry.auth.tokens import TokenExpired, TokenService, VerifiedToken
from registry.errors import Denied, Unauthenticated
from registry.metadata.base import Access, Account

# How long verified credentials are believed. A password costs milliseconds, a token microseconds.
REMEMBER_S = 5.0
_REMEMBERED = 4096
# A token with a hundred scopes is verified each time, rather than kept in memory.
_REMEMBERED_SIZE = 4096

# What docker asks a token for before it searches.
SEARCH = "search"

# Longer than any token of ours: nothing is decoded or hashed before this is checked.
MAX_AUTHORIZATION = 72 * 1024

# How long after its end a token still finishes the uploads that its holder began: pushes of large
# layers take longer than tokens live, and many clients cannot get a new one in between.
UPLOAD_GRACE_S = 24 * 3600

# The scopes to name in a challenge; made only when there is one, most requests are allowed.
Wanted = Callable[[], Iterable[Scope]]

_EVERYTHING = frozenset({PULL, PUSH, DELETE})


class LoginRequired(Unauthenticated):
    """Nobody is logged in, or with too little; `challenge` says how to."""

    def __init__(self, message: str, challenge: Challenge) -> None:
        super().__init__(message)
        self.challenge = challenge


class Request(Protocol):
    """The part of a request that is about its sender."""

    def header(self, name: bytes) -> bytes | None: ...

    def base_url(self) -> str: ...

    def client_address(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody who asks, as found out from the Authorization header.

    token: what they hold; None if they came with a password or with nothing.
    is_expired: whether the token's time is over, so that it only serves uploads under way.
    account: the subject's account as it was then; None for somebody without credentials.
    """

    subject: Subject
    token: VerifiedToken | None = None
    is_expired: bool = False
    account: Account | None = None


_NOBODY = Caller(ANONYMOUS)


class Guard:
    """Decides about requests. For one event loop."""

    def __init__(
        self,
        *,
        account_now: Callable[[str], Awaitable[Account | None]],
        session_holder: Callable[[str], Awaitable[Account | None]],
        logins: Logins,
        limits: RequestLimits,
        tokens: TokenService,
        policy: LivePolicy,
        enabled: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._account_now = account_now
        self._session_holder = session_holder
        self._logins = logins
        self._limits = limits
        self._tokens = tokens
        self._live = policy
        self._enabled = enabled
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._generation = tokens.generation
        # Passwords are remembered by a keyed hash, so that none can be read out of our memory.
        self._key = secrets.token_bytes(32)

    @property
    def _policy(self) -> Policy:
        # Current since the caller was identified, which every request begins with.
        return self._live.current

    async def authorise(
        self,
        request: Request,
        name: RepositoryName,
        actions: tuple[str, ...],
        also: Iterable[Scope] = (),
        *,
        owns: Callable[[Access], Awaitable[bool]] | None = None,
    ) -> Access:
        """The repository for a caller who may do all of `actions` to it.

        `also` is asked for in a challenge, so that one token will do for the whole request. `owns`
        says whether the caller began the upload that the request is about: then a token that has
        expired meanwhile still counts.

        Raises: LoginRequired; Denied to somebody who came with a password, for whom logging in
        once more would change nothing.
        """
        if not self._enabled:
            return Access(name, "", _EVERYTHING)

        def wanted() -> Iterable[Scope]:
            return (Scope(REPOSITORY, name.text, frozenset(actions)), *also)

        caller = await self._identify(request, wanted, takes_expired=True)
        rights = self._rights(caller, name.text)
        for action in actions:
            if action not in rights.actions:
                raise self._refusal(request, caller, wanted, action, name.text)
        access = Access(name, caller.subject.name, rights.actions, rights.tags)
        if not caller.is_expired or (
            owns is not None and caller.subject != ANONYMOUS and await owns(access)
        ):
            self._limits.spend(caller.subject.name, request.client_address())
            return access
        raise self._expired(request, wanted)

    def authorise_at_once(
        self,
        authorization: bytes | None,
        name: RepositoryName,
        action: str,
        account_now: Callable[[str], Account | None],
        version_now: Callable[[], int],
    ) -> Access | None:
        """The verdict of `authorise` where nothing must be waited for and nothing is refused: the
        credentials are remembered, and the account is still the same. None says nothing at all.
        """
        if not self._enabled:
            return Access(name, "", _EVERYTHING)
        if self._limits.are_on:
            return None  # each request is counted once, by whoever answers it
        version: int | None = None
        if self._tokens.generation != self._generation:
            return None  # with other keys, whoever came with a token is looked at again
        if authorization is None:
            caller = _NOBODY
        else:
            bearer = authorization[:7] == b"Bearer "
            key = authorization if bearer else self._hide(authorization)
            remembered = self._remembered.get(key)
            if remembered is None or self._clock() >= remembered[0]:
                return None
            caller = remembered[1]
            account = caller.account
            if account is not None:
                found = account_now(caller.subject.name)
                if found is None or not _is_same(account, found):
                    return None
                version = found.version
            if caller.is_expired:
                return None
        if version is None:
            version = version_now()
        if version != self._live.current.version:
            return None  # somebody changed rights: whoever may wait looks what they are now
        rights = self._rights(caller, name.text)
        if action not in rights.actions:
            return None
        return Access(name, caller.subject.name, rights.actions, rights.tags)

    async def require_login(self, request: Request) -> None:
        """Let pass who comes with credentials, whatever they may do. Raises: LoginRequired."""
        if self._enabled and request.header(b"authorization") is None:
            raise LoginRequired("authentication required", self._challenge(request))
        await self._identify(request)

    async def authorise_catalog(self, request: Request, action: str = ANY) -> Callable[[str], bool]:
        """Which repositories the caller may see in the catalog. Raises: LoginRequired; Denied.

        A token must allow `action` on the catalog, or everything.
        """

        def wanted() -> Iterable[Scope]:
            return (Scope(REGISTRY, CATALOG, frozenset({ANY})),)

        caller = await self._identify(request, wanted)
        if self._enabled:
            held = caller.token is None or not caller.token.actions(REGISTRY, CATALOG).isdisjoint(
                {action, ANY}
            )
            if not (held and self._policy.may_list(caller.subject)):
                raise self._refusal(request, caller, wanted, PULL, "the catalog")
        self._limits.spend(caller.subject.name, request.client_address())
        return self._readable(caller)

    async def authorise_search(self, request: Request) -> Callable[[str], bool]:
        """Which repositories a search may find; clients without a login find what all may pull.

        Raises: LoginRequired if that is nothing; Denied.
        """
        if request.header(b"authorization") is None and (await self._live.now()).may_find():
            return self._readable(Caller(ANONYMOUS))
        return await self.authorise_catalog(request, SEARCH)

    async def authorise_api(self, request: Request, *, needs_login: bool) -> Caller:
        """Who calls the administration API: somebody with a password, or with a token that says
        so. One for repositories alone does not open it.

        Raises: LoginRequired.
        """

        def wanted() -> Iterable[Scope]:
            return (Scope(REGISTRY, API, frozenset({ANY})),)

        caller = await self._identify(request, wanted)
        if self._enabled and caller.subject == ANONYMOUS and needs_login:
            raise LoginRequired("authentication required", self._challenge(request, wanted))
        has_token = caller.token is not None and ANY not in caller.token.actions(REGISTRY, API)
        if has_token or (caller.subject != ANONYMOUS and not opens_api(caller.subject)):
            challenge = self._challenge(request, wanted, error="insufficient_scope")
            raise LoginRequired("the token is not for the administration API", challenge)
        self._limits.spend(caller.subject.name, request.client_address())
        return caller

    def administers(self, caller: Caller) -> bool:
        """Whether the caller may do everything in the administration API."""
        return not self._enabled or caller.subject.is_admin

    def may(self, caller: Caller, action: str, name: str) -> bool:
        """Whether the policy lets the account do this to a repository."""
        if not self._enabled or action in self._policy.actions(caller.subject, name):
            return True
        return self._policy.decide(caller.subject, action, name).allowed

    async def look(self) -> None:
        """Let the policy be the one of now, for callers that no request identifies."""
        await self._live.now()

    def access_of(self, caller: Caller, name: RepositoryName) -> Access:
        """The repository for a caller of the administration API, with what the policy says:
        immutable tags are so for administrators as well."""
        if not self._enabled:
            return Access(name, caller.subject.name, _EVERYTHING)
        rights = self._policy.rights(caller.subject, name.text)
        return Access(name, caller.subject.name, rights.actions, rights.tags)

    def denied(self, request: Request, caller: Caller, action: str, name: str) -> Exception:
        """What to raise for a call that the policy does not allow: nobody logged in is asked to."""

        def wanted() -> Iterable[Scope]:
            return (Scope(REGISTRY, API, frozenset({ANY})),)

        if caller.subject == ANONYMOUS:
            return LoginRequired("authentication required", self._challenge(request, wanted))
        return Denied(action, name)

    async def readable_by(self, request: Request) -> Callable[[str], bool]:
        """Which repositories the caller may mount from: by account, not by token. Clients ask for
        a token before they know from where they will mount."""
        return self._readable(await self._identify(request))

    async def source_of_mount(self, request: Request, name: RepositoryName) -> Access | None:
        """The repository to mount from, by account as well; None if it may not be read."""
        if not self._enabled:
            return Access(name, "", _EVERYTHING)
        caller = await self._identify(request)
        granted = self._policy.actions(caller.subject, name.text)
        return Access(name, caller.subject.name, granted) if PULL in granted else None

    def _readable(self, caller: Caller) -> Callable[[str], bool]:
        if not self._enabled:
            return lambda name: True
        return self._policy.readable(caller.subject)

    def _rights(self, caller: Caller, name: str) -> Rights:
        """What the caller may do. Whatever everybody may do needs no grant."""
        rights = self._policy.rights(caller.subject, name)
        if caller.token is None:
            return rights
        granted = caller.token.actions(REPOSITORY, name) | self._policy.actions(ANONYMOUS, name)
        return Rights(rights.actions & granted, rights.tags)

    async def _identify(
        self, request: Request, wanted: Wanted = tuple, *, takes_expired: bool = False
    ) -> Caller:
        """Raises: LoginRequired for credentials that are not valid."""
        header = request.header(b"authorization")
        if not self._enabled:
            return _NOBODY
        if header is None:
            await self._live.now()
            return _NOBODY
        now = self._clock()
        key = header if header[:7] == b"Bearer " else self._hide(header)
        self._forget_old_keys()
        remembered = self._remembered.get(key)
        if (
            remembered is not None
            and now < remembered[0]
            and await self._is_current(remembered[1])
            and (not self._forget_old_keys() or remembered[1].token is None)
        ):
            caller = remembered[1]
            if caller.is_expired and not takes_expired:
                raise self._expired(request, wanted)
            return caller
        try:
            until, caller = await self._look_up(request, header, now)
        except Unauthenticated as error:
            self._remembered.pop(key, None)
            challenge = self._challenge(request, wanted, error="invalid_token")
            raise LoginRequired(str(error), challenge) from error
        if len(key) <= _REMEMBERED_SIZE:
            self._remembered[key] = until, caller
            self._remembered.move_to_end(key)
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        if caller.is_expired and not takes_expired:
            raise self._expired(request, wanted)
        return caller

    def _forget_old_keys(self) -> bool:
        """Forget whoever came with a token, if our keys are others now; whether that was so."""
        if self._tokens.generation == self._generation:
            return False
        self._generation = self._tokens.generation
        for key in [key for key, (_, caller) in self._remembered.items() if caller.token]:
            del self._remembered[key]
        return True

    async def _look_up(self, request: Request, header: bytes, now: float) -> tuple[float, Caller]:
        if len(header) > MAX_AUTHORIZATION:
            raise Unauthenticated("the credentials are too long")
        scheme, _, credentials = header.decode("latin-1").partition(" ")
        credentials = credentials.strip()
        if scheme.lower() == "bearer" and is_access_token(credentials):
            holder = await self._logins.by_token(credentials, request.client_address())
            if holder is None:
                raise Unauthenticated("the access token is not valid any more")
            return await self._known(holder, now)
        if scheme.lower() == "bearer":
            while True:
                generation = self._tokens.generation
                try:
                    token, is_expired = await self._tokens.verify(credentials), False
                    until = min(now + REMEMBER_S, now + token.expires_at - time.time())
                except TokenExpired as expired:
                    token, is_expired, until = expired.token, True, now + REMEMBER_S
                    if time.time() > token.expires_at + UPLOAD_GRACE_S:
                        raise
                caller = await self._bearer(token, is_expired)
                # The account is newer than the keys: they may have been changed with it.
                if generation == self._tokens.generation:
                    return _not_beyond(until, now, caller.account), caller
        if scheme.lower() == "basic":
            name, password = parse_basic(credentials)
            account = await self._logins.log_in(name, password, request.client_address())
            if account is None:
                raise Unauthenticated("the user name or password is wrong")
            return await self._known(account, now)
        raise Unauthenticated("log in with a token or a password")

    async def _bearer(self, token: VerifiedToken, is_expired: bool) -> Caller:
        """Who holds the token, with the account behind it as it is now."""
        if not token.subject:
            await self._live.now()
            return Caller(ANONYMOUS, token, is_expired)
        id, session = access_token_of(token.credential), session_of(token.credential)
        rule = trust_rule_of(token.credential)
        if id is not None:
            account = await self._logins.holder(id)
        elif rule is not None:
            account = await self._logins.trusting(rule)
        elif session:
            account = await self._session_holder(session)
        else:
            account = await self._account_now(token.subject)
        if account is None or account.disabled:
            raise Unauthenticated("the account does not exist any more")
        if credential_of(account) != token.credential:
            raise Unauthenticated("the token was given for another password")
        await self._live.at(account.version)
        return Caller(subject_of(account), token, is_expired, account)

    async def _known(self, account: Account, now: float) -> tuple[float, Caller]:
        await self._live.at(account.version)
        until = _not_beyond(now + REMEMBER_S, now, account)
        return until, Caller(subject_of(account), account=account)

    async def _is_current(self, caller: Caller) -> bool:
        """Whether the account is still the same: not gone, no other role, no other password."""
        if caller.account is None:
            await self._live.now()
            return True
        found = await self._account_now(caller.subject.name)
        if found is None or not _is_same(caller.account, found):
            return False
        await self._live.at(found.version)
        return True

    def _hide(self, header: bytes) -> bytes:
        return hmac.digest(self._key, header[: MAX_AUTHORIZATION + 1], "sha256")

    def _refusal(
        self, request: Request, caller: Caller, wanted: Wanted, action: str, name: str
    ) -> Exception:
        if caller.subject != ANONYMOUS and caller.token is None:
            return Denied(action, name)
        if caller.token is None:
            return LoginRequired("authentication required", self._challenge(request, wanted))
        return LoginRequired(
            f"the token does not allow {action} on {name}",
            self._challenge(request, wanted, error="insufficient_scope"),
        )

    def _expired(self, request: Request, wanted: Wanted) -> LoginRequired:
        challenge = self._challenge(request, wanted, error="invalid_token")
        return LoginRequired("the token has expired", challenge)

    def _challenge(self, request: Request, wanted: Wanted = tuple, *, error: str = "") -> Challenge:
        parameters = {"realm": f"{request.base_url()}/token", "service": self._tokens.service}
        scope = format_scopes(wanted())
        if scope:
            parameters["scope"] = scope
        if error:
            parameters["error"] = error
        return Challenge("Bearer", parameters)


def _is_same(remembered: Account, found: Account) -> bool:
    """Whether somebody is who they were. An access token or a session may end without any change
    of its account, so it is looked at again after every change of rights."""
    lasting = remembered.token is None and not remembered.session and not remembered.trusted
    return remembered == found and (lasting or remembered.version == found.version)


def _not_beyond(until: float, now: float, account: Account | None) -> float:
    """Nothing is remembered for longer than the access token is good for."""
    if account is not None and account.trusted is not None and account.trusted.until:
        return min(until, now + account.trusted.until - time.time())
    if account is None or account.token is None or account.token.expires_at is None:
        return until
    return min(until, now + account.token.expires_at - time.time())


def parse_basic(credentials: str) -> tuple[str, str]:
    """Name and password of Basic credentials. Raises: Unauthenticated."""
    try:
        text = base64.b64decode(credentials, validate=True).decode("utf-8")
    except ValueError as error:  # not base64, not ASCII, or not UTF-8 inside
        raise Unauthenticated("the credentials are malformed") from error
    name, colon, password = text.partition(":")
    if not colon or len(name) > 255 or "\0" in text:
        raise Unauthenticated("the credentials are malformed")
    return name, password
