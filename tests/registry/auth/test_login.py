"""Logging in, and the account that a new registry begins with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from registry.auth.login import create_first_admin, log_in
from registry.auth.passwords import Passwords


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    passwords = Passwords(memory_kib=64, rounds=1)
    yield passwords
    passwords.close()


async def test_the_right_password_of_an_enabled_account(metadata, passwords):
    accounts = metadata.accounts
    await accounts.add("omri", await passwords.hash("correct horse"), "writer")
    account = await log_in(accounts, passwords, "omri", "correct horse")
    assert account is not None and account.role == "writer"
    assert await log_in(accounts, passwords, "omri", "wrong horse") is None
    assert await log_in(accounts, passwords, "nobody", "correct horse") is None
    assert await log_in(accounts, passwords, "", "") is None
    await accounts.set_disabled("omri", True)
    assert await log_in(accounts, passwords, "omri", "correct horse") is None


async def test_names_that_cannot_exist_do_not_upset_the_database(metadata, passwords):
    for name in ("'; DROP TABLE account; --", "\x00", "\udc80", "x" * 10**6, "OMRI"):
        assert await log_in(metadata.accounts, passwords, name, "correct horse") is None


async def test_an_outdated_hash_is_replaced_at_login(metadata, passwords):
    old = Passwords(memory_kib=32, rounds=1)
    await metadata.accounts.add("omri", await old.hash("correct horse"), "writer")
    assert await log_in(metadata.accounts, passwords, "omri", "correct horse")
    account = await metadata.accounts.find("omri")
    assert account is not None and not passwords.is_outdated(account.password_hash)
    assert await log_in(metadata.accounts, passwords, "omri", "correct horse")
    old.close()


async def test_cve_2026_4404_the_first_admin_has_a_random_password_told_once(metadata, passwords):
    told = await asyncio.gather(
        *(create_first_admin(metadata.accounts, passwords) for _ in range(4))
    )
    (password,) = [each for each in told if each]
    admin = await log_in(metadata.accounts, passwords, "admin", password)
    assert admin is not None and admin.role == "admin"
    assert await log_in(metadata.accounts, passwords, "admin", "admin") is None
    assert await create_first_admin(metadata.accounts, passwords) is None
