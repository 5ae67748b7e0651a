"""Logging in with a password, and the account that a new registry begins with."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time

from registry.auth.access_tokens import hash_of, is_access_token
from registry.auth.limits import LoginLimits
from registry.auth.passwords import Passwords, random_password
from registry.auth.trust import TrustedIssuers, is_external
from registry.errors import TooManyRequests, Unavailable
from registry.metadata.base import AccessTokens, Account, Accounts

FIRST_ADMIN = "admin"

# Passwords looked at together (each takes a thread and 19 MiB), and callers that may wait for it.
_AT_ONCE = 2
_MAY_WAIT = 256

# The last use of an access token is kept to this, so that using one costs no write.
_USED_S = 600


class Logins:
    """The one way to try a password over the network: bounded, and slow for whoever guesses."""

    def __init__(
        self,
        accounts: Accounts,
        passwords: Passwords,
        limits: LoginLimits,
        access_tokens: AccessTokens,
        trust: TrustedIssuers,
    ) -> None:
        self._trust = trust
        self._accounts = accounts
        self._access_tokens = access_tokens
        self._passwords = passwords
        self._limits = limits
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def log_in(self, name: str, password: str, address: str) -> Account | None:
        """As `log_in`, for somebody at `address`; the password may be an access token of the
        account, which the result then carries. Raises: TooManyRequests."""
        if is_access_token(password):
            return await self._try_token(name, password, address)
        if is_external(password):
            return await self.by_external(name, password, address)
        self._limits.check(name, address)
        if self._waiting >= _MAY_WAIT:
            raise TooManyRequests("too many logins at once", after_s=1)
        self._waiting += 1
        try:
            async with self._turn:
                # Again: those who came together are judged by what the first of them did.
                self._limits.check(name, address)
                account = await log_in(self._accounts, self._passwords, name, password)
                if account is None:
                    self._limits.failed(name, address)
                else:
                    self._limits.succeeded(name, address)
                return account
        finally:
            self._waiting -= 1

    async def by_token(self, text: str, address: str) -> Account | None:
        """Whose access token this is, with the token. Raises: TooManyRequests."""
        return await self._try_token(None, text, address)

    async def by_external(self, name: str, text: str, address: str) -> Account | None:
        """The robot that trusts this token of another issuer, with the rule; `name` may be empty
        if only one does. Raises: TooManyRequests; Unavailable if the issuer does not answer."""
        self._limits.check(name, address)
        account = await self._trust.log_in(name, text)
        if account is None:
            self._limits.failed(name, address)
        return account

    async def trusting(self, rule: int) -> Account | None:
        """The robot of a trust rule, with the rule; None if either has ended."""
        return await self._trust.holder(rule)

    async def holder(self, id: int) -> Account | None:
        """Who has the access token of this id, with the token; None if it has ended."""
        return await self._access_tokens.holder(id)

    async def _try_token(self, name: str | None, text: str, address: str) -> Account | None:
        self._limits.check(name or "", address)
        account = await self._access_tokens.find(hash_of(text))
        if account is None or account.token is None or name not in (None, account.name):
            self._limits.failed(name or "", address)
            return None
        last = account.token.last_used_at
        if last is None or time.time() - last > _USED_S:
            # A registry that cannot write any more still lets people in.
            with contextlib.suppress(Unavailable):
                await self._access_tokens.used(account.token.id)
        return account


async def log_in(
    accounts: Accounts, passwords: Passwords, name: str, password: str
) -> Account | None:
    """The account if it exists, is not disabled, and this is its password.

    Takes the same time in all cases. A hash made with older parameters is replaced on the way.
    """
    account = await accounts.find(name)
    usable = account is not None and not account.disabled
    stored = account.password_hash if account is not None and usable else None
    if not await passwords.verify(stored, password) or account is None:
        return None
    if passwords.is_outdated(account.password_hash):
        await accounts.rehash(name, account.password_hash, await passwords.hash(password))
        return await accounts.find(name)
    return account


def credential_of(account: Account) -> str:
    """Names the password that an account has now, without telling anything about it.

    Tokens carry it: with another password, or another account of the same name, they are over.
    """
    if account.token is not None:
        made = f"{account.name}:{account.created_at}:{account.token.created_at}"
        return f"pat-{account.token.id}-{hashlib.sha256(made.encode()).hexdigest()[:16]}"
    if account.trusted is not None:
        made = f"{account.name}:{account.created_at}:{account.trusted.created_at}"
        return f"trust-{account.trusted.rule}-{hashlib.sha256(made.encode()).hexdigest()[:16]}"
    text = f"{account.name}:{account.created_at}:{account.password_hash}"
    password = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"session-{account.session}-{password}" if account.session else password


def access_token_of(credential: str) -> int | None:
    """The id of the access token that a credential names, if it names one."""
    return _number_of("pat", credential)


def trust_rule_of(credential: str) -> int | None:
    """The id of the trust rule that a credential names, if it names one."""
    return _number_of("trust", credential)


def _number_of(wanted: str, credential: str) -> int | None:
    kind, _, rest = credential.partition("-")
    id = rest.partition("-")[0]
    if kind != wanted or not (id.isascii() and id.isdigit()) or len(id) > 18:
        return None
    return int(id)


def session_of(credential: str) -> str:
    """The id of the session that a credential names; empty if it names none."""
    kind, _, rest = credential.partition("-")
    id = rest.partition("-")[0]
    return id if kind == "session" and id.isascii() and id.isalnum() and len(id) <= 64 else ""


async def create_first_admin(accounts: Accounts, passwords: Passwords) -> str | None:
    """Make the account `admin` if there is none at all; its password, to be shown once.

    Safe to be called by several processes at once: one of them gets the password.
    """
    if await accounts.all():
        return None
    password = random_password()
    created = await accounts.add_first(FIRST_ADMIN, await passwords.hash(password))
    return password if created else None
