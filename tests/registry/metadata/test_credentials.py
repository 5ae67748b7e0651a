"""Signing keys: one is made, all processes use it, those before still verify. Sessions."""

from __future__ import annotations

import asyncio

import pytest

from registry.errors import SessionUnknown
from registry.metadata import credentials as credentials_module
from registry.metadata.base import RefreshToken, SigningKey
from tests.registry.metadata.conftest import DAY


def key(kid: str) -> SigningKey:
    return SigningKey(kid, f"PEM of {kid}", 1, current=True)


async def test_the_first_offer_wins(registry):
    credentials = registry.metadata.credentials
    assert await credentials.signing_keys() == ()
    offers = await asyncio.gather(*(credentials.offer_signing_key(key(f"k{n}")) for n in range(9)))
    assert set(offers) == {await credentials.signing_keys()}
    assert len(offers[0]) == 1


async def test_a_retired_key_is_kept_as_long_as_its_tokens(registry):
    credentials = registry.metadata.credentials
    await credentials.offer_signing_key(key("a"))
    await credentials.rotate_signing_key(key("b"), 100)
    registry.clock.sleep(99)
    keys = await credentials.rotate_signing_key(key("c"), 100)
    assert [(each.kid, each.current) for each in keys] == [("c", True), ("b", False), ("a", False)]
    registry.clock.sleep(1)
    keys = await credentials.rotate_signing_key(key("d"), 100)
    assert [each.kid for each in keys] == ["d", "c", "b"]
    assert await credentials.signing_keys() == keys
    assert [each.retired_at is None for each in keys] == [True, False, False]


async def test_keys_may_be_dropped_at_once(registry):
    credentials = registry.metadata.credentials
    await credentials.offer_signing_key(key("a"))
    await credentials.rotate_signing_key(key("b"), 100)
    keys = await credentials.rotate_signing_key(key("c"), 0)
    assert [(each.kid, each.current) for each in keys] == [("c", True)]


async def test_a_rotation_is_a_change_of_rights(registry):
    """That is how other processes learn of it."""
    before = (await registry.metadata.policy.load()).version
    await registry.metadata.credentials.rotate_signing_key(key("a"), 100)
    assert (await registry.metadata.policy.load()).version > before


# ---- sessions -----------------------------------------------------------------------------------


async def _logged_in(registry, *names: str) -> None:
    credentials, now = registry.metadata.credentials, int(registry.clock())
    await registry.metadata.accounts.add("omri", "hash", "writer")
    await registry.metadata.accounts.add("ann", "hash", "writer")
    for name in names:
        token = RefreshToken("omri", "docker", now, now + DAY, f"agent {name}")
        await credentials.add_refresh_token(name * 64, token)


async def test_sessions_are_listed_while_they_last(registry):
    await _logged_in(registry, "a", "b")
    credentials = registry.metadata.credentials
    found = await credentials.sessions("omri")
    assert [(each.id, each.user_agent) for each in found] == [
        ("a" * 20, "agent a"),
        ("b" * 20, "agent b"),
    ]
    assert await credentials.sessions("ann") == ()
    registry.clock.sleep(DAY)
    assert await credentials.sessions("omri") == ()
    assert await credentials.session_holder("a" * 20) is None


async def test_the_last_use_is_kept_to_ten_minutes(registry):
    await _logged_in(registry, "a")
    credentials = registry.metadata.credentials
    began = int(registry.clock())
    for wait, kept in ((1, 1), (599, 1), (1, 601), (1, 601)):
        registry.clock.sleep(wait)
        await credentials.used_refresh_token("a" * 64)
        (found,) = await credentials.sessions("omri")
        assert found.last_used_at == began + kept


async def test_a_session_names_its_holder_until_it_is_revoked(registry):
    await _logged_in(registry, "a", "b")
    credentials = registry.metadata.credentials
    holder = await credentials.session_holder("a" * 20)
    assert (holder.name, holder.session, holder.token) == ("omri", "a" * 20, None)
    await credentials.revoke_session("omri", "a" * 20)
    assert await credentials.session_holder("a" * 20) is None
    assert await credentials.session_holder("b" * 20) is not None
    assert await credentials.revoke_refresh_token("b" * 64)
    assert not await credentials.revoke_refresh_token("b" * 64)
    assert await credentials.sessions("omri") == ()


async def test_attack_ending_the_session_of_another_account(registry):
    await _logged_in(registry, "a")
    credentials = registry.metadata.credentials
    for account in ("ann", "nobody"):
        with pytest.raises(SessionUnknown):
            await credentials.revoke_session(account, "a" * 20)
    assert await credentials.revoke_refresh_tokens("ann") == 0
    assert len(await credentials.sessions("omri")) == 1


async def test_a_disabled_account_has_no_sessions(registry):
    await _logged_in(registry, "a")
    await registry.metadata.accounts.set_disabled("omri", True)
    assert await registry.metadata.credentials.session_holder("a" * 20) is None


async def test_attack_filling_the_database_with_logins(registry, monkeypatch):
    monkeypatch.setattr(credentials_module, "MAX_SESSIONS", 3)
    await _logged_in(registry, "a", "b", "c")
    credentials = registry.metadata.credentials
    registry.clock.sleep(10)
    await credentials.used_refresh_token("a" * 64)
    now = int(registry.clock())
    token = RefreshToken("omri", "docker", now, now + DAY)
    await credentials.add_refresh_token("d" * 64, token)
    left = {each.id[0] for each in await credentials.sessions("omri")}
    assert len(left) == 3
    assert {"a", "d"} < left
