"""Signing keys live in the database: every replica accepts what another issued."""

from __future__ import annotations

import asyncio

import jwt
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
    assert (await there.verify(old)).subject == "omri"
    await there.rotate(drop=True)
    for token in (old, new):
        with pytest.raises(UnknownKey):
            await there.verify(token)


async def test_a_rotation_elsewhere_is_known_at_once_where_changes_are_counted(metadata):
    monotonic = Monotonic()
    here = await open_token_service(
        metadata.credentials,
        issuer="issuer",
        service="service",
        version_now=metadata.hot.policy_version,
        monotonic=monotonic,
    )
    there = await opened(metadata, monotonic)
    for _ in range(2):
        await there.rotate()
        assert (await here.verify(there.issue("omri", ()).text)).subject == "omri"


async def test_others_can_verify_with_the_published_keys(metadata):
    service = await opened(metadata, Monotonic())
    await service.rotate()
    text = service.issue("omri", parse_scopes("repository:a/b:pull")).text
    published = jwt.PyJWKSet.from_dict(service.jwks())
    key = published[jwt.get_unverified_header(text)["kid"]]
    claims = jwt.decode(text, key, algorithms=["ES256"], audience="service", issuer="issuer")
    assert claims["sub"] == "omri"
    assert len(published.keys) == 2


async def test_attack_private_keys_in_the_published_ones(metadata):
    service = await opened(metadata, Monotonic())
    for key in service.jwks()["keys"]:
        assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


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
    text, session = await refresh.issue("omri", "docker", "Docker-Client/20.10 \x1b[31m\u2028")
    for _ in range(2):
        token = await refresh.redeem(text)
        assert token is not None
        assert (token.account, token.client_id) == ("omri", "docker")
        assert token.user_agent == "Docker-Client/20.10 [31m"
        assert token.id == session.id
    assert token.last_used_at is not None
    assert text != (await refresh.issue("omri", "docker"))[0]
    assert await refresh.revoke(text)
    assert not await refresh.revoke(text)
    assert await refresh.redeem(text) is None


@pytest.mark.parametrize(
    "text", ["", "x", "pyreg_refresh_", "pyreg_refresh_" + "A" * 43, "x" * 10**6, "\udc80\x00"]
)
async def test_what_is_no_refresh_token(metadata, text):
    assert await RefreshTokens(metadata.credentials).redeem(text) is None


async def test_a_stolen_database_holds_no_refresh_token(metadata, tmp_path):
    await metadata.accounts.add("omri", "hash", "writer")
    text, session = await RefreshTokens(metadata.credentials).issue("omri", "docker")
    assert session.id not in text
    secret = text.removeprefix("pyreg_refresh_").encode()
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes()


async def test_no_refresh_token_for_nobody(metadata):
    with pytest.raises(AccountUnknown):
        await RefreshTokens(metadata.credentials).issue("nobody", "docker")
