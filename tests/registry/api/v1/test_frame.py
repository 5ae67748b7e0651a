"""The frame of the administration API: paths, parameters, documents, errors, who may call."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import httpx
import pytest

from registry.api.v1.shapes import Items, NotInShape, Text, Whole, read, schema, write
from registry.api.v1.table import Endpoint, On, Table, Who
from tests.registry.api.conftest import Registry, started


@dataclass(frozen=True, slots=True)
class Inner:
    key: str
    on: bool = False


@dataclass(frozen=True, slots=True)
class Outer:
    """All kinds of fields."""

    name: Annotated[str, Text(1, 8, "[a-z]+")]
    role: Literal["admin", "user"]
    days: Annotated[int, Whole(1, 30)] = 7
    note: Annotated[str, Text(0, 10)] | None = None
    inner: tuple[Inner, ...] = ()
    labels: Annotated[dict[str, str], Items(0, 2)] | None = None


GOOD = {"name": "a", "role": "user"}


def test_a_document_is_read_and_written() -> None:
    given = {**GOOD, "days": 3.0, "inner": [{"key": "k"}], "labels": {"a": "b"}}
    found = read(Outer, given)
    assert found == Outer("a", "user", 3, None, (Inner("k"),), {"a": "b"})
    assert write(found) == {
        "name": "a", "role": "user", "days": 3, "note": None,
        "inner": [{"key": "k", "on": False}], "labels": {"a": "b"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"more": 1}, "more is not known"),
        ({"name": "A"}, "name is not possible"),
        ({"name": "a\n"}, "name is not possible"),
        ({"name": ""}, "1 to 8 characters"),
        ({"name": 5}, "name must be a text"),
        ({"name": None}, "name must be a text"),
        ({"role": "root"}, "role must be one of admin, user"),
        ({"role": ["user"]}, "role must be one of"),
        ({"days": 31}, "from 1 to 30"),
        ({"days": True}, "whole number"),
        ({"days": 1.5}, "whole number"),
        ({"days": "1"}, "whole number"),
        ({"note": "\0"}, "note is not possible"),
        ({"inner": {}}, "inner must be a list"),
        ({"inner": [{"key": "k", "x": 1}]}, "inner[0].x is not known"),
        ({"inner": [{}]}, "inner[0].key is missing"),
        ({"inner": [{"key": "k", "on": 1}]}, "true or false"),
        ({"labels": {"a": 1}}, "object of texts"),
        ({"labels": {"a": "", "b": "", "c": ""}}, "at most 2"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, object], word: str) -> None:
    with pytest.raises(NotInShape) as caught:
        read(Outer, {**GOOD, **change})
    assert word in str(caught.value)


def test_the_schema_says_the_same() -> None:
    components: dict[str, dict[str, object]] = {}
    assert schema(Outer, components, closed=True) == {"$ref": "#/components/schemas/Outer"}
    assert components["Outer"]["required"] == ["name", "role"]
    assert components["Outer"]["additionalProperties"] is False
    assert components["Inner"]["required"] == ["key"]


async def nothing(call: object) -> None: ...


def test_paths_with_slashes_in_names_are_never_ambiguous() -> None:
    async def other(call: object) -> None: ...

    table = Table(
        (
            Endpoint("GET", "/repositories/{repository}", nothing, On("pull"), "a"),
            Endpoint("GET", "/repositories/{repository}/_tags/{tag}", other, On("pull"), "b"),
        )
    )
    for path, parameters in {
        "/repositories/a": {"repository": "a"},
        "/repositories/a/tags/b": {"repository": "a/tags/b"},
        "/repositories/a/b/_tags/_x": {"repository": "a/b", "tag": "_x"},
    }.items():
        found = table.find(path)
        assert found is not None and found[1] == parameters
    for path in ("/repositories/", "/repositories/a/", "/repositories/a//b", "/repositories/_a"):
        assert table.find(path) is None
    with pytest.raises(ValueError, match="must begin with _"):
        Endpoint("GET", "/repositories/{repository}/tags", nothing, On("pull"), "c")
    with pytest.raises(ValueError, match="twice"):
        Table((table.endpoints[0], table.endpoints[0]))
    with pytest.raises(ValueError, match="no account"):
        Endpoint("GET", "/users/{user}", nothing, Who.OWN, "c")


def problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, object] = answer.json()
    assert found["status"] == status and found["detail"]
    assert found["request_id"] == answer.headers["x-request-id"]
    return found


async def test_version_and_document_are_for_everybody(registry: Registry) -> None:
    answer = await registry.anonymous.get("/api/v1/version")
    assert answer.json() == {"name": "pyreg", "api": "1"}
    answer = await registry.anonymous.get("/api/v1/openapi.json")
    assert answer.json()["openapi"] == "3.1.0" and "/api/v1/me" in answer.json()["paths"]
    head = await registry.anonymous.head("/api/v1/version")
    assert (head.status_code, head.content) == (200, b"")


async def test_who_is_asking(registry: Registry) -> None:
    answer = await registry.anonymous.get("/api/v1/me")
    problem(answer, 401)
    assert 'scope="registry:api:*"' in answer.headers["www-authenticate"]
    async with registry.basic("alice") as alice:
        me = (await alice.get("/api/v1/me")).json()
    assert me == {"name": "alice", "role": "writer", "administrator": False}
    token = await registry.token("alice", "registry:api:*")
    async with registry.client(headers={"authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/api/v1/me")).json() == me


async def test_attack_a_token_for_repositories_does_not_open_the_api(registry: Registry) -> None:
    async with await registry.login("alice", "team/app") as client:
        answer = await client.get("/api/v1/me")
    problem(answer, 401)
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


async def test_attack_anonymous_tokens_have_no_api_scope(tmp_path: Path) -> None:
    async with started(tmp_path, anonymous_pull=True) as registry:
        token = await registry.token("", "registry:api:*")
        async with registry.client(headers={"authorization": f"Bearer {token}"}) as client:
            problem(await client.get("/api/v1/me"), 401)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1", "/api/v1/", "/api/v1//me", "/api/v1/me/", "/api/v1/no",
        "/api/v1/%2e%2e/me", "/api/v1/me%2f", "/api/v1/ME", "/api/v1/" + "a/" * 2000,
    ],
)  # fmt: skip
async def test_attack_odd_paths_are_no_paths(registry: Registry, path: str) -> None:
    async with registry.basic("alice") as client:
        request = client.build_request("GET", "http://registry/")
        request.url = request.url.copy_with(raw_path=path.encode())
        problem(await client.send(request), 404)


async def test_methods_queries_and_bodies_that_are_not_for_it(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        answer = await alice.post("/api/v1/me")
        problem(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD"
        assert "'x'" in str(problem(await alice.get("/api/v1/me?x=1"), 400)["detail"])
        problem(await alice.get("/api/v1/me?n=1"), 400)
        problem(await alice.get("/api/v1/me?x=%00"), 400)
        problem(await alice.request("GET", "/api/v1/me", content=b"x"), 400)
        problem(await alice.get("/api/v1/me?" + "x=1&" * 5000), 414)


async def test_requests_are_counted_and_limited(tmp_path: Path) -> None:
    async with started(tmp_path, account_requests_per_minute=3) as registry:
        async with registry.basic("alice") as alice:
            answers = [await alice.get("/api/v1/me") for _ in range(5)]
    assert [answer.status_code for answer in answers][-1] == 429
    assert answers[-1].headers["retry-after"]


async def test_calls_are_in_the_metrics(tmp_path: Path) -> None:
    secret = "a token for metrics alone"
    async with started(tmp_path, metrics_token=secret) as registry:
        async with registry.basic("alice") as alice:
            await alice.get("/api/v1/me")
            await alice.get("/api/v1/no/such")
        answer = await registry.anonymous.get(
            "/metrics", headers={"authorization": f"Bearer {secret}"}
        )
    assert 'pyreg_http_requests_total{kind="api",method="GET",status="2xx"} 1.0' in answer.text
    assert 'pyreg_http_requests_total{kind="api",method="GET",status="4xx"} 1.0' in answer.text
