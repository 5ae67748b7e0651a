"""Every way to push a blob, and what is refused."""

from __future__ import annotations

from uuid import UUID

import httpx
import pytest

from ocispec.digest import Digest
from tests.registry.api.conftest import Registry, Start, code_of, push_blob

UPLOADS = "/v2/team/app/blobs/uploads/"
DATA = b"0123456789" * 100
DIGEST = str(Digest.of(DATA))


async def begin(client: httpx.AsyncClient, **params: str) -> str:
    answer = await client.post(UPLOADS, params=params)
    assert answer.status_code == 202
    location: str = answer.headers["location"]
    return location


async def pulled(client: httpx.AsyncClient, digest: str = DIGEST) -> bytes:
    answer = await client.get(f"/v2/team/app/blobs/{digest}")
    assert answer.status_code == 200
    assert answer.headers["docker-content-digest"] == digest
    return answer.content


async def test_begins_with_a_uuid_and_a_relative_location(alice: httpx.AsyncClient) -> None:
    answer = await alice.post(UPLOADS)
    assert answer.status_code == 202
    assert answer.headers["location"].startswith(UPLOADS)
    UUID(answer.headers["location"].removeprefix(UPLOADS))
    assert answer.headers["range"] == "0-0"
    assert answer.headers["docker-upload-uuid"] in answer.headers["location"]


async def test_docker_streams_a_patch_without_range_and_puts_nothing(
    alice: httpx.AsyncClient,
) -> None:
    async def body():  # type: ignore[no-untyped-def]
        for start in range(0, len(DATA), 7):
            yield DATA[start : start + 7]

    location = await begin(alice)
    sent = await alice.patch(location, content=body())
    assert (sent.status_code, sent.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    done = await alice.put(sent.headers["location"], params={"digest": DIGEST})
    assert done.status_code == 201
    assert done.headers["location"] == f"/v2/team/app/blobs/{DIGEST}"
    assert done.headers["docker-content-digest"] == DIGEST
    assert await pulled(alice) == DATA


async def test_containerd_puts_the_whole_body(alice: httpx.AsyncClient) -> None:
    done = await alice.put(await begin(alice), params={"digest": DIGEST}, content=DATA)
    assert done.status_code == 201
    assert await pulled(alice) == DATA


async def test_a_post_takes_the_whole_blob(alice: httpx.AsyncClient) -> None:
    done = await alice.post(UPLOADS, params={"digest": DIGEST}, content=DATA)
    assert done.status_code == 201
    assert done.headers["location"] == f"/v2/team/app/blobs/{DIGEST}"
    assert await pulled(alice) == DATA


async def test_chunks_with_content_range_and_the_last_one_in_the_put(
    alice: httpx.AsyncClient,
) -> None:
    location = await begin(alice)
    for start in (0, 300):
        sent = await alice.patch(
            location,
            content=DATA[start : start + 300],
            headers={"content-range": f"{start}-{start + 299}"},
        )
        assert (sent.status_code, sent.headers["range"]) == (202, f"0-{start + 299}")
    status = await alice.get(location)
    assert (status.status_code, status.headers["range"]) == (204, "0-599")
    assert (await alice.head(location)).headers["range"] == "0-599"
    done = await alice.put(
        location,
        params={"digest": DIGEST},
        content=DATA[600:],
        headers={"content-range": f"600-{len(DATA) - 1}"},
    )
    assert done.status_code == 201
    assert await pulled(alice) == DATA


@pytest.mark.parametrize("start", [0, 299, 301, 5000])
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_out_of_order_is_416_and_the_upload_goes_on(
    alice: httpx.AsyncClient, method: str, start: int
) -> None:
    location = await begin(alice)
    await alice.patch(location, content=DATA[:300])
    refused = await alice.request(
        method,
        location,
        params={"digest": DIGEST},
        content=b"x" * 10,
        headers={"content-range": f"{start}-{start + 9}"},
    )
    assert (refused.status_code, code_of(refused)) == (416, "BLOB_UPLOAD_INVALID")
    assert refused.headers["range"] == "0-299"
    assert refused.headers["location"] == location
    assert (await alice.get(location)).headers["range"] == "0-299"
    done = await alice.put(location, params={"digest": DIGEST}, content=DATA[300:])
    assert done.status_code == 201
    assert await pulled(alice) == DATA


@pytest.mark.parametrize(
    ("value", "code"),
    [("abc", "BLOB_UPLOAD_INVALID"), ("9-0", "BLOB_UPLOAD_INVALID"), ("0-4", "SIZE_INVALID")],
)
async def test_a_content_range_that_cannot_be_true(
    alice: httpx.AsyncClient, value: str, code: str
) -> None:
    location = await begin(alice)
    refused = await alice.patch(location, content=b"0123456789", headers={"content-range": value})
    assert (refused.status_code, code_of(refused)) == (400, code)
    assert (await alice.get(location)).headers["range"] == "0-0"


async def test_a_chunked_body_of_another_length_than_its_range_leaves_nothing(
    alice: httpx.AsyncClient,
) -> None:
    async def body():  # type: ignore[no-untyped-def]
        yield b"0123"

    location = await begin(alice)
    refused = await alice.patch(location, content=body(), headers={"content-range": "0-99"})
    assert (refused.status_code, code_of(refused)) == (400, "SIZE_INVALID")
    assert (await alice.get(location)).headers["range"] == "0-0"
    assert (await alice.put(location, params={"digest": DIGEST}, content=DATA)).status_code == 201


@pytest.mark.parametrize("form", ["post", "put", "patch and put"])
@pytest.mark.parametrize(
    "digest",
    [
        str(Digest.of(b"something else")),
        str(Digest.of(b"something else", "sha512")),
        "sha256:totallywrong",
        "md5:d41d8cd98f00b204e9800998ecf8427e",
        "",
    ],
)
async def test_a_wrong_digest_is_400_and_nothing_is_stored(
    alice: httpx.AsyncClient, form: str, digest: str
) -> None:
    params = {"digest": digest}
    if form == "post":
        refused = await alice.post(UPLOADS, params=params, content=DATA)
    else:
        location = await begin(alice)
        if form != "put":
            await alice.patch(location, content=DATA)
        body = DATA if form == "put" else b""
        refused = await alice.put(location, params=params, content=body)
    assert (refused.status_code, code_of(refused)) == (400, "DIGEST_INVALID")
    assert (await alice.head(f"/v2/team/app/blobs/{DIGEST}")).status_code == 404


async def test_a_put_without_digest_is_400(alice: httpx.AsyncClient) -> None:
    refused = await alice.put(await begin(alice), content=DATA)
    assert (refused.status_code, code_of(refused)) == (400, "DIGEST_INVALID")


async def test_sha512_where_the_server_learns_it_only_at_the_end(alice: httpx.AsyncClient) -> None:
    digest = str(Digest.of(DATA, "sha512"))
    location = await begin(alice)
    await alice.patch(location, content=DATA[:500])
    done = await alice.put(location, params={"digest": digest}, content=DATA[500:])
    assert (done.status_code, done.headers["docker-content-digest"]) == (201, digest)
    assert await pulled(alice, digest) == DATA


async def test_sha512_announced_at_the_beginning(alice: httpx.AsyncClient) -> None:
    digest = str(Digest.of(DATA, "sha512"))
    location = await begin(alice, **{"digest-algorithm": "sha512"})
    await alice.patch(location, content=DATA)
    assert (await alice.put(location, params={"digest": digest})).status_code == 201
    assert await pulled(alice, digest) == DATA


async def test_an_unknown_algorithm_is_400(alice: httpx.AsyncClient) -> None:
    refused = await alice.post(UPLOADS, params={"digest-algorithm": "md5"})
    assert (refused.status_code, code_of(refused)) == (400, "DIGEST_INVALID")


async def test_the_empty_blob(alice: httpx.AsyncClient) -> None:
    digest = str(Digest.of(b""))
    assert (await alice.put(await begin(alice), params={"digest": digest})).status_code == 201
    assert await pulled(alice, digest) == b""


async def test_a_put_repeated_after_a_lost_answer_succeeds_again(alice: httpx.AsyncClient) -> None:
    location = await begin(alice)
    for _ in range(2):
        done = await alice.put(location, params={"digest": DIGEST}, content=DATA)
        assert done.status_code == 201
    other = await alice.put(location, params={"digest": str(Digest.of(b"other"))}, content=b"other")
    assert (other.status_code, code_of(other)) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_cancel(alice: httpx.AsyncClient) -> None:
    location = await begin(alice)
    assert (await alice.delete(location)).status_code == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        gone = await alice.request(method, location, params={"digest": DIGEST})
        assert (gone.status_code, code_of(gone)) == (404, "BLOB_UPLOAD_UNKNOWN")


async def test_mount_from_a_named_repository(alice: httpx.AsyncClient) -> None:
    await push_blob(alice, "team/other", DATA)
    done = await alice.post(UPLOADS, params={"mount": DIGEST, "from": "team/other"})
    assert done.status_code == 201
    assert done.headers["location"] == f"/v2/team/app/blobs/{DIGEST}"
    assert done.headers["docker-content-digest"] == DIGEST
    assert await pulled(alice) == DATA


async def test_mount_from_wherever_the_caller_may_read(alice: httpx.AsyncClient) -> None:
    await push_blob(alice, "team/other", DATA)
    assert (await alice.post(UPLOADS, params={"mount": DIGEST})).status_code == 201
    assert await pulled(alice) == DATA


@pytest.mark.parametrize("source", ["team/other", "no/such", "NOT A NAME", ""])
async def test_a_mount_of_what_is_not_there_begins_an_upload(
    alice: httpx.AsyncClient, source: str
) -> None:
    begun = await alice.post(UPLOADS, params={"mount": DIGEST, "from": source})
    assert begun.status_code == 202
    done = await alice.put(begun.headers["location"], params={"digest": DIGEST}, content=DATA)
    assert done.status_code == 201


async def test_a_blob_above_the_limit_is_413_and_the_rest_stays(start: Start) -> None:
    async with start(max_blob_bytes=1000) as registry:
        async with await registry.login("alice", "team/app") as alice:
            location = await begin(alice)
            await alice.patch(location, content=DATA[:600])
            refused = await alice.patch(location, content=b"x" * 401)
            assert (refused.status_code, code_of(refused)) == (413, "SIZE_INVALID")
            assert (await alice.get(location)).headers["range"] == "0-599"
            done = await alice.put(location, params={"digest": DIGEST}, content=DATA[600:])
            assert done.status_code == 201


async def test_an_upload_outlives_a_restart(start: Start) -> None:
    async with start() as registry, await registry.login("alice", "team/app") as alice:
        location = await begin(alice)
        await alice.patch(location, content=DATA[:700])
    async with start() as registry, await registry.login("alice", "team/app") as alice:
        assert (await alice.get(location)).headers["range"] == "0-699"
        done = await alice.put(location, params={"digest": DIGEST}, content=DATA[700:])
        assert done.status_code == 201
        assert await pulled(alice) == DATA


async def test_bytes_that_the_database_did_not_hear_of_count(
    registry: Registry, alice: httpx.AsyncClient
) -> None:
    """As after a kill in the middle of a chunk: the file is longer than the row says."""
    location = await begin(alice)
    await alice.patch(location, content=DATA[:100])
    file = registry.settings.data / "uploads" / location.rpartition("/")[2]
    with file.open("ab") as stored:
        stored.write(DATA[100:250])
    assert (await alice.get(location)).headers["range"] == "0-249"
    done = await alice.put(location, params={"digest": DIGEST}, content=DATA[250:])
    assert done.status_code == 201
    assert await pulled(alice) == DATA


async def test_an_upload_belongs_to_its_repository_and_its_subject(
    registry: Registry, alice: httpx.AsyncClient
) -> None:
    """CVE-2026-32589: any pusher could continue or cancel the uploads of others."""
    location = await begin(alice)
    upload = location.rpartition("/")[2]
    async with await registry.login("bob", "team/app") as bob:
        for client, path in (
            (bob, location),
            (alice, f"/v2/team/other/blobs/uploads/{upload}"),
        ):
            for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE"):
                answer = await client.request(method, path, params={"digest": DIGEST})
                assert answer.status_code == 404
    assert (await alice.get(location)).status_code == 204


@pytest.mark.parametrize("upload", ["x", "..", "%2e%2e", "a" * 300, "-" * 36, "..%2Fmetadata.db"])
async def test_ids_that_were_never_given_out(alice: httpx.AsyncClient, upload: str) -> None:
    for method in ("GET", "PATCH", "DELETE"):
        answer = await alice.request(method, UPLOADS + upload)
        assert answer.status_code in (404, 405)
