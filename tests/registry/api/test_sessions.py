"""Sessions and signing keys at the door: what ends, ends at once, also on another replica."""

from __future__ import annotations

from typing import Any

import httpx
import jwt
import pytest

from registry.api.services import Services
from registry.app import create_app
from tests.registry.api.conftest import Registry, _lifespan, password_of, push_image

URL = "/v2/team/app/manifests/v1"
SCOPE = "repository:team/app:pull registry:api:*"


async def log_in(registry: Registry, name: str, agent: str = "docker/20.10") -> dict[str, Any]:
    answer = await registry.anonymous.get(
        "/token",
        params={"scope": SCOPE, "offline_token": "true", "client_id": "docker"},
        auth=(name, password_of(name)),
        headers={"user-agent": agent},
    )
    document: dict[str, Any] = answer.json()
    return document


async def refresh(registry: Registry, token: str) -> httpx.Response:
    form = {"grant_type": "refresh_token", "refresh_token": token, "scope": SCOPE}
    return await registry.anonymous.post("/token", data=form)


def bearer(registry: Registry, token: str) -> httpx.AsyncClient:
    return registry.client(headers={"authorization": f"Bearer {token}"})


async def pushed(registry: Registry) -> None:
    async with await registry.login("alice", "team/app") as alice:
        await push_image(alice, "team/app", "v1")


async def test_attack_a_stolen_laptop_used_after_its_session_was_taken_back(
    registry: Registry,
) -> None:
    """The refresh token, and every access token that came of it, here and on another replica."""
    await pushed(registry)
    lost, kept = await log_in(registry, "bob", "laptop"), await log_in(registry, "bob", "desk")
    again = (await refresh(registry, lost["refresh_token"])).json()
    other_app = create_app(registry.settings)
    async with _lifespan(other_app), registry.basic("bob") as bob:
        other = Registry(other_app, registry.settings)
        ending = [
            bearer(replica, document["token"])
            for replica in (registry, other)
            for document in (lost, again)
        ]
        staying = bearer(other, kept["token"])
        for client in (*ending, staying):
            assert (await client.get(URL)).status_code == 200
        listed = (await bob.get("/api/v1/accounts/bob/sessions")).json()["items"]
        assert {each["user_agent"] for each in listed} == {"laptop", "desk"}
        assert all(each["client_id"] == "docker" and not each["current"] for each in listed)
        (id,) = [each["id"] for each in listed if each["user_agent"] == "laptop"]
        assert (await bob.delete(f"/api/v1/accounts/bob/sessions/{id}")).status_code == 204
        for client in ending:
            assert (await client.get(URL)).status_code == 401
            assert (await client.get("/api/v1/me")).status_code == 401
        assert (await refresh(registry, lost["refresh_token"])).status_code == 401
        assert (await refresh(other, lost["refresh_token"])).status_code == 401
        assert (await staying.get(URL)).status_code == 200
        (mine,) = (await staying.get("/api/v1/accounts/bob/sessions")).json()["items"]
        assert mine["current"]
        assert (await bob.delete("/api/v1/accounts/bob/sessions")).status_code == 204
        assert (await staying.get(URL)).status_code == 401
        for client in (*ending, staying, other.anonymous):
            await client.aclose()


async def test_logging_out_ends_the_session(registry: Registry) -> None:
    await pushed(registry)
    document = await log_in(registry, "bob")
    async with bearer(registry, document["token"]) as client:
        assert (await client.get(URL)).status_code == 200
        form = {"token": document["refresh_token"], "client_id": "docker"}
        for _ in range(2):
            answer = await registry.anonymous.post("/token/revoke", data=form)
            assert answer.status_code == 200
            assert answer.headers["cache-control"] == "no-store"
        assert (await client.get(URL)).status_code == 401
    assert (await refresh(registry, document["refresh_token"])).status_code == 401


@pytest.mark.parametrize("form", [{}, {"token": ""}])
async def test_a_revocation_of_nothing(registry: Registry, form: dict[str, str]) -> None:
    assert (await registry.anonymous.post("/token/revoke", data=form)).status_code == 400
    guess = {"token": "pyreg_refresh_" + "A" * 43}
    assert (await registry.anonymous.post("/token/revoke", data=guess)).status_code == 200


async def test_attack_reading_or_ending_sessions_of_another_account(registry: Registry) -> None:
    await log_in(registry, "bob")
    async with registry.basic("bob") as bob, registry.basic("rita") as rita:
        ((session),) = (await bob.get("/api/v1/accounts/bob/sessions")).json()["items"]
        path = f"/api/v1/accounts/bob/sessions/{session['id']}"
        assert (await rita.get("/api/v1/accounts/bob/sessions")).status_code in (403, 404)
        assert (await rita.delete(path)).status_code in (403, 404)
        own = path.replace("/bob/", "/rita/")
        assert (await rita.delete(own)).status_code == 404
        assert (await bob.delete(path)).status_code == 204


# ---- keys ---------------------------------------------------------------------------------------


async def test_keys_rotate_without_a_token_ending(registry: Registry, services: Services) -> None:
    await pushed(registry)
    await services.metadata.accounts.set_role("bob", "admin")
    before = (await log_in(registry, "bob"))["token"]
    other_app = create_app(registry.settings)
    async with _lifespan(other_app), registry.basic("bob") as bob:
        other = Registry(other_app, registry.settings)
        assert (await other.anonymous.get("/token/jwks")).status_code == 200
        kid = (await bob.post("/api/v1/keys/rotate", json={})).json()["kid"]
        after = (await log_in(registry, "bob"))["token"]
        elsewhere = (await log_in(other, "bob"))["token"]
        for token in (before, after, elsewhere):
            for replica in (registry, other):
                async with bearer(replica, token) as client:
                    assert (await client.get(URL)).status_code == 200
        assert jwt.get_unverified_header(after)["kid"] == kid
        assert jwt.get_unverified_header(elsewhere)["kid"] == kid
        listed = (await bob.get("/api/v1/keys")).json()["items"]
        assert {each["kid"]: each["state"] for each in listed} == {
            kid: "current",
            jwt.get_unverified_header(before)["kid"]: "previous",
        }
        assert "PRIVATE" not in str(listed)
        for replica in (registry, other):
            keys = (await replica.anonymous.get("/token/jwks")).json()["keys"]
            assert keys[0]["kid"] == kid
            assert len(keys) == 2
        await other.anonymous.aclose()


async def test_attack_tokens_of_a_stolen_key_after_it_was_dropped(
    registry: Registry, services: Services
) -> None:
    """They end with the next request, on replicas that remember them as well."""
    await pushed(registry)
    await services.metadata.accounts.set_role("alice", "admin")
    document = await log_in(registry, "bob")
    forged = services.tokens.issue("", (), credential="").text
    other_app = create_app(registry.settings)
    async with _lifespan(other_app), registry.basic("alice") as alice:
        other = Registry(other_app, registry.settings)
        clients = [bearer(replica, document["token"]) for replica in (registry, other)]
        for client in clients:
            assert (await client.get(URL)).status_code == 200
        assert (await bearer(other, forged).get("/v2/")).status_code == 200
        answer = await alice.post("/api/v1/keys/rotate", json={"drop": True})
        assert answer.status_code == 200
        for client in clients:
            assert (await client.get(URL)).status_code == 401
        assert (await bearer(other, forged).get("/v2/")).status_code == 401
        # The login itself was not signed with that key.
        token = (await refresh(other, document["refresh_token"])).json()["token"]
        async with bearer(registry, token) as client:
            assert (await client.get(URL)).status_code == 200
        for client in (*clients, other.anonymous):
            await client.aclose()


async def test_only_administrators_see_and_rotate_keys(registry: Registry) -> None:
    for client in (registry.anonymous, registry.basic("bob")):
        assert (await client.get("/api/v1/keys")).status_code in (401, 403)
        assert (await client.post("/api/v1/keys/rotate", json={})).status_code in (401, 403)
        await client.aclose()
