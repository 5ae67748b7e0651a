"""Every endpoint of /api/v1, by every kind of caller: generated from the table, so that
a new one is in it on the day it is written.

What is expected is worked out here, in plain words. A parameter that no endpoint knows makes a call
that is allowed end in 400 before it does anything: rights are looked at first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from registry.api.v1.endpoints import TABLE
from registry.api.v1.table import PREFIX, Endpoint, On, Who
from tests.registry.api.conftest import Registry, password_of, started

ALLOWED, LOGIN, DENIED = 400, 401, 403
SAMPLES = {
    "repository": "team/app",
    "account": "rita",
    "digest": "sha256:" + "0" * 64,
    "namespace": "team",
    "number": "7",
    "session": "0123456789abcdef0123",
}
CALLERS = (
    "nobody",
    "reader",
    "the account itself",
    "writer",
    "admin",
    "removed",
    "disabled",
    "token of an admin for a repository",
    "token of a demoted admin",
    "forged token of an admin",
    "wrong password",
)


def expected(endpoint: Endpoint, caller: str) -> int:
    worthless = ("removed", "disabled", "forged token of an admin", "wrong password")
    if caller in worthless or caller == "token of an admin for a repository":
        return LOGIN  # wherever credentials are shown that are not good for this
    if endpoint.may is Who.ANYBODY or caller == "admin":
        return ALLOWED
    if caller == "nobody":
        return LOGIN
    if isinstance(endpoint.may, On):
        if caller == "writer":
            return ALLOWED if endpoint.may.action in ("pull", "push", "delete") else DENIED
        return ALLOWED if endpoint.may.action == "pull" else DENIED
    if endpoint.may is Who.OWN:
        return ALLOWED if caller == "the account itself" else DENIED
    return ALLOWED if endpoint.may is Who.ACCOUNT else DENIED


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with started(tmp_path) as running:
        services = running.app.app.routes[0]._opened.get()
        accounts = services.metadata.accounts
        for name, role in {"root": "admin", "lowered": "admin", "reed": "reader"}.items():
            await accounts.add(name, await services.passwords.hash(password_of(name)), role)
        yield running


async def client_of(registry: Registry, caller: str) -> httpx.AsyncClient:
    services = registry.app.app.routes[0]._opened.get()
    accounts = services.metadata.accounts

    def bearer(token: str) -> httpx.AsyncClient:
        return registry.client(headers={"authorization": f"Bearer {token}"})

    match caller:
        case "nobody":
            return registry.client()
        case "reader":
            return registry.basic("reed")
        case "the account itself":
            return registry.basic("rita")
        case "writer":
            return registry.basic("alice")
        case "admin":
            return registry.basic("root")
        case "removed":
            token = await registry.token("bob", "registry:api:*")
            await accounts.remove("bob")
            return bearer(token)
        case "disabled":
            token = await registry.token("bob", "registry:api:*")
            await accounts.set_disabled("bob", True)
            return bearer(token)
        case "token of an admin for a repository":
            return bearer(await registry.token("root", "repository:team/app:pull,push,delete"))
        case "token of a demoted admin":
            token = await registry.token("lowered", "registry:api:*")
            await accounts.set_role("lowered", "reader")
            return bearer(token)
        case "forged token of an admin":
            return bearer((await registry.token("root", "registry:api:*"))[:-8] + "AAAAAAAA")
        case _:
            return registry.client(auth=("root", "not the password"))


def path_of(endpoint: Endpoint) -> str:
    samples = {each.name: SAMPLES.get(each.name, "some1") for each in endpoint.parameters}
    return PREFIX + endpoint.path.format(**samples)


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_endpoint_for_every_caller(registry: Registry, caller: str) -> None:
    wrong = []
    async with await client_of(registry, caller) as client:
        for endpoint in TABLE.endpoints:
            answer = await client.request(
                endpoint.method, path_of(endpoint), params={"no-such-parameter": "1"}
            )
            wanted = expected(endpoint, caller)
            if answer.status_code == 429 and caller == "wrong password":
                continue  # who guesses is made to wait
            if answer.status_code != wanted:
                wrong.append((endpoint.name, answer.status_code, wanted, answer.text))
            if answer.status_code == LOGIN:
                assert 'scope="registry:api:*"' in answer.headers["www-authenticate"]
    assert wrong == []


async def test_attack_forbidden_and_unknown_look_the_same(registry: Registry) -> None:
    """Whoever may not ask about an account or repository does not learn whether it is there."""
    async with registry.basic("alice") as alice:
        for endpoint in TABLE.endpoints:
            if expected(endpoint, "writer") != DENIED or not endpoint.parameters:
                continue
            told = []
            for there, known in (("rita", True), ("nobody9", False)):
                path = path_of(endpoint).replace("rita", there)
                path = path if known else path.replace("team/app", "no/such").replace("some1", "x9")
                answer = (await alice.request(endpoint.method, path)).json()
                told.append((answer["status"], answer["detail"].replace("no/such", "team/app")))
            assert told[0] == told[1], endpoint.name
