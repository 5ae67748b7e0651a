"""Users, robots and access tokens at the door, and that what ends, ends at once everywhere."""

from __future__ import annotations

import httpx

from registry.api.services import Services
from registry.app import create_app
from registry.auth import access_tokens
from registry.auth.rules import Limit
from tests.registry.api.conftest import Registry, _lifespan, push_image


async def _token(registry: Registry, name: str, secret: str, scope: str) -> httpx.AsyncClient:
    answer = await registry.anonymous.get(
        "/token",
        params={"service": "pyreg", "scope": scope, "offline_token": "true"},
        auth=(name, secret),
    )
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    return registry.client(headers={"authorization": f"Bearer {answer.json()['token']}"})


async def test_attack_an_access_token_used_after_its_end_on_another_replica(
    registry: Registry,
    services: Services,
) -> None:
    alice = await registry.login("alice", "team/app", "other/app")
    await push_image(alice, "team/app", "v1")
    await push_image(alice, "other/app", "v1")
    metadata = services.metadata
    await metadata.accounts.add("bot", "", "user", kind="robot")
    await metadata.policy.add_rule("**", "robot:bot", frozenset({"pull", "delete"}), "allow")
    secret, token = await access_tokens.create(
        metadata.access_tokens, "bot", limit=Limit(frozenset({"pull"}), ("team/**",))
    )
    other_app = create_app(registry.settings)
    async with _lifespan(other_app):
        other = Registry(other_app, registry.settings)
        clients = []
        for replica in (registry, other):
            scope = "repository:team/app:pull,delete repository:other/app:pull"
            clients += [
                replica.client(auth=("bot", secret)),
                replica.client(headers={"authorization": f"Bearer {secret}"}),
                await _token(replica, "bot", secret, scope),
            ]
        for client in clients:
            assert (await client.get("/v2/team/app/manifests/v1")).status_code == 200
            assert (await client.get("/v2/other/app/manifests/v1")).status_code in (401, 403)
            assert (await client.delete("/v2/team/app/manifests/v1")).status_code in (401, 403)
            assert (await client.get("/api/v1/users")).status_code in (401, 403)
        wrong = registry.client(auth=("alice", secret))
        assert (await wrong.get("/v2/")).status_code == 401
        await metadata.access_tokens.revoke("bot", token.id)
        for client in clients:
            assert (await client.get("/v2/team/app/manifests/v1")).status_code == 401
        for client in (wrong, *clients):
            await client.aclose()
        await other.anonymous.aclose()


async def test_a_changed_policy_or_group_holds_with_the_next_request(
    registry: Registry, services: Services
) -> None:
    alice = await registry.login("alice", "team/app")
    await push_image(alice, "team/app", "v1")
    metadata = services.metadata
    await metadata.accounts.set_role("bob", "user")
    bob = await registry.login("bob", "team/app")
    url = "/v2/team/app/manifests/v1"
    assert (await bob.get(url)).status_code == 401
    await metadata.groups.add("dev")
    await metadata.policy.add_rule("team/**", "group:dev", frozenset({"pull"}), "allow")
    await metadata.groups.join("dev", "bob")
    basic = registry.basic("bob")
    assert (await basic.get(url)).status_code == 200
    assert (await basic.get("/v2/_catalog")).json() == {"repositories": ["team/app"]}
    token = await registry.login("bob", "team/app")
    assert (await token.get(url)).status_code == 200
    await metadata.groups.leave("dev", "bob")
    assert (await token.get(url)).status_code == 401
    assert (await basic.get(url)).status_code == 403
    assert (await basic.get("/v2/_catalog")).json() == {"repositories": []}
    assert (await registry.anonymous.get(url)).status_code == 401
    rule = await metadata.policy.add_rule("team/*", "anonymous", frozenset({"pull"}), "allow")
    assert (await registry.anonymous.get(url)).status_code == 200
    await metadata.policy.remove_rule(rule.id)
    assert (await registry.anonymous.get(url)).status_code == 401
    for client in (bob, basic, token):
        await client.aclose()


async def test_attack_a_denied_repository_read_by_mounting_from_it(
    registry: Registry, services: Services
) -> None:
    alice = await registry.login("alice", "secret/app")
    await push_image(alice, "secret/app", "v1")
    manifest = (await alice.get("/v2/secret/app/manifests/v1")).json()
    metadata = services.metadata
    await metadata.policy.add_rule("secret/**", "user:bob", frozenset({"pull"}), "deny")
    bob = await registry.login("bob", "own/app")
    digest = manifest["layers"][0]["digest"]
    for query in (f"mount={digest}&from=secret/app", f"mount={digest}"):
        answer = await bob.post(f"/v2/own/app/blobs/uploads/?{query}")
        assert answer.status_code == 202
    await bob.aclose()
