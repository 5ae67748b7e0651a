"""Accounts have checked names, one role each, and end completely."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from registry.errors import AccountExists, AccountInvalid, AccountUnknown
from registry.metadata.accounts import check_name
from registry.metadata.base import RefreshToken


@pytest.mark.parametrize("name", ["a", "omri", "ci-bot.2", "dana@example.org", "x" * 64])
def test_possible_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "Omri", "a:b", "a b", "-a", "a.", "x" * 65, "a/b", "ö", "a\n", "\x00"]
)
async def test_impossible_names_are_refused(registry, name):
    with pytest.raises(AccountInvalid):
        await registry.metadata.accounts.add(name, "hash", "writer")
    assert await registry.metadata.accounts.all() == ()


async def test_add_find_and_list(registry):
    accounts = registry.metadata.accounts
    omri = await accounts.add("omri", "hash", "admin")
    await accounts.add("dana", "hash", "reader")
    assert await accounts.find("omri") == omri
    assert (omri.role, omri.disabled, omri.created_at) == ("admin", False, registry.clock.now)
    assert await accounts.find("nobody") is None
    assert await accounts.find("OMRI") is None
    assert [each.name for each in await accounts.all()] == ["dana", "omri"]
    with pytest.raises(AccountExists):
        await accounts.add("omri", "other", "reader")
    with pytest.raises(AccountInvalid):
        await accounts.add("third", "hash", "emperor")


async def test_only_one_of_many_makes_the_first_account(registry):
    accounts = registry.metadata.accounts
    made = await asyncio.gather(*(accounts.add_first("admin", f"hash{n}") for n in range(20)))
    assert sum(made) == 1
    found = await accounts.find("admin")
    assert found is not None
    assert found.password_hash == f"hash{made.index(True)}"


async def test_changes(registry):
    accounts = registry.metadata.accounts
    await accounts.add("omri", "hash", "writer")
    await accounts.set_password("omri", "new")
    await accounts.set_role("omri", "reader")
    await accounts.set_disabled("omri", True)
    found = await accounts.find("omri")
    assert found is not None
    assert (found.password_hash, found.role, found.disabled) == ("new", "reader", True)
    await accounts.remove("omri")
    assert await accounts.find("omri") is None


async def test_changes_of_nobody(registry):
    accounts = registry.metadata.accounts
    for attempt in (
        accounts.set_password("nobody", "hash"),
        accounts.set_role("nobody", "reader"),
        accounts.set_disabled("nobody", True),
        accounts.remove("nobody"),
    ):
        with pytest.raises(AccountUnknown):
            await attempt


async def test_rehash_does_not_undo_a_new_password(registry):
    accounts = registry.metadata.accounts
    await accounts.add("omri", "old", "writer")
    await accounts.rehash("omri", "old", "old, hashed anew")
    await accounts.set_password("omri", "new")
    await accounts.rehash("omri", "old, hashed anew", "late")
    found = await accounts.find("omri")
    assert found is not None and found.password_hash == "new"


@pytest.mark.parametrize("how", ["password", "disable", "remove", "expire", "revoke"])
async def test_what_ends_a_refresh_token(registry, how):
    accounts, credentials = registry.metadata.accounts, registry.metadata.credentials
    await accounts.add("omri", "hash", "writer")
    now = int(registry.clock())
    token = RefreshToken("omri", "docker", now, now + 1000)
    await credentials.add_refresh_token("h", token)
    assert await credentials.find_refresh_token("h") == replace(token, id="h")
    match how:
        case "password":
            await accounts.set_password("omri", "new")
        case "disable":
            await accounts.set_disabled("omri", True)
            await accounts.set_disabled("omri", False)
        case "remove":
            await accounts.remove("omri")
            await accounts.add("omri", "hash", "writer")
        case "expire":
            registry.clock.sleep(1000)
        case "revoke":
            assert await credentials.revoke_refresh_tokens("nobody") == 0
            assert await credentials.revoke_refresh_tokens("omri") == 1
    assert await credentials.find_refresh_token("h") is None


async def test_no_refresh_token_for_nobody(registry):
    with pytest.raises(AccountUnknown):
        await registry.metadata.credentials.add_refresh_token(
            "h", RefreshToken("nobody", "", 0, 10**10)
        )
