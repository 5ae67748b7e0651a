"""Signing keys live in the database: every replica accepts what another issued."""

from __future__ import annotations

import asyncio

import pytest

from ocispec.distribution.scope import parse_scopes
from registry.auth.refresh import RefreshTokens
from registry.auth.tokens import TokenService, UnknownKey, open_token_service
from registry.errors import AccountUnknown


class Monotonic:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def opened(metadata, monotonic) -> TokenService:
    return await open_token_service(
        metadata.credentials, issuer="issuer", service="service", monotonic=monotonic
    )


async def test_replicas_that_start_together_share_one_key(metadata):
    monotonic = Monotonic()
    services = await asyncio.gather(*(opened(metadata, monotonic) for _ in range(5)))
    assert len(await metadata.credentials.signing_keys()) == 1
    text = services[0].issue("omri", parse_scopes("repository:a/b:pull")).text
    for service in services:
        assert (await service.verify(text)).subject == "omri"


async def test_rotation_elsewhere_is_noticed_and_old_tokens_stay_valid(metadata):
    monotonic = Monotonic()
    here, there = await opened(metadata, monotonic), await opened(metadata, monotonic)
    old = here.issue("omri", ()).text
    await there.rotate()
    new = there.issue("omri", ()).text
    with pytest.raises(UnknownKey):
        await here.verify(new)  # the keys were loaded this very second
    monotonic.now += 5
    assert (await here.verify(new)).subject == "omri"
    assert (await here.verify(old)).subject == "omri"
    assert (await there.verify(old)).subject == "omri"
    await there.rotate()
    monotonic.now += 5
    with pytest.raises(UnknownKey):
        await there.verify(old)


async def test_unknown_keys_do_not_make_the_database_busy(metadata, monkeypatch):
    monotonic = Monotonic()
    service, stranger = await opened(metadata, monotonic), await opened(metadata, monotonic)
    await stranger.rotate()
    await stranger.rotate()
    await service.reload()
    strange = (await open_foreign(monotonic)).issue("omri", ()).text
    asked: list[int] = []
    monkeypatch.setattr(service, "_credentials", Counting(metadata.credentials, asked))
    monotonic.now += 5
    for _ in range(50):
        with pytest.raises(UnknownKey):
            await service.verify(strange)
    assert len(asked) == 1


async def open_foreign(monotonic):
    from registry.auth.tokens import Tokens, new_signing_key

    return Tokens([new_signing_key(1)], issuer="issuer", service="service")


class Counting:
    def __init__(self, credentials, asked):
        self._credentials = credentials
        self._asked = asked

    async def signing_keys(self):
        self._asked.append(1)
        return await self._credentials.signing_keys()


# ---- refresh tokens -----------------------------------------------------------------------------


async def test_a_refresh_token_is_redeemed_as_often_as_wanted(metadata):
    await metadata.accounts.add("omri", "hash", "writer")
    refresh = RefreshTokens(metadata.credentials)
    text = await refresh.issue("omri", "docker")
    for _ in range(2):
        token = await refresh.redeem(text)
        assert token is not None
        assert (token.account, token.client_id) == ("omri", "docker")
    assert text != await refresh.issue("omri", "docker")


@pytest.mark.parametrize(
    "text", ["", "x", "pyreg_refresh_", "pyreg_refresh_" + "A" * 43, "x" * 10**6, "\udc80\x00"]
)
async def test_what_is_no_refresh_token(metadata, text):
    assert await RefreshTokens(metadata.credentials).redeem(text) is None


async def test_a_stolen_database_holds_no_refresh_token(metadata, tmp_path):
    await metadata.accounts.add("omri", "hash", "writer")
    text = await RefreshTokens(metadata.credentials).issue("omri", "docker")
    secret = text.removeprefix("pyreg_refresh_").encode()
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes()


async def test_no_refresh_token_for_nobody(metadata):
    with pytest.raises(AccountUnknown):
        await RefreshTokens(metadata.credentials).issue("nobody", "docker")
