"""Logging in with a password, and the account that a new registry begins with."""

from __future__ import annotations

from registry.auth.passwords import Passwords, random_password
from registry.metadata.base import Account, Accounts

FIRST_ADMIN = "admin"


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
    return account


async def create_first_admin(accounts: Accounts, passwords: Passwords) -> str | None:
    """Make the account `admin` if there is none at all; its password, to be shown once.

    Safe to be called by several processes at once: one of them gets the password.
    """
    if await accounts.all():
        return None
    password = random_password()
    created = await accounts.add_first(FIRST_ADMIN, await passwords.hash(password))
    return password if created else None
