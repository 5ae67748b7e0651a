"""Trust rules, and devices that wait for a login, on both databases."""

from __future__ import annotations

import pytest

from registry.errors import AccountUnknown, RuleUnknown
from registry.metadata.devices import APPROVED, DENIED, EXPIRED, PENDING, SLOW_DOWN
from tests.registry.metadata.conftest import Registry

ISSUER = "https://ci.example.com"


async def test_trust_rules(registry: Registry) -> None:
    metadata = registry.metadata
    await metadata.accounts.add("ci", "", "user", kind="robot")
    await metadata.accounts.add("ann", "x", "user")
    with pytest.raises(AccountUnknown):
        await metadata.trust.add("ann", ISSUER, "pyreg", {"sub": "a"})
    before = (await metadata.accounts.find("ci")).version
    rule = await metadata.trust.add("ci", ISSUER, "pyreg", {"sub": "a*"})
    assert await metadata.trust.of("ci") == await metadata.trust.of_issuer(ISSUER) == (rule,)
    holder = await metadata.trust.holder(rule.id)
    assert holder.name == "ci" and holder.trusted.rule == rule.id and holder.version > before
    await metadata.accounts.set_disabled("ci", True)
    assert await metadata.trust.of_issuer(ISSUER) == ()
    assert await metadata.trust.holder(rule.id) is None
    with pytest.raises(RuleUnknown):
        await metadata.trust.remove("ann", rule.id)
    await metadata.accounts.set_disabled("ci", False)
    await metadata.trust.remove("ci", rule.id)
    assert await metadata.trust.holder(rule.id) is None
    await metadata.trust.add("ci", ISSUER, "pyreg", {"sub": "a*"})
    await metadata.accounts.remove("ci")
    assert await metadata.trust.of_issuer(ISSUER) == ()


async def test_a_device_is_confirmed_once(registry: Registry) -> None:
    devices = registry.metadata.devices
    await registry.metadata.accounts.add("ann", "x", "user")
    await devices.begin("d", "u", client="pyreg", address="127.0.0.1", lifetime_s=600)
    assert await devices.poll("d") == (PENDING, None)
    assert await devices.poll("d") == (SLOW_DOWN, None)
    registry.clock.sleep(30)
    assert await devices.poll("d") == (PENDING, None)
    assert (await devices.waiting("u")).client == "pyreg"
    assert await devices.decide("u", "ann", True)
    assert not await devices.decide("u", "ann", False)
    assert await devices.waiting("u") is None
    state, account = await devices.poll("d")
    assert state == APPROVED and account.name == "ann"
    assert await devices.poll("d") == (EXPIRED, None)


async def test_devices_that_get_nothing(registry: Registry) -> None:
    devices, accounts = registry.metadata.devices, registry.metadata.accounts
    await accounts.add("ann", "x", "user")
    for name in ("refused", "disabled", "late"):
        await devices.begin(name, name, client="", address="", lifetime_s=600)
    assert await devices.decide("refused", "ann", False)
    assert await devices.poll("refused") == (DENIED, None)
    assert await devices.decide("disabled", "ann", True)
    await accounts.set_disabled("ann", True)
    assert await devices.poll("disabled") == (DENIED, None)
    registry.clock.sleep(600)
    assert await devices.poll("late") == (EXPIRED, None)
    assert not await devices.decide("late", "ann", True)
