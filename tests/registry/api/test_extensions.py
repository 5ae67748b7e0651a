"""Beyond the core of the spec: discovery, tag history, namespaces of mirrors, warnings."""

from __future__ import annotations

import httpx
import pytest

from registry.errors import InvalidSettings
from registry.settings import Settings
from tests.registry.api.conftest import Registry, Start, code_of, push_image

MANIFEST = "/v2/library/debian/manifests/v1"


async def test_discovery_names_what_there_is(registry: Registry) -> None:
    url = "/v2/_oci/ext/discover"
    assert (await registry.anonymous.get(url)).status_code == 401
    async with await registry.login("rita") as rita:
        found = (await rita.get(url)).json()["extensions"]
        assert [each["name"] for each in found] == ["_oci", "_catalog", "_pyreg"]
        assert all(each["description"] and each["endpoints"] for each in found)
        head = await rita.head(url)
        assert (head.status_code, head.content) == (200, b"")
        assert (await rita.get("/v2/_oci/ext/other")).status_code == 404


async def test_history_of_a_tag(registry: Registry, alice: httpx.AsyncClient) -> None:
    first, _ = await push_image(alice, "team/app", "v1", marker="1")
    second, _ = await push_image(alice, "team/app", "v1", marker="2")
    await alice.delete("/v2/team/app/manifests/v1")
    url = "/v2/team/app/_pyreg/history/v1"
    document = (await alice.get(url)).json()
    assert (document["name"], document["tag"]) == ("team/app", "v1")
    moves = [(each["from"], each["to"], each["by"]) for each in document["changes"]]
    assert moves == [(second, None, "alice"), (first, second, "alice"), (None, first, "alice")]
    assert len((await alice.get(url + "?n=1")).json()["changes"]) == 1
    assert (await alice.get(url.replace("v1", "other"))).json()["changes"] == []
    assert (await alice.get("/v2/team/app/_pyreg/history/-x")).status_code == 400
    assert (await alice.get("/v2/team/other/_pyreg/history/v1")).json()["changes"] == []
    async with registry.basic("rita") as rita:  # names of accounts are not for readers
        assert code_of(await rita.get(url)) == "DENIED"


async def test_a_mirror_serves_another_registrys_names(start: Start) -> None:
    """As containerd asks a mirror; the answer says whose name was looked at."""
    async with start(namespaces=["docker.io"]) as registry, registry.basic("alice") as alice:
        _, theirs = await push_image(alice, "docker.io/library/debian", "v1", marker="theirs")
        digest, ours = await push_image(alice, "library/debian", "v1", marker="ours")
        for method, body in (("GET", theirs), ("HEAD", b"")):
            answer = await alice.request(method, MANIFEST + "?ns=docker.io")
            assert (answer.status_code, answer.content) == (200, body)
            assert answer.headers["oci-namespace"] == "docker.io"
        for query in ("", "?ns=quay.io", "?ns=", "?ns=../docker.io"):
            answer = await alice.get(MANIFEST + query)
            assert answer.content == ours
            assert "oci-namespace" not in answer.headers
        missing = await alice.get(f"/v2/library/debian/manifests/{digest}?ns=docker.io")
        assert (missing.status_code, missing.headers["oci-namespace"]) == (404, "docker.io")
        challenge = (await registry.anonymous.get(MANIFEST + "?ns=docker.io")).headers
        assert 'scope="repository:docker.io/library/debian:pull"' in challenge["www-authenticate"]
        # Only pulls: a push goes where its path says.
        await alice.delete(MANIFEST + "?ns=docker.io")
        assert (await alice.get(MANIFEST + "?ns=docker.io")).content == theirs
        assert (await alice.get(MANIFEST)).status_code == 404


async def test_ns_is_ignored_where_nothing_is_mirrored(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        _, raw = await push_image(alice, "library/debian", "v1")
        answer = await alice.get(MANIFEST + "?ns=docker.io")
        assert answer.content == raw
        assert "oci-namespace" not in answer.headers


async def test_a_warning_reaches_all_who_push_and_pull(start: Start) -> None:
    text = 'read-only from "May 1st" \\ ask ops'
    async with start(warning=text) as registry, registry.basic("alice") as alice:
        await push_image(alice, "library/debian", "v1")
        for answer in (
            await alice.get(MANIFEST),
            await alice.head(MANIFEST),
            await alice.post("/v2/library/debian/blobs/uploads/"),
            await alice.get("/v2/"),
            await alice.get("/v2/no/such/manifests/v1"),
        ):
            assert answer.headers["warning"] == r'299 - "read-only from \"May 1st\" \\ ask ops"'
    async with start() as registry, registry.basic("alice") as alice:
        assert "warning" not in (await alice.get(MANIFEST)).headers


@pytest.mark.parametrize(
    "changes",
    [
        {"warning": "two\r\nlines"},
        {"warning": "é"},
        {"warning": "x" * 1001},
        {"namespaces": ("localhost:5000",)},
        {"namespaces": ("a/b",)},
        {"namespaces": ("..",)},
        {"namespaces": ("UPPER",)},
        {"login_failures": -1},
    ],
)
def test_impossible_settings_are_named(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(changes))):
        Settings(**changes)  # type: ignore[arg-type]
