"""Logging in with a password, and the account that a new registry begins with."""

from __future__ import annotations

import asyncio
import hashlib

from registry.auth.limits import LoginLimits
from registry.auth.passwords import Passwords, random_password
from registry.errors import TooManyRequests
from registry.metadata.base import Account, Accounts

FIRST_ADMIN = "admin"

# Passwords looked at together (each takes a thread and 19 MiB), and callers that may wait for it.
_AT_ONCE = 2
_MAY_WAIT = 256


class Logins:
    """The one way to try a password over the network: bounded, and slow for whoever guesses."""

    def __init__(self, accounts: Accounts, passwords: Passwords, limits: LoginLimits) -> None:
        self._accounts = accounts
        self._passwords = passwords
        self._limits = limits
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._waiting = 0

    async def log_in(self, name: str, password: str, address: str) -> Account | None:
        """As `log_in`, for somebody at `address`. Raises: TooManyRequests."""
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
    text = f"{account.name}:{account.created_at}:{account.password_hash}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def create_first_admin(accounts: Accounts, passwords: Passwords) -> str | None:
    """Make the account `admin` if there is none at all; its password, to be shown once.

    Safe to be called by several processes at once: one of them gets the password.
    """
    if await accounts.all():
        return None
    password = random_password()
    created = await accounts.add_first(FIRST_ADMIN, await passwords.hash(password))
    return password if created else None
