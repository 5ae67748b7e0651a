"""The collector's transactions, on both databases, with a clock that only tests move."""

from __future__ import annotations

from typing import Any

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import ManifestBlobUnknown
from registry.metadata import tables
from registry.metadata.upkeep import StoredObject, StoredRow
from tests.registry.metadata.conftest import DAY, HOUR, manifest


async def collect(registry: Any) -> tuple[int, int]:
    """Run until nothing is due: manifests and blobs removed."""
    manifests = blobs = 0
    while True:
        one = await registry.metadata.collection.review_manifests()
        two = await registry.metadata.collection.review_blobs()
        manifests += one.removed
        blobs += two.removed
        if not one.looked and not two.looked:
            return manifests, blobs


async def there(registry: Any, digest: Digest, name: str = "team/app") -> bool:
    return await registry.hot.manifest_by_digest(registry.access(name), digest) is not None


async def test_an_untagged_image_goes_with_its_blobs_and_a_tagged_one_stays(registry):
    loose = await registry.image(b"loose", layers=(b"one", b"shared"))
    kept = await registry.image(b"kept", "v1", layers=(b"two", b"shared"))
    registry.clock.now += DAY - 1
    assert await collect(registry) == (0, 0)
    registry.clock.now += 2
    assert await collect(registry) == (1, 0), "its blobs have another day from now"
    assert not await there(registry, loose.digest)
    registry.clock.now += DAY + 1
    assert await collect(registry) == (0, 1)
    access = registry.access()
    assert await registry.hot.blob(access, Digest.of(b"one")) is None
    assert await registry.hot.blob(access, Digest.of(b"shared")) is not None
    assert await there(registry, kept.digest)
    assert ("manifest.removed", str(loose.digest), "") in await registry.events()


async def test_a_moved_tag_leaves_its_image_a_grace_from_then_on(registry):
    old = await registry.image(b"old", "v1")
    registry.clock.now += 100 * DAY
    await registry.image(b"new", "v1")
    assert await collect(registry) == (0, 0)
    registry.clock.now += DAY - 1
    assert await collect(registry) == (0, 0)
    registry.clock.now += 2
    assert await collect(registry) == (1, 0)
    assert not await there(registry, old.digest)


async def test_children_and_referrers_go_after_what_kept_them(registry):
    child = await registry.image(b"child")
    index = manifest(b"index", children=(child.digest,))
    await registry.metadata.manifests.put(registry.access(), index, tags=(Tag("v1"),))
    signature = manifest(b"signature", subject=index.digest)
    await registry.metadata.manifests.put(registry.access(), signature)
    registry.clock.now += 40 * DAY
    assert await collect(registry) == (0, 0)
    await registry.metadata.tags.remove(registry.access(), Tag("v1"))
    registry.clock.now += DAY + 1
    assert await collect(registry) == (3, 0)
    for each in (child, index, signature):
        assert not await there(registry, each.digest)


async def test_a_child_that_is_due_together_with_its_index_is_not_forgotten(registry):
    child = await registry.image(b"child")
    index = manifest(b"index", children=(child.digest,))
    await registry.metadata.manifests.put(registry.access(), index)
    registry.clock.now += DAY + 1
    assert await collect(registry) == (2, 0)


async def test_a_second_push_of_an_untagged_manifest_gives_it_another_grace(registry):
    new = await registry.image(b"again")
    registry.clock.now += DAY - 1
    await registry.image(b"again")
    registry.clock.now += HOUR
    assert await collect(registry) == (0, 0)
    assert await there(registry, new.digest)


async def test_a_pull_counts_as_use(registry):
    new = await registry.image(b"pulled")
    registry.clock.now += DAY - 10

    def pull(tx: Any) -> None:
        tx.connection.execute(tables.manifest.update().values(pulled_at=tx.now))

    await registry.database.write(pull)
    registry.clock.now += HOUR
    assert await collect(registry) == (0, 0)
    assert (await registry.queued())["manifest", str(new.digest)][1] == DAY - HOUR


async def test_a_doomed_blob_comes_back_under_another_key(registry):
    await registry.blob(b"layer")
    registry.clock.now += DAY + 1
    assert await collect(registry) == (0, 1)
    (doomed,) = await registry.metadata.collection.objects_to_sweep(delay_s=0)
    record = await registry.blob(b"layer")
    assert (record.generation, record.store_key) == (1, f"{Digest.of(b'layer')}.1")
    assert doomed.store_key != record.store_key
    assert await registry.metadata.collection.swept([doomed]) == 5
    assert await registry.metadata.collection.swept([doomed]) == 0, "counted once"


async def test_a_look_that_came_too_late_says_so(registry):
    """R2: a HEAD that renews the lease of a blob the collector has just doomed."""
    digest = (await registry.blob(b"layer")).digest
    registry.clock.now += DAY - 1
    assert await registry.metadata.blobs.extend_lease(registry.access(), digest)
    registry.clock.now += HOUR
    assert await collect(registry) == (0, 0)
    registry.clock.now += DAY
    assert await collect(registry) == (0, 1)
    assert not await registry.metadata.blobs.extend_lease(registry.access(), digest)


async def test_a_lost_blob_is_not_there_and_the_next_push_heals_all_its_images(registry):
    layer = b"layer"
    new = await registry.image(b"image", "v1", layers=(layer,))
    await registry.image(b"image", "v1", layers=(layer,), name="other/app")
    (row,) = await registry.metadata.upkeep.live_rows(after="", limit=10)
    assert await registry.metadata.upkeep.lose(row, reason="rotten")
    assert not await registry.metadata.upkeep.lose(row, reason="rotten")
    digest = Digest.of(layer)
    for name in ("team/app", "other/app"):
        assert await registry.hot.blob(registry.access(name), digest) is None
    with pytest.raises(ManifestBlobUnknown):
        await registry.metadata.manifests.put(
            registry.access(), manifest(b"another", layers=(layer,))
        )
    await registry.blob(layer)
    for name in ("team/app", "other/app"):
        found = await registry.hot.blob(registry.access(name), digest)
        assert found is not None
        assert found.generation == 1
    registry.clock.now += 3 * DAY
    assert await collect(registry) == (0, 0), "the images still use it"
    assert (await registry.row(layer)).unreferenced_since is None
    assert await there(registry, new.digest)


async def test_unknown_bytes_can_never_become_a_blob_once_they_are_to_be_swept(registry):
    content = b"crashed between rename and row"
    digest = Digest.of(content)
    key = f"blobs/sha256/{digest.encoded[:2]}/{digest.encoded}"
    assert await registry.metadata.upkeep.doom_unknown([StoredObject(key, 30)]) == 1
    assert await registry.metadata.upkeep.doom_unknown([StoredObject(key, 30)]) == 0
    placement = await registry.hot.placement(registry.access(), digest)
    assert (placement.generation, placement.present) == (1, None)


async def test_bytes_of_a_live_blob_or_of_a_running_upload_are_not_unknown(registry):
    upload = await registry.metadata.uploads.begin(registry.access())
    digest = Digest.of(b"live")
    key = f"blobs/sha256/{digest.encoded[:2]}/{digest.encoded}"
    await registry.metadata.blobs.add(registry.access(), digest, 4, store_key=key, generation=0)
    objects = [StoredObject(key, 4), StoredObject(f"blobs/upload/{upload.id}", 9)]
    assert await registry.metadata.upkeep.doom_unknown(objects) == 0


async def test_one_holder_of_a_task_at_a_time(registry):
    upkeep = registry.metadata.upkeep
    assert await upkeep.claim("audit", "a", for_s=60) == ""
    assert await upkeep.claim("audit", "b", for_s=60) is None
    assert await upkeep.progress("audit", "a", "half", for_s=60)
    registry.clock.now += 61
    assert await upkeep.claim("audit", "b", for_s=60) == "half"
    assert not await upkeep.progress("audit", "a", "more", for_s=60)
    await upkeep.finish("audit", "b", again_in_s=DAY)
    assert await upkeep.claim("audit", "a", for_s=60) is None
    registry.clock.now += DAY
    assert await upkeep.claim("audit", "a", for_s=60) == ""


async def test_a_pause_outlives_processes_and_ends_by_itself(registry):
    upkeep = registry.metadata.upkeep
    assert await upkeep.paused() is None
    await upkeep.pause(by="omri", until=int(registry.clock.now) + 60)
    paused = await upkeep.paused()
    assert paused is not None
    assert paused.by == "omri"
    registry.clock.now += 61
    assert await upkeep.paused() is None
    await upkeep.pause(by="omri")
    await upkeep.resume()
    assert await upkeep.paused() is None


async def test_empty_repositories_go_and_others_stay(registry):
    await registry.image(b"image", "v1", name="full")
    upload = await registry.metadata.uploads.begin(registry.access("abandoned"))
    prune = registry.metadata.upkeep.prune_repositories
    registry.clock.now += 31 * DAY
    assert await prune(after=0, older_than_s=30 * DAY) == (0, 0)
    await registry.metadata.uploads.reap()
    assert upload.id
    assert await prune(after=0, older_than_s=30 * DAY) == (1, 0)
    assert await registry.hot.repository(registry.access("abandoned")) is None
    assert await registry.hot.repository(registry.access("full")) is not None


async def test_a_verified_blob_says_when(registry):
    record = await registry.blob(b"layer")
    await registry.metadata.upkeep.verified([str(record.digest)])
    (row,) = await registry.metadata.upkeep.live_rows(after="", limit=10)
    assert isinstance(row, StoredRow)
    assert row.verified_at == int(registry.clock.now)
