"""A PUT that failed between the blob's bytes and its rows, asked again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName
from registry.content.retries import Placed, PlacedUploads, size_hashed
from registry.content.uploads import SMALL, BlobUploads
from registry.errors import DatabaseFailed, RegistryError, StaleGeneration
from registry.metadata.base import PULL, PUSH, Access, Metadata
from registry.metadata.database import open_metadata
from registry.storage.base import StoreKey
from registry.storage.disk import DiskStorage
from registry.storage.errors import UploadUnknown
from tests.registry.content.test_uploads import body

ALICE = Access(RepositoryName("team/app"), "alice", frozenset({PULL, PUSH}))
BOB = Access(RepositoryName("team/app"), "bob", frozenset({PULL, PUSH}))
LARGE = bytes(range(256)) * (SMALL // 256 + 1)


@pytest.fixture
def metadata(tmp_path: Path) -> Iterator[Metadata]:
    metadata = open_metadata(tmp_path / "metadata.db")
    yield metadata
    metadata.close()


def broken(*args: object, **named: object) -> Any:
    raise DatabaseFailed("disk I/O error")


async def fail_after_placing(
    metadata: Metadata, storage: DiskStorage, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> tuple[BlobUploads, str]:
    """An upload whose bytes are a blob, and whose rows say it is still an upload."""
    uploads = BlobUploads(metadata, storage, max_blob_bytes=1 << 30)
    upload = (await uploads.begin(ALICE)).id
    await uploads.append(ALICE, upload, body(data), start=0, size=None)
    with monkeypatch.context() as failing:
        failing.setattr(type(metadata.uploads), "finish", broken)
        with pytest.raises(DatabaseFailed):
            await uploads.finish(ALICE, upload, Digest.of(data), None, start=None, size=None)
    assert await metadata.hot.blob(ALICE, Digest.of(data)) is None
    return uploads, upload


@pytest.mark.parametrize("data", [b"", b"small", LARGE], ids=["empty", "small", "large"])
async def test_the_same_process_finishes_it(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    storage = DiskStorage(str(tmp_path))
    uploads, upload = await fail_after_placing(metadata, storage, monkeypatch, data)
    for _ in range(2):
        blob = await uploads.finish(ALICE, upload, Digest.of(data), None, start=None, size=None)
        assert (blob.digest, blob.size) == (Digest.of(data), len(data))
    with storage.open(StoreKey.parse(blob.store_key)) as stored:
        assert stored.read_at(0, len(data) + 1) == data


async def test_another_process_finishes_it_on_the_word_of_the_saved_hash(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = DiskStorage(str(tmp_path))
    _, upload = await fail_after_placing(metadata, storage, monkeypatch, LARGE)
    other = BlobUploads(metadata, storage, max_blob_bytes=1 << 30)
    blob = await other.finish(ALICE, upload, Digest.of(LARGE), None, start=None, size=None)
    assert blob.size == len(LARGE)


async def test_attack_an_upload_does_not_finish_as_what_it_did_not_bring(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Knowing the digest of bytes that wait for their row must not be enough to get them."""
    storage = DiskStorage(str(tmp_path))
    uploads, upload = await fail_after_placing(metadata, storage, monkeypatch, LARGE)
    _, small = await fail_after_placing(metadata, storage, monkeypatch, b"small")
    for access, mine in ((BOB, upload), (ALICE, small)):
        with pytest.raises(RegistryError):
            await uploads.finish(access, mine, Digest.of(LARGE), None, start=None, size=None)
    begun = await uploads.begin(BOB)
    storage.abort(begun.id)
    with pytest.raises(UploadUnknown):
        await uploads.finish(BOB, begun.id, Digest.of(LARGE), None, start=None, size=None)
    assert await metadata.hot.blob(BOB, Digest.of(LARGE)) is None


async def test_bytes_that_were_swept_meanwhile_are_not_promised(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = DiskStorage(str(tmp_path))
    uploads, upload = await fail_after_placing(metadata, storage, monkeypatch, LARGE)
    assert storage.remove(StoreKey(Digest.of(LARGE)))
    with pytest.raises(UploadUnknown):
        await uploads.finish(ALICE, upload, Digest.of(LARGE), None, start=None, size=None)


async def test_the_slower_of_two_equal_puts_succeeds_too(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that gave up waiting and asks again, while the first request is still at work."""
    uploads = BlobUploads(metadata, DiskStorage(str(tmp_path)), max_blob_bytes=1 << 30)
    upload = (await uploads.begin(ALICE)).id
    await uploads.append(ALICE, upload, body(LARGE), start=0, size=None)
    finish = type(metadata.uploads).finish

    async def after_the_other(*args: Any, **named: Any) -> Any:
        await finish(*args, **named)
        return await finish(*args, **named)

    monkeypatch.setattr(type(metadata.uploads), "finish", after_the_other)
    blob = await uploads.finish(ALICE, upload, Digest.of(LARGE), None, start=None, size=None)
    assert blob.digest == Digest.of(LARGE)


async def test_bytes_of_an_old_generation_are_not_offered_for_ever(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Placed, then the digest was doomed: one 503, then the client is told to begin anew."""
    storage = DiskStorage(str(tmp_path))
    digest = Digest.of(LARGE)
    uploads, upload = await fail_after_placing(metadata, storage, monkeypatch, LARGE)
    await metadata.blobs.add(BOB, digest, len(LARGE), store_key="blobs/x", generation=0)
    with closing(sqlite3.connect(tmp_path / "metadata.db")) as database:
        database.execute("DELETE FROM repository_blob")
        database.execute("UPDATE blob SET state = 'doomed', generation = 1")
        database.commit()
    with pytest.raises(StaleGeneration):
        await uploads.finish(ALICE, upload, digest, None, start=None, size=None)
    with pytest.raises(UploadUnknown):
        await uploads.finish(ALICE, upload, digest, None, start=None, size=None)
    anew = (await uploads.begin(ALICE)).id
    blob = await uploads.finish(ALICE, anew, digest, body(LARGE), start=0, size=None)
    assert blob.store_key == str(StoreKey(digest, 1))


async def test_a_broken_saved_hash_proves_nothing(
    tmp_path: Path, metadata: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, upload = await fail_after_placing(metadata, DiskStorage(str(tmp_path)), monkeypatch, LARGE)
    record = await metadata.hot.upload(ALICE, upload)
    assert record is not None
    assert size_hashed(record, Digest.of(LARGE)) == len(LARGE)
    assert size_hashed(record, Digest.of(LARGE, "sha512")) is None
    broken_record = type(record)(
        **{name: getattr(record, name) for name in record.__slots__} | {"hash_state": b"\x01\x09x"}
    )
    assert size_hashed(broken_record, Digest.of(LARGE)) is None


def test_what_was_placed_is_remembered_within_bounds() -> None:
    placed = Placed(Digest.of(b"x"), 1, StoreKey(Digest.of(b"x")), 0)
    uploads = PlacedUploads(remembered=10)
    for number in range(100):
        uploads.add(str(number), placed)
    found = [number for number in range(100) if uploads.find(str(number), placed.digest)]
    assert found == list(range(90, 100))
    assert uploads.find("99", Digest.of(b"y")) is None
