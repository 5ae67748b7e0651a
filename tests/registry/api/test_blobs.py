"""GET, HEAD and DELETE of blobs: ranges, conditions, membership."""

from __future__ import annotations

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_MANIFEST
from tests.registry.api.conftest import Start, code_of, manifest_of, push_blob

DATA = bytes(range(256)) * 8
DIGEST = str(Digest.of(DATA))
PATH = f"/v2/team/app/blobs/{DIGEST}"


@pytest.fixture
async def client(alice: httpx.AsyncClient) -> httpx.AsyncClient:
    await push_blob(alice, "team/app", DATA)
    return alice


async def test_get_and_head_agree(client: httpx.AsyncClient) -> None:
    full, head = await client.get(PATH), await client.head(PATH)
    assert (full.status_code, full.content) == (200, DATA)
    assert (head.status_code, head.content) == (200, b"")
    for name in (
        "content-length",
        "docker-content-digest",
        "etag",
        "content-type",
        "cache-control",
        "accept-ranges",
    ):
        assert head.headers[name] == full.headers[name]
    assert full.headers["content-length"] == str(len(DATA))
    assert full.headers["etag"] == f'"{DIGEST}"'
    assert "max-age=31536000" in full.headers["cache-control"]


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2048),
        ("bytes=-500", 1548, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-0", 0, 1),
        ("bytes=-99999", 0, 2048),
    ],
)
async def test_ranges(client: httpx.AsyncClient, asked: str, start: int, stop: int) -> None:
    answer = await client.get(PATH, headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == DATA[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"])
async def test_ranges_outside(client: httpx.AsyncClient, asked: str) -> None:
    answer = await client.get(PATH, headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=a-b", "bytes=0-1,5-6", "nonsense"])
async def test_ranges_that_are_ignored(client: httpx.AsyncClient, asked: str) -> None:
    answer = await client.get(PATH, headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_if_range(client: httpx.AsyncClient) -> None:
    same = {"range": "bytes=0-9", "if-range": f'"{DIGEST}"'}
    other = {"range": "bytes=0-9", "if-range": '"other"'}
    assert (await client.get(PATH, headers=same)).status_code == 206
    assert (await client.get(PATH, headers=other)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_not_modified(client: httpx.AsyncClient, method: str) -> None:
    answer = await client.request(method, PATH, headers={"if-none-match": f'"x", W/"{DIGEST}"'})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["docker-content-digest"] == DIGEST


async def test_a_digest_names_nothing_in_a_repository_that_does_not_hold_it(
    client: httpx.AsyncClient,
) -> None:
    """CVE-2024-39897: a shared store gave any blob to anyone who knew its digest."""
    answer = await client.get(f"/v2/team/other/blobs/{DIGEST}")
    assert (answer.status_code, code_of(answer)) == (404, "BLOB_UNKNOWN")
    assert (await client.head(f"/v2/team/other/blobs/{DIGEST}")).status_code == 404


@pytest.mark.parametrize("digest", ["sha256:abc", "sha256", "sha1:" + "a" * 40, "x:y"])
async def test_a_malformed_digest_is_400(client: httpx.AsyncClient, digest: str) -> None:
    answer = await client.get(f"/v2/team/app/blobs/{digest}")
    assert (answer.status_code, code_of(answer)) == (400, "DIGEST_INVALID")


async def test_deleted_means_gone_at_once_and_only_here(client: httpx.AsyncClient) -> None:
    """CVE-2026-35172: a cache told that the blob was still there."""
    await client.post("/v2/team/other/blobs/uploads/", params={"mount": DIGEST, "from": "team/app"})
    assert (await client.head(PATH)).status_code == 200
    assert (await client.delete(PATH)).status_code == 202
    assert (await client.head(f"/v2/team/other/blobs/{DIGEST}")).status_code == 200
    for method in ("HEAD", "GET", "DELETE"):
        assert (await client.request(method, PATH)).status_code == 404


async def test_a_blob_in_use_stays(client: httpx.AsyncClient) -> None:
    raw = manifest_of(DATA)
    put = await client.put(
        "/v2/team/app/manifests/1", content=raw, headers={"content-type": OCI_MANIFEST}
    )
    assert put.status_code == 201
    refused = await client.delete(PATH)
    assert (refused.status_code, code_of(refused)) == (405, "DENIED")
    assert (await client.get(PATH)).content == DATA


async def test_a_lost_file_is_404_and_heals_with_the_next_push(
    start: Start,
) -> None:
    async with start() as registry, await registry.login("alice", "team/app") as alice:
        await push_blob(alice, "team/app", DATA)
        [file] = (registry.settings.data / "blobs").rglob(DIGEST.partition(":")[2])
        file.unlink()
        assert (await alice.get(PATH)).status_code == 404
        await push_blob(alice, "team/app", DATA)
        assert (await alice.get(PATH)).content == DATA


async def test_a_blob_is_never_a_page_of_ours(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
