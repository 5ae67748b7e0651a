"""Attacks on the administration API, each by its name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.registry.api.conftest import Registry, password_of, push_image, started


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with started(tmp_path) as running:
        services = running.app.app.routes[0]._opened.get()
        hashed = await services.passwords.hash(password_of("root"))
        await services.metadata.accounts.add("root", hashed, "admin")
        yield running


async def send(client: httpx.AsyncClient, raw: bytes | str, **headers: str) -> httpx.Response:
    content = raw.encode() if isinstance(raw, str) else raw
    return await client.post(
        "/api/v1/users",
        content=content,
        headers={"content-type": "application/json", **headers},
    )


async def test_attack_mass_assignment_of_a_role(registry: Registry) -> None:
    """Neither may an account change its own role, nor does another document carry one along."""
    async with registry.basic("rita") as rita:
        denied = await rita.patch("/api/v1/users/rita", json={"role": "admin"})
        assert denied.status_code == 403
        document = {
            "password": "another long one", "current": password_of("rita"), "role": "admin",
        }  # fmt: skip
        refused = await rita.put("/api/v1/users/rita/password", json=document)
        assert refused.status_code == 400
        assert refused.json()["problems"] == ["role is not known; known are password, current"]
        assert (await rita.get("/api/v1/me")).json()["role"] == "reader"


async def test_attack_the_password_of_another_account(registry: Registry) -> None:
    async with registry.basic("rita") as rita:
        document = {"password": "another long one", "current": password_of("alice")}
        answer = await rita.put("/api/v1/users/alice/password", json=document)
        assert answer.status_code == 403
        assert (await rita.get("/api/v1/users/alice")).status_code == 403
        # A session that was left open does not know the password.
        document = {"password": "another long one", "current": "a guess"}
        answer = await rita.put("/api/v1/users/rita/password", json=document)
        assert answer.status_code == 403
        document["current"] = password_of("rita")
        assert (await rita.put("/api/v1/users/rita/password", json=document)).status_code == 204
        assert (await rita.get("/api/v1/me")).status_code == 401


async def test_attack_guessing_the_password_inside_a_session_is_slowed(registry: Registry) -> None:
    token = await registry.token("rita", "registry:api:*")
    async with registry.client(headers={"authorization": f"Bearer {token}"}) as rita:
        statuses = [
            (
                await rita.put(
                    "/api/v1/users/rita/password",
                    json={"password": "another long one", "current": f"guess {number}"},
                )
            ).status_code
            for number in range(8)
        ]
    assert statuses[0] == 403 and statuses[-1] == 429


BOMBS = {
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 50_000,
    "many": '{"name":[' + "0," * 120_000 + "0]}",
    "digits": '{"name":' + "9" * 200_000 + "}",
    "exponent": '{"name":1e999999}',
    "not a number": '{"name":NaN}',
    "not UTF-8": b'{"name":"\xff"}',
    "surrogate": '{"name":"\\ud800"}',
    "NUL": '{"name":"a\\u0000b","password":"long enough"}',
    "list": "[]",
    "text": '"x"',
    "nothing": "",
    "rest": "{} {}",
    "two names": '{"name":"eve","name":"root","password":"long enough"}',
    "two roles": '{"name":"eve","password":"long enough","role":"reader","role":"admin"}',
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_attack_documents_that_are_none(registry: Registry, bomb: str) -> None:
    async with registry.basic("root") as root:
        answer = await send(root, BOMBS[bomb])
        assert answer.status_code in (400, 413)
        assert len(answer.content) < 4096
        names = [user["name"] for user in (await root.get("/api/v1/users")).json()["items"]]
        assert "eve" not in names


async def test_attack_a_form_of_another_site(registry: Registry) -> None:
    """A page may send only what forms can, with no preflight: none of it is taken."""
    good = json.dumps({"name": "eve", "password": "long enough"})
    kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")
    async with registry.basic("root") as root:
        for kind in kinds:
            assert (await send(root, good, **{"content-type": kind})).status_code == 415
        latin = await send(root, good, **{"content-type": "application/json; charset=latin-1"})
        assert latin.status_code == 415
        big = await send(root, '{"name":"' + "a" * 300_000 + '"}')
        assert big.status_code == 413
        assert (await root.get("/api/v1/users/eve")).status_code == 404


@pytest.mark.parametrize(
    "query",
    ["n=0", "n=-1", "n=1001", "n=1e3", "n=" + "9" * 4000, "n=", "n=1&n=2", "last=%00", "x=1",
     "last=" + "a" * 513, "n=%EF%BC%91"],
)  # fmt: skip
async def test_attack_pages_out_of_bounds(registry: Registry, query: str) -> None:
    async with registry.basic("root") as root:
        assert (await root.get(f"/api/v1/users?{query}")).status_code == 400


async def test_pages_end_and_keep_their_filter(registry: Registry) -> None:
    async with registry.basic("root") as root:
        for name in ("a/x", "a/y", "b/z"):
            await push_image(root, name, "v1")
        found, target = [], "/api/v1/repositories?n=1&prefix=a%2F"
        while target:
            page = await root.get(target)
            found += [item["name"] for item in page.json()["items"]]
            target = page.links["next"]["url"] if "next" in page.links else ""
        assert found == ["a/x", "a/y"]


async def raw_get(client: httpx.AsyncClient, path: str) -> httpx.Response:
    request = client.build_request("GET", "http://registry/")
    request.url = request.url.copy_with(raw_path=path.encode())
    return await client.send(request)


async def test_attack_path_confusion(registry: Registry) -> None:
    """One reading of a path, whatever is escaped in it: nobody is authorised for one repository
    and shown another."""
    async with registry.basic("root") as root:
        digest, _ = await push_image(root, "team/app", "v1")
        for path in ("team/app", "team%2Fapp", "team%2fapp", "t%65am/app"):
            answer = await raw_get(root, f"/api/v1/repositories/{path}/_tags")
            assert answer.json()["items"][0]["digest"] == digest
        odd = {
            "/api/v1/repositories/team/app/..": 400,
            "/api/v1/repositories/team%2F..%2Fapp": 400,
            "/api/v1/repositories/team%252Fapp": 400,
            "/api/v1/repositories/team//app": 404,
            "/api/v1/repositories/team/app/": 404,
            "/api/v1/repositories/Team/app": 400,
            "/api/v1/repositories/team/app%00": 400,
            "/api/v1/repositories/team/app/_tags/..": 405,  # nothing is read there
            "/api/v1/users/root%2Fpassword": 405,  # what it says: PUT only
            "/api/v1/users/..": 400,
            "/api/v1/users/%2e%2e%2fme": 404,
        }
        for path, status in odd.items():
            answer = await raw_get(root, path.replace("/..", "/%2e%2e"))
            assert answer.status_code == status, (path, answer.text)


async def test_attack_repositories_of_others_are_not_listed(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        await push_image(alice, "team/app", "v1")
    for path in ("/api/v1/repositories", "/api/v1/repositories/team/app"):
        assert (await registry.anonymous.get(path)).status_code == 401


async def test_attack_secrets_come_back_in_no_answer(registry: Registry) -> None:
    async with registry.basic("root") as root:
        made = await root.post("/api/v1/users", json={"name": "eve", "password": "very secret 1"})
        shown = await root.get("/api/v1/users/eve")
        listed = await root.get("/api/v1/users")
        wrong = await root.post("/api/v1/users", json={"name": "E", "password": "very secret 2"})
        exists = await root.post("/api/v1/users", json={"name": "eve", "password": "very secret 3"})
    assert (made.status_code, wrong.status_code, exists.status_code) == (201, 400, 409)
    for answer in (made, shown, listed, wrong, exists):
        assert "very secret" not in answer.text and "argon2" not in answer.text
        assert answer.headers["cache-control"] == "no-store"


async def test_attack_an_administrators_access_token_becomes_lasting(registry: Registry) -> None:
    """A token that was stolen ends when it is revoked: it neither sets anybody's password, nor
    makes another administrator."""
    async with registry.basic("root") as root:
        made = await root.post("/api/v1/accounts/root/tokens", json={"name": "ci"})
        assert made.status_code == 201, made.text
        # Somebody's session that was left open does not know the password either.
        answer = await root.put("/api/v1/users/root/password", json={"password": "a long one 22"})
        assert answer.status_code == 403
        answer = await root.put("/api/v1/users/rita/password", json={"password": "a long one 22"})
        assert answer.status_code == 204
    bearer = {"authorization": f"Bearer {made.json()['secret']}"}
    async with registry.client(headers=bearer) as thief:
        assert (await thief.get("/api/v1/users")).status_code == 200
        new = {"name": "eve", "password": "a long one 22", "role": "admin"}
        for answer in (
            await thief.put("/api/v1/users/alice/password", json={"password": "a long one 22"}),
            await thief.put("/api/v1/users/root/password", json={"password": "a long one 22"}),
            await thief.post("/api/v1/users", json=new),
            await thief.patch("/api/v1/users/alice", json={"role": "admin"}),
        ):
            assert answer.status_code == 403, answer.text
            assert "access token" in answer.json()["detail"]
        assert (await thief.post("/api/v1/users", json={**new, "role": "user"})).status_code == 201
