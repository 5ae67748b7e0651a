"""The whole application with its blobs in a real S3 service."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocispec.digest import Digest
from registry.content import hashing, session, uploads
from registry.errors import DatabaseBusy
from registry.metadata.uploads import SqlUploads
from tests.builders.faulty import FOR_EVER, Fault, FaultyProxy, faulty_proxy
from tests.builders.s3 import ACCESS_KEY, SECRET_KEY, S3Service, s3_service
from tests.builders.servers import PASSWORD, USER, Server, start_pyreg
from tests.registry.api.conftest import Registry, code_of, push_blob, push_image, started

UPLOADS = "/v2/team/app/blobs/uploads/"
MIB = 1 << 20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    with s3_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def bucket(service: S3Service) -> str:
    return service.make_bucket()


@pytest.fixture
def given(service: S3Service, bucket: str) -> dict[str, Any]:
    return dict(service.settings(bucket))


@pytest.fixture
async def registry(tmp_path: Path, given: dict[str, Any]) -> AsyncIterator[Registry]:
    async with started(tmp_path, **given) as running:
        yield running


@pytest.fixture
def proxy(service: S3Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    monkeypatch.setattr("registry.storage.s3.bucket.ATTEMPTS", 2)
    with faulty_proxy(service.port) as proxy:
        yield proxy


def objects(service: S3Service, bucket: str) -> list[str]:
    client = service.client()
    try:
        return [o["Key"] for o in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    finally:
        client.close()


def remove_object(service: S3Service, bucket: str, key: str) -> None:
    client = service.client()
    client.delete_object(Bucket=bucket, Key=key)
    client.close()


async def test_an_image_goes_in_and_comes_out(
    registry: Registry, alice: httpx.AsyncClient, service: S3Service, bucket: str
) -> None:
    await push_image(alice, "team/app", "1")
    large = os.urandom(MIB) * 40
    digest = await push_blob(alice, "team/app", large)
    got = await alice.get(f"/v2/team/app/blobs/{digest}")
    assert got.status_code == 200
    assert got.content == large
    part = await alice.get(
        f"/v2/team/app/blobs/{digest}", headers={"range": "bytes=20000000-20000099"}
    )
    assert (part.status_code, part.content) == (206, large[20000000:20000100])
    empty = await push_blob(alice, "team/app", b"")
    assert (await alice.get(f"/v2/team/app/blobs/{empty}")).content == b""
    found = objects(service, bucket)
    assert len([key for key in found if key.startswith("blobs/upload/")]) == 1
    assert len([key for key in found if key.startswith("blobs/sha256/")]) == 3
    assert not [key for key in found if key.startswith("uploads/")]


@pytest.mark.parametrize("size", [100, 20 * MIB])
async def test_sha512_that_nobody_announced(alice: httpx.AsyncClient, size: int) -> None:
    data = os.urandom(size)
    digest = str(Digest.of(data, "sha512"))
    begun = await alice.post(UPLOADS)
    sent = await alice.patch(begun.headers["location"], content=data)
    wrong = str(Digest.of(b"other", "sha512"))
    refused = await alice.put(sent.headers["location"], params={"digest": wrong})
    assert refused.status_code == 400
    assert code_of(refused) == "DIGEST_INVALID"
    begun = await alice.post(UPLOADS)
    sent = await alice.patch(begun.headers["location"], content=data)
    done = await alice.put(sent.headers["location"], params={"digest": digest})
    assert done.status_code == 201
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data
    assert (await alice.get(f"/v2/team/app/blobs/{wrong}")).status_code == 404


@pytest.mark.parametrize("size", [100, 20 * MIB])
async def test_wrong_bytes_leave_nothing(
    alice: httpx.AsyncClient, service: S3Service, bucket: str, size: int
) -> None:
    data = os.urandom(size)
    for algorithm in ("sha256", "sha512"):
        begun = await alice.post(UPLOADS)
        sent = await alice.patch(begun.headers["location"], content=data)
        wrong = str(Digest.of(b"other", algorithm))
        refused = await alice.put(sent.headers["location"], params={"digest": wrong})
        assert refused.status_code == 400
    refused = await alice.post(UPLOADS, params={"digest": wrong}, content=data)
    assert refused.status_code == 400
    assert objects(service, bucket) == []


async def test_a_machine_that_cannot_save_a_hash(
    alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the finished object is read and proven before anybody sees it."""
    monkeypatch.setattr(hashing, "_library", None)
    data = os.urandom(MIB) * 18
    begun = await alice.post(UPLOADS)
    first = await alice.patch(begun.headers["location"], content=data[:MIB])
    second = await alice.patch(first.headers["location"], content=data[MIB:])
    digest = str(Digest.of(data))
    done = await alice.put(second.headers["location"], params={"digest": digest})
    assert done.status_code == 201
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data


async def test_replicas_continue_each_others_uploads(tmp_path: Path, given: dict[str, Any]) -> None:
    """Two applications on one database and one bucket, each its own directory for spools."""
    data = os.urandom(MIB) * 45
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(started(tmp_path, **given))
        second = await stack.enter_async_context(started(tmp_path, **given))
        clients = [
            await stack.enter_async_context(await each.login("alice", "team/app"))
            for each in (first, second)
        ]
        location = (await clients[0].post(UPLOADS)).headers["location"]
        for number, start in enumerate(range(0, len(data), 15 * MIB)):
            sent = await clients[number % 2].patch(location, content=data[start : start + 15 * MIB])
            assert sent.status_code == 202
            status = await clients[(number + 1) % 2].get(location)
            assert status.headers["range"] == f"0-{start + 15 * MIB - 1}"
        digest = str(Digest.of(data))
        done = await clients[1].put(location, params={"digest": digest})
        assert done.status_code == 201
        assert (await clients[0].get(f"/v2/team/app/blobs/{digest}")).content == data


async def test_two_requests_race_for_one_upload(tmp_path: Path, given: dict[str, Any]) -> None:
    """On two replicas, from the same offset: one is told 409 or 416, and the blob is of one."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(started(tmp_path, **given))
        second = await stack.enter_async_context(started(tmp_path, **given))
        clients = [
            await stack.enter_async_context(await each.login("alice", "team/app"))
            for each in (first, second)
        ]
        for size in (1000, 20 * MIB):
            contents = [bytes([number]) * size for number in (1, 2)]
            location = (await clients[0].post(UPLOADS)).headers["location"]
            answers = await asyncio.gather(
                *(
                    client.patch(location, content=content)
                    for client, content in zip(clients, contents, strict=True)
                )
            )
            statuses = [answer.status_code for answer in answers]
            # One after the other is fine as well: then both are in.
            assert statuses.count(202) >= 1
            assert set(statuses) <= {202, 409, 416}
            if statuses.count(202) == 2:
                expected = [contents[0] + contents[1], contents[1] + contents[0]]
            else:
                expected = [contents[statuses.index(202)]]
            results = []
            for data in expected:
                done = await clients[0].put(location, params={"digest": str(Digest.of(data))})
                results.append(done.status_code)
                if done.status_code == 201:
                    got = await clients[1].get(f"/v2/team/app/blobs/{Digest.of(data)}")
                    assert got.content == data
                    break
            assert 201 in results or len(expected) == 2


@pytest.mark.parametrize("size", [1000, 20 * MIB])
async def test_a_final_put_whose_row_failed_is_repeated(
    alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    data = os.urandom(size)
    digest = str(Digest.of(data))
    begun = await alice.post(UPLOADS)
    sent = await alice.patch(begun.headers["location"], content=data)

    async def busy(*_: object, **__: object) -> None:
        raise DatabaseBusy(1.0)

    with monkeypatch.context() as patch:
        patch.setattr(SqlUploads, "finish", busy)
        failed = await alice.put(sent.headers["location"], params={"digest": digest})
        assert failed.status_code == 503
    done = await alice.put(sent.headers["location"], params={"digest": digest})
    assert done.status_code == 201
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data


async def test_attack_a_wrong_digest_does_not_take_away_the_bytes_of_a_right_one(
    alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two last PUTs of one upload: while the wrong one is being hashed the right one succeeds."""
    data = os.urandom(20 * MIB)
    right, wrong = str(Digest.of(data)), str(Digest.of(b"other", "sha512"))
    begun = await alice.post(UPLOADS)
    sent = await alice.patch(begun.headers["location"], content=data)
    loop = asyncio.get_running_loop()
    hash_blob = session.hash_blob

    def while_another_finishes(*args: Any) -> Digest:
        found = hash_blob(*args)
        put = alice.put(sent.headers["location"], params={"digest": right})
        done = asyncio.run_coroutine_threadsafe(put, loop).result(60)
        assert done.status_code == 201
        return found

    monkeypatch.setattr(uploads, "hash_blob", while_another_finishes)
    refused = await alice.put(sent.headers["location"], params={"digest": wrong})
    assert refused.status_code == 400
    assert (await alice.get(f"/v2/team/app/blobs/{right}")).content == data


async def test_the_same_blob_again_leaves_one_object(
    alice: httpx.AsyncClient, service: S3Service, bucket: str
) -> None:
    data = os.urandom(MIB) * 20
    for _ in range(2):
        digest = await push_blob(alice, "team/app", data)
        assert len(objects(service, bucket)) == 1
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data


@pytest.mark.parametrize("again", ["in pieces", "at once"])
async def test_a_lost_large_blob_heals_with_the_next_push(
    alice: httpx.AsyncClient, service: S3Service, bucket: str, again: str
) -> None:
    """Its object has a name of its own, and so has the new one: the row must follow."""
    data = os.urandom(MIB) * 20
    digest = await push_blob(alice, "team/app", data)
    [lost] = objects(service, bucket)
    remove_object(service, bucket, lost)
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).status_code == 404
    if again == "in pieces":
        await push_blob(alice, "team/app", data)
    else:
        done = await alice.post(UPLOADS, params={"digest": digest}, content=data)
        assert done.status_code == 201
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data
    assert len(objects(service, bucket)) == 1


# ---- when S3 fails


async def test_an_upload_fails_cleanly_and_goes_on_later(
    tmp_path: Path, given: dict[str, Any], proxy: FaultyProxy
) -> None:
    data = os.urandom(MIB) * 20
    digest = str(Digest.of(data))
    async with started(tmp_path, **{**given, "s3_endpoint": proxy.endpoint}) as registry:
        async with await registry.login("alice", "team/app") as alice:
            location = (await alice.post(UPLOADS)).headers["location"]
            proxy.fail(Fault.SLOW_DOWN, "PUT", times=FOR_EVER)
            failed = await alice.patch(location, content=data)
            assert failed.status_code == 503
            assert failed.headers["retry-after"]
            assert code_of(failed) == "UNAVAILABLE"
            for secret in (SECRET_KEY, ACCESS_KEY, str(proxy.port)):
                assert secret not in failed.text
            assert (await alice.get(location)).headers["range"] == "0-0"
            proxy.heal()
            assert (await alice.patch(location, content=data)).status_code == 202
            proxy.fail(Fault.RESET, "POST", times=FOR_EVER)
            assert (await alice.put(location, params={"digest": digest})).status_code == 503
            proxy.heal()
            assert (await alice.put(location, params={"digest": digest})).status_code == 201
            assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data


async def test_a_download_never_ends_as_if_it_were_whole(
    tmp_path: Path, given: dict[str, Any], proxy: FaultyProxy
) -> None:
    data = os.urandom(MIB) * 4
    async with started(tmp_path, **{**given, "s3_endpoint": proxy.endpoint}) as registry:
        async with await registry.login("alice", "team/app") as alice:
            digest = await push_blob(alice, "team/app", data)
            proxy.fail(Fault.CUT_ANSWER, "GET", "/blobs/", times=2)
            assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == data
            proxy.fail(Fault.SLOW_DOWN, "GET", "/blobs/", times=FOR_EVER)
            failed = await alice.get(f"/v2/team/app/blobs/{digest}")
            assert failed.status_code == 503


async def test_bytes_that_are_gone_are_told_before_the_answer(
    alice: httpx.AsyncClient,
    service: S3Service,
    bucket: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    digest = await push_blob(alice, "team/app", b"bytes")
    [key] = objects(service, bucket)
    remove_object(service, bucket, key)
    with caplog.at_level(logging.ERROR):
        answer = await alice.get(f"/v2/team/app/blobs/{digest}")
    assert answer.status_code == 404
    assert code_of(answer) == "BLOB_UNKNOWN"
    assert "no stored bytes" in caplog.text
    await push_blob(alice, "team/app", b"bytes")
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == b"bytes"


async def test_readiness_tells_of_the_bucket(
    tmp_path: Path, given: dict[str, Any], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.storage.s3.bucket.PROBE_EVERY_S", 0)
    monkeypatch.setattr("registry.api.health.REMEMBER_S", 0)
    async with started(tmp_path, **{**given, "s3_endpoint": proxy.endpoint}) as registry:
        assert (await registry.anonymous.get("/readyz")).status_code == 200
        proxy.fail(Fault.RESET, "HEAD", times=FOR_EVER)
        assert (await registry.anonymous.get("/readyz")).status_code == 503
        assert (await registry.anonymous.get("/livez")).status_code == 200
        proxy.heal()
        assert (await registry.anonymous.get("/readyz")).status_code == 200


# ---- redirects


async def test_reading_from_s3_itself(tmp_path: Path, given: dict[str, Any]) -> None:
    data = os.urandom(1000)
    async with started(tmp_path, **given, s3_redirect=True) as registry:
        async with await registry.login("alice", "team/app") as alice:
            digest = await push_blob(alice, "team/app", data)
            answer = await alice.get(f"/v2/team/app/blobs/{digest}")
            assert answer.status_code == 307
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["docker-content-digest"] == digest
            url = answer.headers["location"]
            assert SECRET_KEY not in url
            assert (await alice.get(f"/v2/team/app/blobs/{digest}")).headers["location"] == url
            head = await alice.head(f"/v2/team/app/blobs/{digest}")
            assert (head.status_code, head.headers["content-length"]) == (200, "1000")
            async with httpx.AsyncClient() as elsewhere:
                assert (await elsewhere.get(url)).content == data
                part = await elsewhere.get(url, headers={"range": "bytes=10-19"})
                assert part.content == data[10:20]
            unknown = await alice.get(f"/v2/team/app/blobs/{Digest.of(b'unknown')}")
            assert unknown.status_code == 404
            denied = await registry.anonymous.get(f"/v2/team/app/blobs/{digest}")
            assert denied.status_code == 401
            assert "location" not in denied.headers


async def test_without_the_option_nobody_is_sent_elsewhere(alice: httpx.AsyncClient) -> None:
    digest = await push_blob(alice, "team/app", b"bytes")
    answer = await alice.get(f"/v2/team/app/blobs/{digest}")
    assert (answer.status_code, answer.content) == (200, b"bytes")


# ---- a real server


@pytest.fixture
def server(tmp_path: Path, service: S3Service, bucket: str, proxy: FaultyProxy) -> Iterator[Server]:
    running = start_pyreg(
        tmp_path / "data", environment=service.environment(bucket, proxy.endpoint)
    )
    yield running
    running.stop()
    log = running.log.read_text()
    for secret in (SECRET_KEY, ACCESS_KEY):
        assert secret not in log


def push_over_http(server: Server, data: bytes) -> str:
    digest = str(Digest.of(data))
    with httpx.Client(base_url=f"http://{server.host}", auth=(USER, PASSWORD)) as client:
        done = client.post(UPLOADS, params={"digest": digest}, content=data, timeout=60)
        assert done.status_code == 201, done.text
    return f"/v2/team/app/blobs/{digest}"


def test_a_body_that_breaks_is_shorter_than_announced(server: Server, proxy: FaultyProxy) -> None:
    path = push_over_http(server, os.urandom(8 * MIB))
    proxy.fail(Fault.CUT_ANSWER, "GET", "/blobs/")
    proxy.fail(Fault.RESET, "GET", "/blobs/", times=FOR_EVER)
    with httpx.Client(base_url=f"http://{server.host}", auth=(USER, PASSWORD)) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message"):
            client.get(path, timeout=60)
        proxy.heal()
        assert len(client.get(path).content) == 8 * MIB
    assert "storage failed for blobs/" in server.log.read_text()


def test_a_client_that_leaves_ends_the_stream_from_s3(server: Server, proxy: FaultyProxy) -> None:
    path = push_over_http(server, os.urandom(MIB) * 256)
    with httpx.Client(base_url=f"http://{server.host}", auth=(USER, PASSWORD)) as client:
        with client.stream("GET", path) as answer:
            next(answer.iter_raw(1000))
        deadline = time.monotonic() + 20
        while proxy.open_answers and time.monotonic() < deadline:
            time.sleep(0.05)
        assert proxy.open_answers == 0
        assert proxy.carried < 200 * MIB


def test_the_bucket_is_reached_again_after_it_was_away(server: Server, proxy: FaultyProxy) -> None:
    path = push_over_http(server, b"bytes")
    proxy.fail(Fault.RESET, "GET", times=FOR_EVER)
    with httpx.Client(base_url=f"http://{server.host}", auth=(USER, PASSWORD)) as client:
        failed = client.get(path, timeout=60)
        assert failed.status_code == 503
        assert failed.headers["retry-after"]
        proxy.heal()
        assert client.get(path).content == b"bytes"
