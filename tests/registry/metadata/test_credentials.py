"""Signing keys: one is made, all processes use it, the one before still verifies."""

from __future__ import annotations

import asyncio

from registry.metadata.base import SigningKey


def key(kid: str) -> SigningKey:
    return SigningKey(kid, f"PEM of {kid}", 1, current=True)


async def test_the_first_offer_wins(registry):
    credentials = registry.metadata.credentials
    assert await credentials.signing_keys() == ()
    offers = await asyncio.gather(*(credentials.offer_signing_key(key(f"k{n}")) for n in range(9)))
    assert set(offers) == {await credentials.signing_keys()}
    assert len(offers[0]) == 1


async def test_rotation_keeps_exactly_one_previous_key(registry):
    credentials = registry.metadata.credentials
    await credentials.offer_signing_key(key("a"))
    await credentials.rotate_signing_key(key("b"))
    keys = await credentials.rotate_signing_key(key("c"))
    assert [(each.kid, each.current) for each in keys] == [("c", True), ("b", False)]
    assert await credentials.signing_keys() == keys
