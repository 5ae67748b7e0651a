"""Uploads survive processes, belong to one repository and subject, and end once."""

from __future__ import annotations

import uuid

import pytest

from ocispec.digest import Digest
from registry.errors import Denied, RangeMismatch, StaleGeneration, UploadUnknown
from registry.metadata.base import PULL

WEEK = 7 * 24 * 3600


async def test_begin_creates_the_repository_and_an_upload_at_zero(registry):
    access = registry.access()
    assert await registry.hot.repository(access) is None
    upload = await registry.metadata.uploads.begin(access, algorithm="sha512", store_state="s")
    assert await registry.hot.repository(access) is not None
    assert (upload.offset, upload.algorithm, upload.store_state) == (0, "sha512", "s")
    assert uuid.UUID(upload.id)
    assert await registry.hot.upload(access, upload.id) == upload


async def test_advance_moves_the_offset_and_renews_the_expiry(registry):
    access = registry.access()
    upload = await registry.metadata.uploads.begin(access, store_state="first")
    registry.clock.sleep(WEEK - 1)
    moved = await registry.metadata.uploads.advance(
        access, upload.id, start=0, offset=10, hash_state=b"h"
    )
    assert (moved.offset, moved.hash_state, moved.store_state) == (10, b"h", "first")
    assert moved.expires_at == upload.expires_at + WEEK - 1
    assert await registry.hot.upload(access, upload.id) == moved


@pytest.mark.parametrize("start", [0, 9, 11], ids=["repeats", "overlaps", "leaves a gap"])
async def test_a_chunk_that_does_not_fit_changes_nothing(registry, start):
    access = registry.access()
    upload = await registry.metadata.uploads.begin(access)
    before = await registry.metadata.uploads.advance(access, upload.id, start=0, offset=10)
    with pytest.raises(RangeMismatch) as caught:
        await registry.metadata.uploads.advance(access, upload.id, start=start, offset=20)
    assert (caught.value.expected, caught.value.found) == (10, start)
    assert await registry.hot.upload(access, upload.id) == before


async def test_finish_gives_the_repository_the_blob_and_ends_the_upload(registry):
    access = registry.access()
    digest = Digest.of(b"layer")
    upload = await registry.metadata.uploads.begin(access)
    record = await registry.metadata.uploads.finish(
        access, upload.id, digest, 5, store_key="key", generation=0
    )
    assert await registry.hot.blob(access, digest) == record
    assert (record.size, record.store_key, record.state) == (5, "key", "live")
    assert await registry.hot.upload(access, upload.id) is None
    with pytest.raises(UploadUnknown):
        await registry.metadata.uploads.finish(
            access, upload.id, digest, 5, store_key="key", generation=0
        )


async def test_finish_with_swept_bytes_keeps_the_upload(registry):
    access = registry.access()
    await registry.blob(b"layer")
    await registry.doom(Digest.of(b"layer"))
    upload = await registry.metadata.uploads.begin(access)
    with pytest.raises(StaleGeneration) as caught:
        await registry.metadata.uploads.finish(
            access, upload.id, Digest.of(b"layer"), 5, store_key="old", generation=0
        )
    assert caught.value.generation == 1
    assert await registry.hot.upload(access, upload.id) is not None
    assert await registry.hot.blob(access, Digest.of(b"layer")) is None


async def test_cancel_ends_it(registry):
    access = registry.access()
    upload = await registry.metadata.uploads.begin(access)
    assert await registry.metadata.uploads.cancel(access, upload.id) == upload
    with pytest.raises(UploadUnknown):
        await registry.metadata.uploads.cancel(access, upload.id)


@pytest.mark.parametrize(
    ("name", "subject"),
    [("team/other", "omri"), ("team/app", "mallory"), ("team/app", "")],
    ids=["another repository", "another user", "nobody"],
)
async def test_cve_2026_32589_upload_of_somebody_else_does_not_exist(registry, name, subject):
    upload = await registry.metadata.uploads.begin(registry.access())
    await registry.metadata.uploads.begin(registry.access("team/other"))
    thief = registry.access(name, subject)
    assert await registry.hot.upload(thief, upload.id) is None
    uploads = registry.metadata.uploads
    for attempt in (
        uploads.advance(thief, upload.id, start=0, offset=1),
        uploads.finish(thief, upload.id, Digest.of(b""), 0, store_key="k", generation=0),
        uploads.cancel(thief, upload.id),
    ):
        with pytest.raises(UploadUnknown):
            await attempt
    assert await registry.hot.upload(registry.access(), upload.id) == upload


async def test_an_upload_expires_and_is_reaped_once(registry):
    access = registry.access()
    old = await registry.metadata.uploads.begin(access, store_state="where")
    registry.clock.sleep(WEEK - 10)
    young = await registry.metadata.uploads.begin(access)
    registry.clock.sleep(10)
    assert await registry.hot.upload(access, old.id) is None
    with pytest.raises(UploadUnknown):
        await registry.metadata.uploads.advance(access, old.id, start=0, offset=1)
    reaped = await registry.metadata.uploads.reap()
    assert [(each.id, each.store_state) for each in reaped] == [(old.id, "where")]
    assert await registry.metadata.uploads.reap() == ()
    assert await registry.hot.upload(access, young.id) == young


async def test_pull_rights_do_not_upload(registry):
    with pytest.raises(Denied):
        await registry.metadata.uploads.begin(registry.access("team/app", "omri", PULL))
    assert await registry.hot.repository(registry.access()) is None


@pytest.mark.parametrize("odd", ["", "\x00", "\udc80", "é", "x" * 100_000, "../../etc/passwd"])
async def test_odd_ids_do_not_exist(registry, odd):
    assert await registry.hot.upload(registry.access(), odd) is None
    with pytest.raises(UploadUnknown):
        await registry.metadata.uploads.cancel(registry.access(), odd)
