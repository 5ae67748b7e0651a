"""Manifests: exact bytes in and out, tags, everything that is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST
from registry.api.params import MAX_TAGS
from tests.registry.api.conftest import (
    Start,
    code_of,
    descriptor,
    manifest_of,
    push_blob,
    push_image,
)

BASE = "/v2/team/app/manifests"


async def put(
    client: httpx.AsyncClient,
    raw: bytes,
    reference: str = "",
    media_type: str = OCI_MANIFEST,
    **options: Any,
) -> httpx.Response:
    return await client.put(
        f"{BASE}/{reference or Digest.of(raw)}",
        content=raw,
        headers={"content-type": media_type},
        **options,
    )


async def test_the_bytes_come_back_exactly(alice: httpx.AsyncClient) -> None:
    config = b"{}"
    await push_blob(alice, "team/app", config)
    raw = b" " + manifest_of(config, unknown={"kept": [1, 2]}) + b"\n"
    digest = str(Digest.of(raw))
    done = await put(alice, raw, "v1", OCI_MANIFEST + "; charset=utf-8")
    assert done.status_code == 201
    assert done.headers["location"] == f"{BASE}/{digest}"
    for reference in ("v1", digest):
        full, head = await alice.get(f"{BASE}/{reference}"), await alice.head(f"{BASE}/{reference}")
        assert full.content == raw
        assert head.content == b""
        for answer in (full, head):
            assert answer.status_code == 200
            assert answer.headers["content-type"] == OCI_MANIFEST
            assert answer.headers["docker-content-digest"] == digest
            assert answer.headers["content-length"] == str(len(raw))
            assert answer.headers["etag"] == f'"{digest}"'
            assert answer.headers["docker-distribution-api-version"] == "registry/2.0"


async def test_accept_does_not_hide_what_is_stored(alice: httpx.AsyncClient) -> None:
    await push_image(alice, "team/app", "v1")
    answer = await alice.get(f"{BASE}/v1", headers={"accept": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, OCI_MANIFEST)


async def test_not_modified(alice: httpx.AsyncClient) -> None:
    digest, _ = await push_image(alice, "team/app", "v1")
    for condition in (f'"{digest}"', f'W/"{digest}"', f'"a", "{digest}"', "*"):
        answer = await alice.get(f"{BASE}/v1", headers={"if-none-match": condition})
        assert (answer.status_code, answer.content) == (304, b"")
    answer = await alice.get(f"{BASE}/v1", headers={"if-none-match": '"other"'})
    assert answer.status_code == 200


@pytest.mark.parametrize("reference", ["none", str(Digest.of(b"none")), ".hidden", "a" * 129])
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
async def test_unknown(alice: httpx.AsyncClient, method: str, reference: str) -> None:
    await push_image(alice, "team/app", "v1")
    answer = await alice.request(method, f"{BASE}/{reference}")
    assert answer.status_code == 404
    if method == "GET":
        assert code_of(answer) == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_malformed_digest_is_400(alice: httpx.AsyncClient, method: str) -> None:
    answer = await alice.request(method, f"{BASE}/sha256:totallywrong", content=b"{}")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


async def test_a_get_with_a_body_is_answered(alice: httpx.AsyncClient) -> None:
    await push_image(alice, "team/app", "v1")
    assert (await alice.request("GET", f"{BASE}/v1", content=b"why not")).status_code == 200


async def test_a_digest_that_is_not_of_the_body(alice: httpx.AsyncClient) -> None:
    refused = await put(alice, manifest_of(b"{}"), str(Digest.of(b"other")))
    assert (refused.status_code, code_of(refused)) == (400, "DIGEST_INVALID")


async def test_missing_content_is_named(alice: httpx.AsyncClient) -> None:
    refused = await put(alice, manifest_of(b"{}", b"layer"), "v1")
    assert (refused.status_code, code_of(refused)) == (400, "MANIFEST_BLOB_UNKNOWN")
    [error] = refused.json()["errors"]
    assert set(error["detail"]["digests"]) == {str(Digest.of(b"{}")), str(Digest.of(b"layer"))}
    assert (await alice.get(f"{BASE}/v1")).status_code == 404


_CONFIG = descriptor(OCI_CONFIG, b"{}")


@pytest.mark.parametrize(
    ("why", "body", "media_type"),
    [
        ("no JSON", b"<html>", OCI_MANIFEST),
        ("no object", b"[]", OCI_MANIFEST),
        ("empty", b"", OCI_MANIFEST),
        ("empty object", b"{}", OCI_MANIFEST),
        ("not UTF-8", b'{"a":"\xff"}', OCI_MANIFEST),
        ("deep", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", OCI_MANIFEST),
        (
            "other type outside",
            json.dumps(
                {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": _CONFIG, "layers": []}
            ).encode(),
            OCI_INDEX,
        ),
        (
            "GHSA-qq97-vm5h-rrhg, CVE-2021-41190: manifest and index at once",
            json.dumps(
                {"schemaVersion": 2, "config": _CONFIG, "layers": [], "manifests": []}
            ).encode(),
            OCI_MANIFEST,
        ),
        (
            "schema 1",
            b'{"schemaVersion":1,"fsLayers":[]}',
            "application/vnd.docker.distribution.manifest.v1+json",
        ),
        ("no manifest type", b'{"schemaVersion":2}', "text/html"),
        ("digest twice", b'{"schemaVersion":2,"config":{},"config":{}}', OCI_MANIFEST),
    ],
)
async def test_what_is_no_manifest(
    alice: httpx.AsyncClient, why: str, body: bytes, media_type: str
) -> None:
    refused = await put(alice, body, "v1", media_type)
    assert (refused.status_code, code_of(refused)) == (400, "MANIFEST_INVALID"), why


async def test_the_limit_is_exact(alice: httpx.AsyncClient) -> None:
    await push_blob(alice, "team/app", b"{}")
    limit = 4 << 20
    for size, status in ((limit, 201), (limit + 1, 413)):
        raw = manifest_of(b"{}", annotations={"a": ""})
        raw = raw.replace(b'"a": ""', b'"a": "%s"' % (b"x" * (size - len(raw))))
        assert len(raw) == size
        assert (await put(alice, raw)).status_code == status


@pytest.mark.parametrize("announced", [True, False])
async def test_cve_2017_11468_an_endless_manifest_is_refused_early(
    alice: httpx.AsyncClient, announced: bool
) -> None:
    taken = 0

    async def body():  # type: ignore[no-untyped-def]
        nonlocal taken
        for _ in range(100):
            taken += 1 << 20
            yield b"x" * (1 << 20)

    headers = {"content-type": OCI_MANIFEST}
    if announced:
        headers["content-length"] = str(100 << 20)
    refused = await alice.put(f"{BASE}/v1", content=body(), headers=headers)
    assert refused.status_code == 413
    assert taken <= 6 << 20


async def test_many_tags_in_one_push(alice: httpx.AsyncClient) -> None:
    await push_blob(alice, "team/app", b"{}")
    raw = manifest_of(b"{}")
    tags = [f"v{number}" for number in range(MAX_TAGS)]
    done = await put(alice, raw, params={"tag": tags})
    assert done.status_code == 201
    assert done.headers.get_list("oci-tag") == tags
    for tag in tags:
        assert (await alice.get(f"{BASE}/{tag}")).content == raw


@pytest.mark.parametrize(
    ("reference", "tags", "status"),
    [
        ("", [f"v{number}" for number in range(MAX_TAGS + 1)], 414),
        ("", ["good", "no good"], 400),
        ("v1", ["v2"], 400),
    ],
)
async def test_tags_all_or_none(
    alice: httpx.AsyncClient, reference: str, tags: list[str], status: int
) -> None:
    await push_image(alice, "team/app", "before")
    await push_blob(alice, "team/app", b"{}")
    refused = await put(alice, manifest_of(b"{}"), reference, params={"tag": tags})
    assert refused.status_code == status
    assert (await alice.get("/v2/team/app/tags/list")).json()["tags"] == ["before"]


async def test_a_tag_moves(alice: httpx.AsyncClient) -> None:
    old, _ = await push_image(alice, "team/app", "latest", marker="old")
    new, _ = await push_image(alice, "team/app", "latest", marker="new")
    assert (await alice.get(f"{BASE}/latest")).headers["docker-content-digest"] == new
    assert (await alice.get(f"{BASE}/{old}")).status_code == 200


async def test_deleting_a_tag_leaves_the_manifest_and_its_other_tags(
    alice: httpx.AsyncClient,
) -> None:
    digest, raw = await push_image(alice, "team/app", "one")
    await put(alice, raw, "two")
    assert (await alice.delete(f"{BASE}/one")).status_code == 202
    assert (await alice.get(f"{BASE}/one")).status_code == 404
    assert (await alice.get(f"{BASE}/two")).content == raw
    assert (await alice.get(f"{BASE}/{digest}")).content == raw


async def test_deleting_a_manifest_takes_its_tags_along_at_once(alice: httpx.AsyncClient) -> None:
    digest, raw = await push_image(alice, "team/app", "one")
    await put(alice, raw, "two")
    assert (await alice.delete(f"{BASE}/{digest}")).status_code == 202
    for reference in ("one", "two", digest):
        assert (await alice.get(f"{BASE}/{reference}")).status_code == 404
    assert (await alice.get("/v2/team/app/tags/list")).json()["tags"] == []


async def test_sha512_manifest(alice: httpx.AsyncClient) -> None:
    await push_blob(alice, "team/app", b"{}")
    raw = manifest_of(b"{}")
    digest = str(Digest.of(raw, "sha512"))
    done = await put(alice, raw, digest, params={"tag": "v1"})
    assert (done.status_code, done.headers["docker-content-digest"]) == (201, digest)
    for reference in ("v1", digest):
        answer = await alice.get(f"{BASE}/{reference}")
        assert (answer.content, answer.headers["docker-content-digest"]) == (raw, digest)


async def test_an_index_needs_its_manifests(alice: httpx.AsyncClient) -> None:
    _, child = await push_image(alice, "team/app", "")
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [descriptor(OCI_MANIFEST, child), descriptor(OCI_MANIFEST, b"absent")],
    }
    refused = await put(alice, json.dumps(index).encode(), "v1", OCI_INDEX)
    assert (refused.status_code, code_of(refused)) == (400, "MANIFEST_BLOB_UNKNOWN")
    index["manifests"] = index["manifests"][:1]
    assert (await put(alice, json.dumps(index).encode(), "v1", OCI_INDEX)).status_code == 201


async def test_a_sparse_index_where_it_is_allowed(start: Start) -> None:
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [descriptor(OCI_MANIFEST, b"absent")],
        }
    ).encode()
    async with start(allow_sparse_index=True) as registry:
        async with await registry.login("alice", "team/app") as alice:
            assert (await put(alice, raw, "v1", OCI_INDEX)).status_code == 201


async def test_an_image_without_its_layers_where_it_is_allowed(start: Start) -> None:
    async with start(allow_sparse_image=True) as registry:
        async with await registry.login("alice", "team/app") as alice:
            await push_blob(alice, "team/app", b"{}")
            assert (await put(alice, manifest_of(b"{}", b"absent"), "v1")).status_code == 201
            refused = await put(alice, manifest_of(b"absent config", b"absent"), "v2")
            assert (refused.status_code, code_of(refused)) == (400, "MANIFEST_BLOB_UNKNOWN")


async def test_foreign_layers_may_be_elsewhere_and_are_never_fetched(
    alice: httpx.AsyncClient,
) -> None:
    """CVE-2026-10517: addresses in a manifest were fetched by the server."""
    await push_blob(alice, "team/app", b"{}")
    manifest = json.loads(manifest_of(b"{}"))
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    manifest["layers"] = [
        descriptor(foreign, b"elsewhere", urls=["http://127.0.0.1:1/x"]),
        descriptor(OCI_LAYER, b"also elsewhere", urls=["http://169.254.169.254/"]),
    ]
    assert (await put(alice, json.dumps(manifest).encode(), "v1")).status_code == 201


async def test_deleting_can_be_switched_off_everywhere(start: Start) -> None:
    """CVE-2026-41888: tags could be deleted although deleting was off."""
    async with start(delete_enabled=False) as registry:
        async with await registry.login("alice", "team/app") as alice:
            digest, raw = await push_image(alice, "team/app", "v1")
            for path in ("manifests/v1", f"manifests/{digest}", f"blobs/{digest}"):
                refused = await alice.delete(f"/v2/team/app/{path}")
                assert (refused.status_code, code_of(refused)) == (405, "UNSUPPORTED")
            assert (await alice.get(f"{BASE}/v1")).content == raw
            location = (await alice.post("/v2/team/app/blobs/uploads/")).headers["location"]
            assert (await alice.delete(location)).status_code == 204


async def test_a_client_that_stalls_in_a_manifest_is_given_up(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    monkeypatch.setattr("registry.api.exchange.IDLE_S", 0.1)

    async def never_ends() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)

    async with start() as registry, registry.basic("alice") as alice:
        answer = await alice.put("/v2/team/app/manifests/v1", content=never_ends())
        assert answer.status_code == 408
