"""A blob exists for a caller as one membership of one live row."""

from __future__ import annotations

import pytest

from ocispec.digest import Digest
from registry.errors import BlobReferenced, BlobUnknown, Denied, StaleGeneration
from registry.metadata.base import PULL, PUSH

DAY = 24 * 3600
LAYER = Digest.of(b"layer")


async def test_a_new_blob_is_leased_for_a_day_and_queued_for_review_then(registry):
    record = await registry.blob(b"layer")
    assert record.generation == 0
    assert record.unreferenced_since == registry.clock.now
    assert record.lease_until == registry.clock.now + DAY
    assert await registry.queued() == {("blob", str(LAYER)): ("blob added", DAY)}


async def test_the_same_blob_again_keeps_its_bytes_and_renews_the_lease(registry):
    first = await registry.blob(b"layer")
    registry.clock.sleep(1000)
    second = await registry.metadata.blobs.add(
        registry.access("other"), LAYER, 5, store_key="superfluous", generation=0
    )
    assert second.store_key == first.store_key
    assert second.lease_until == first.lease_until + 1000
    assert await registry.hot.blob(registry.access("other"), LAYER) == second


async def test_placement_says_where_bytes_of_a_digest_go(registry):
    access = registry.access()
    assert (await registry.hot.placement(access, LAYER)).generation == 0
    assert (await registry.hot.placement(access, LAYER)).present is None
    record = await registry.blob(b"layer")
    assert (await registry.hot.placement(access, LAYER)).present == record
    await registry.doom(LAYER)
    placement = await registry.hot.placement(access, LAYER)
    assert (placement.generation, placement.present) == (1, None)


async def test_a_doomed_blob_is_gone_at_once_and_comes_back_under_a_new_key(registry):
    access = registry.access()
    old = await registry.blob(b"layer")
    await registry.doom(LAYER)
    assert await registry.hot.blob(access, LAYER) is None
    new = await registry.blob(b"layer")
    assert new.store_key != old.store_key
    assert (new.state, new.generation) == ("live", 1)
    assert await registry.hot.blob(access, LAYER) == new


async def test_bytes_of_a_swept_generation_never_become_live(registry):
    await registry.blob(b"layer")
    await registry.doom(LAYER)
    with pytest.raises(StaleGeneration):
        await registry.metadata.blobs.add(
            registry.access(), LAYER, 5, store_key="old key", generation=0
        )
    assert await registry.hot.blob(registry.access(), LAYER) is None


async def test_cve_2024_39897_knowing_a_digest_gives_no_access_to_it(registry):
    await registry.blob(b"layer", "secret/app")
    stranger = registry.access("team/app")
    assert await registry.hot.blob(stranger, LAYER) is None
    assert await registry.metadata.blobs.mount(stranger, LAYER, stranger) is None
    nothing_readable = await registry.metadata.blobs.mount_from_any(
        stranger, LAYER, lambda name: name != "secret/app"
    )
    assert nothing_readable is None
    assert await registry.hot.blob(stranger, LAYER) is None


async def test_mount_makes_a_second_holder_in_a_new_repository(registry):
    await registry.blob(b"layer", "base/image")
    registry.clock.sleep(1000)
    mounted = await registry.metadata.blobs.mount(
        registry.access("new/app"), LAYER, registry.access("base/image", "omri", PULL)
    )
    assert mounted is not None
    assert mounted.lease_until == registry.clock.now + DAY
    assert await registry.hot.blob(registry.access("new/app"), LAYER) == mounted


async def test_mount_needs_pull_at_the_source(registry):
    await registry.blob(b"layer", "base/image")
    with pytest.raises(Denied):
        await registry.metadata.blobs.mount(
            registry.access("new/app"), LAYER, registry.access("base/image", "omri", PUSH)
        )
    assert await registry.hot.repository(registry.access("new/app")) is None


async def test_what_cannot_be_mounted_creates_nothing(registry):
    await registry.blob(b"layer", "base/image")
    here, there = registry.access("new/app"), registry.access("base/image")
    assert await registry.metadata.blobs.mount(here, Digest.of(b"?"), there) is None
    assert await registry.metadata.blobs.mount(here, LAYER, registry.access("no/such")) is None
    await registry.doom(LAYER)
    assert await registry.metadata.blobs.mount(here, LAYER, there) is None
    assert await registry.hot.repository(here) is None


async def test_mount_from_any_asks_for_each_holder(registry):
    await registry.blob(b"layer", "a/secret")
    await registry.blob(b"layer", "b/open")
    asked: list[str] = []

    def may_read(name: str) -> bool:
        asked.append(name)
        return name == "b/open"

    mounted = await registry.metadata.blobs.mount_from_any(
        registry.access("new/app"), LAYER, may_read
    )
    assert mounted is not None
    assert asked == ["a/secret", "b/open"]


async def test_remove_ends_the_membership_and_leaves_other_holders_alone(registry):
    await registry.blob(b"layer", "a/a")
    await registry.blob(b"layer", "b/b")
    await registry.metadata.blobs.remove(registry.access("a/a"), LAYER)
    assert await registry.hot.blob(registry.access("a/a"), LAYER) is None
    assert await registry.hot.blob(registry.access("b/b"), LAYER) is not None
    assert ("blob.removed", str(LAYER), "") in await registry.events()
    for name in ("a/a", "no/such"):
        with pytest.raises(BlobUnknown):
            await registry.metadata.blobs.remove(registry.access(name), LAYER)


async def test_a_blob_in_use_is_not_removed(registry):
    image = await registry.image(b"{}", layers=(b"layer",))
    with pytest.raises(BlobReferenced) as caught:
        await registry.metadata.blobs.remove(registry.access(), LAYER)
    assert caught.value.digest == str(LAYER)
    assert await registry.hot.blob(registry.access(), LAYER) is not None
    await registry.metadata.manifests.remove(registry.access(), image.digest)
    await registry.metadata.blobs.remove(registry.access(), LAYER)


async def test_extend_lease_only_of_unreferenced_blobs(registry):
    await registry.blob(b"loose")
    await registry.image(b"{}", layers=(b"used",))
    registry.clock.sleep(DAY / 2)
    for content in (b"loose", b"used"):
        await registry.metadata.blobs.extend_lease(registry.access(), Digest.of(content))
        await registry.metadata.blobs.extend_lease(registry.access("a/b"), Digest.of(content))
    assert (await registry.row(b"loose")).lease_until == registry.clock.now + DAY
    assert (await registry.row(b"used")).lease_until == registry.clock.now + DAY / 2


async def test_deleting_needs_the_right_to(registry):
    await registry.blob(b"layer")
    with pytest.raises(Denied):
        await registry.metadata.blobs.remove(registry.access("team/app", "omri", PULL, PUSH), LAYER)
