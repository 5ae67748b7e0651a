"""Tokens of other issuers: what a robot's trust rule lets in, and what it keeps out."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.api.services import Services
from registry.auth import issuers
from registry.auth.trust import matches
from tests.builders.oidc import AUDIENCE, Issuer
from tests.registry.api.conftest import Registry, started

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
CLAIMS = {"sub": "repo:team/app:ref:refs/heads/*"}
PULL = "repository:team/app:pull"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture
async def registry(tmp_path: Path, issuer: Issuer) -> AsyncIterator[Registry]:
    async with started(tmp_path, login_failures=0) as running:
        metadata = services_of(running).metadata
        await metadata.accounts.add("ci", "", "reader", kind="robot")
        await metadata.trust.add("ci", issuer.url, AUDIENCE, CLAIMS)
        yield running


def services_of(registry: Registry) -> Services:
    found: Services = registry.app.app.routes[0]._opened.get()
    return found


async def exchange(registry: Registry, token: str, **more: Any) -> httpx.Response:
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": JWT}
    return await registry.anonymous.post("/token", data={**form, "scope": PULL, **more})


async def tags(registry: Registry, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    answer = await registry.anonymous.get("/v2/team/app/tags/list", headers=headers)
    return answer.status_code


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_token_is_exchanged(registry: Registry, issuer: Issuer, algorithm: str) -> None:
    issuer.rotate(algorithm)
    answer = await exchange(registry, issuer.token())
    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "Bearer"
    assert answer.json()["scope"] == PULL
    assert "refresh_token" not in answer.json()
    assert await tags(registry, answer.json()["access_token"]) == 404  # allowed, nothing is there


async def test_a_token_is_the_password_of_its_robot(registry: Registry, issuer: Issuer) -> None:
    auth = ("ci", issuer.token())
    query = {"scope": PULL, "offline_token": "true"}
    answer = await registry.anonymous.get("/token", params=query, auth=auth)
    assert answer.status_code == 200
    assert "refresh_token" not in answer.json()
    assert (await registry.anonymous.get("/v2/", auth=auth)).status_code == 200
    assert (await registry.anonymous.get("/v2/", auth=("alice", auth[1]))).status_code == 401


async def test_keys_are_looked_for_again(
    registry: Registry, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await exchange(registry, issuer.token())).status_code == 200
    assert (await exchange(registry, issuer.token())).status_code == 200
    assert len(issuer.asked) == 2  # the document, the keys
    issuer.rotate("ES256")
    assert (await exchange(registry, issuer.token())).status_code == 401  # too soon to ask again
    assert len(issuer.asked) == 2
    monkeypatch.setattr(issuers, "_AGAIN_S", 0.0)
    assert (await exchange(registry, issuer.token())).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "http://127.0.0.1:1"},
        {"aud": "another"},
        {"aud": []},
        {"exp": -120},
        {"exp": 40 * 24 * 3600},
        {"iat": 600},
        {"sub": "repo:team/app-evil:ref:refs/heads/main"},
        {"sub": "repo:team/app:ref:refs/heads/main/../../x"},
        {"sub": "repo:team/app:ref:refs/heads/x:environment:prod"},
        {"sub": None},
        {"sub": ["repo:team/app:ref:refs/heads/main"]},
    ],
)
async def test_attack_token_for_somebody_else(
    registry: Registry, issuer: Issuer, changes: dict[str, Any]
) -> None:
    # Times are seconds from now.
    moved = {name: time.time() + changes[name] for name in ("exp", "iat") if name in changes}
    claims = {**issuer.claims(), **changes, **moved}
    algorithm, key = issuer.keys[issuer.kid]
    signed = issuers.jwt.api_jws.encode(
        issuers.jwt.api_jws.json.dumps(claims).encode(), key, algorithm, {"kid": issuer.kid}
    )
    assert (await exchange(registry, signed)).status_code == 401


async def test_attack_forged_signatures(registry: Registry, issuer: Issuer) -> None:
    with Issuer() as other:
        other.keys = {issuer.kid: next(iter(other.keys.values()))}
        other.kid = issuer.kid
        forged = other.token(iss=issuer.url)
    for token in (issuer.unsigned(), issuer.signed_with_public_key(), forged):
        assert (await exchange(registry, token)).status_code == 401
        answer = await registry.anonymous.get("/token", auth=("ci", token))
        assert answer.status_code == 401


async def test_attack_key_in_the_header(registry: Registry, issuer: Issuer) -> None:
    with Issuer() as other:
        algorithm, key = other.keys[other.kid]
        headers = {"kid": other.kid, "jwk": other._jwks()["keys"][0], "jku": f"{other.url}/keys"}
        token = issuers.jwt.encode(issuer.claims(), key, algorithm, headers=headers)
        assert (await exchange(registry, token)).status_code == 401
        assert other.asked == []


async def test_attack_issuer_nobody_trusts_is_not_asked(registry: Registry) -> None:
    with Issuer() as other:
        assert (await exchange(registry, other.token())).status_code == 401
        assert other.asked == []


@pytest.mark.parametrize("fault", ["giant", "slow", "redirect"])
async def test_attack_faults_of_an_issuer(
    registry: Registry, issuer: Issuer, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "ANSWER_S", 0.5)
    issuer.fault = fault
    assert (await exchange(registry, issuer.token())).status_code == 503
    asked = len(issuer.asked)
    assert (await exchange(registry, issuer.token())).status_code == 503
    assert len(issuer.asked) == asked  # not again at once
    assert "/elsewhere" not in issuer.asked


async def test_attack_keys_on_another_host(registry: Registry, issuer: Issuer) -> None:
    with Issuer() as inside:
        issuer.discovery = {"jwks_uri": f"{inside.url}/keys"}
        assert (await exchange(registry, issuer.token())).status_code == 503
        assert inside.asked == []


async def test_revoking_acts_at_once(registry: Registry, issuer: Issuer) -> None:
    metadata = services_of(registry).metadata
    token = (await exchange(registry, issuer.token())).json()["token"]
    basic = ("ci", issuer.token())
    assert await tags(registry, token) == 404
    assert (await registry.anonymous.get("/v2/", auth=basic)).status_code == 200
    [rule] = await metadata.trust.of("ci")
    await metadata.trust.remove("ci", rule.id)
    assert await tags(registry, token) == 401
    assert (await registry.anonymous.get("/v2/", auth=basic)).status_code == 401
    await metadata.trust.add("ci", issuer.url, AUDIENCE, CLAIMS)
    assert await tags(registry, token) == 401  # it was another rule's
    token = (await exchange(registry, issuer.token())).json()["token"]
    await metadata.accounts.set_disabled("ci", True)
    assert await tags(registry, token) == 401
    assert (await exchange(registry, issuer.token())).status_code == 401


async def test_attack_several_robots_need_a_name(registry: Registry, issuer: Issuer) -> None:
    metadata = services_of(registry).metadata
    await metadata.accounts.add("other", "", "writer", kind="robot")
    await metadata.trust.add("other", issuer.url, AUDIENCE, {"repository": "team/app"})
    assert (await exchange(registry, issuer.token())).status_code == 401
    assert (await exchange(registry, issuer.token(), username="ci")).status_code == 200
    assert (await exchange(registry, issuer.token(), username="alice")).status_code == 401


@pytest.mark.parametrize(
    "pattern, value, expected",
    [
        ("a*c", "abbc", True),
        ("a*c", "ab/c", False),
        ("a**c", "ab/:c", True),
        ("*", "", True),
        ("a", "ab", False),
        ("a*", "a*", True),
        ("a.c", "abc", False),
    ],
)
def test_patterns(pattern: str, value: str, expected: bool) -> None:
    assert matches(pattern, value) is expected


def test_attack_slow_pattern() -> None:
    assert not matches("**a" * 80, "a" * 1000 + "b")
