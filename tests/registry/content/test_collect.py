"""The collector on real stores and both kinds of database: bytes go, and only those."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.content.collect import DAY_S, Collector, CollectTerms
from registry.content.collection_loop import CollectionLoop, LoopTerms
from registry.metadata import tables
from registry.metadata.base import DELETE, PULL, PUSH, Access
from registry.metadata.database import open_metadata
from registry.metadata.transaction import Terms
from registry.storage.base import StoreKey
from registry.storage.disk import DiskStorage
from registry.storage.memory import MemoryStorage
from tests.registry.metadata.conftest import Clock, manifest

ACCESS = Access(RepositoryName("team/app"), "omri", frozenset({PULL, PUSH, DELETE}))


class World:
    def __init__(self, path: Path, storage: Any) -> None:
        # Stores have the clock of their machine; the database's may go ahead of it.
        self.clock = Clock(time.time())
        self.metadata = open_metadata(
            path, clock=self.clock, terms=Terms(untagged_s=DAY_S, history_s=0)
        )
        self.storage = storage
        self.collector = self.new_collector()

    def new_collector(self, **changes: Any) -> Collector:
        terms = CollectTerms(sweep_delay_s=600)
        return Collector(self.metadata, self.storage, terms=terms, clock=self.clock, **changes)

    async def put(self, content: bytes, *, enter: bool = True) -> StoreKey:
        digest = Digest.of(content)
        placement = await self.metadata.hot.placement(ACCESS, digest)
        key = StoreKey(digest, placement.generation)
        upload = f"upload-{time.monotonic_ns()}"
        self.storage.begin(upload)
        with self.storage.append(upload, 0) as writer:
            writer.write(content)
            writer.commit(key)
        if enter:
            await self.metadata.blobs.add(
                ACCESS, digest, len(content), store_key=str(key), generation=key.generation
            )
        return key

    async def image(self, content: bytes, tag: str, *layers: bytes) -> None:
        for layer in layers:
            await self.put(layer)
        new = manifest(content, layers=layers)
        await self.metadata.manifests.put(ACCESS, new, tags=(Tag(tag),))

    def keys(self) -> set[str]:
        return {str(each.key) for each in self.storage.blobs()}

    async def collect(self) -> int:
        while True:
            steps = [
                await self.collector.review_manifests(),
                await self.collector.review_blobs(),
                await self.collector.sweep(),
            ]
            if not any(step.looked for step in steps):
                return len(self.keys())


@pytest.fixture(params=["disk", "memory"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    storage = DiskStorage(str(tmp_path / "store")) if request.param == "disk" else MemoryStorage()
    made = World(tmp_path / "metadata.db", storage)
    yield made
    made.metadata.close()


async def test_bytes_go_after_the_delay_and_come_back_under_another_name(world):
    await world.image(b"image", "v1", b"layer")
    await world.metadata.tags.remove(ACCESS, Tag("v1"))
    world.clock.now += DAY_S + 1
    assert await world.collect() == 1
    world.clock.now += DAY_S + 1
    assert await world.collect() == 1, "doomed, and not yet swept"
    assert await world.metadata.hot.blob(ACCESS, Digest.of(b"layer")) is None
    again = await world.put(b"layer")
    world.clock.now += 601
    assert await world.collect() == 1
    assert world.keys() == {str(again)}
    assert str(again).endswith(".1")


@pytest.mark.parametrize("place", ["before removal", "after removal"])
async def test_a_sweep_that_dies_is_done_again_by_another(world, place):
    await world.put(b"loose")
    world.clock.now += DAY_S + 1
    await world.collect()
    world.clock.now += 601

    async def die(where: str) -> None:
        if where == place:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await world.new_collector(at=die).sweep()
    done = await world.new_collector().sweep()
    assert (done.removed, done.bytes) == (1, 5)
    assert world.keys() == set()


async def test_the_audit_finds_old_bytes_without_a_row_and_nothing_else(world):
    kept = await world.put(b"kept")
    lost = await world.put(b"crashed before its row", enter=False)
    assert (await world.collector.audit()).unknown == 0, "too young"
    world.clock.now += DAY_S + 60
    await world.metadata.blobs.extend_lease(ACCESS, Digest.of(b"kept"))
    assert (await world.collector.audit()).unknown == 1
    assert (await world.collector.audit()).unknown == 0, "waits to be swept already"
    world.clock.now += 601
    await world.collect()
    assert world.keys() == {str(kept)}
    assert str(await world.put(b"crashed before its row")) == f"{lost}.1"


async def test_a_rotten_and_a_missing_blob_are_gone_until_they_are_pushed_again(world, tmp_path):
    if not isinstance(world.storage, DiskStorage):
        pytest.skip("bytes in memory do not rot")
    await world.image(b"image", "v1", b"rotten", b"missing", b"good")
    root = tmp_path / "store"
    flipped = root / str(StoreKey(Digest.of(b"rotten")))
    flipped.write_bytes(b"rotteN")
    os.unlink(root / str(StoreKey(Digest.of(b"missing"))))
    done = await world.collector.scrub()
    assert done.rotten == [str(Digest.of(b"rotten"))]
    assert done.missing == [str(Digest.of(b"missing"))]
    for content, there in ((b"rotten", False), (b"missing", False), (b"good", True)):
        found = await world.metadata.hot.blob(ACCESS, Digest.of(content))
        assert (found is not None) is there
    status = await world.metadata.collection_report.status()
    assert {each.reason for each in status.lost} == {"rotten", "missing"}
    for content in (b"rotten", b"missing"):
        await world.put(content)
    assert (await world.collector.scrub()).rotten == []
    assert (await world.metadata.collection_report.status()).lost == ()


async def test_a_simulation_says_what_then_happens_and_changes_nothing(world):
    await world.image(b"old", "v1", b"one")
    await world.put(b"loose")
    await world.image(b"new", "v1", b"two")
    report = world.metadata.collection_report
    at = int(world.clock.now) + DAY_S + 1
    before = await report.simulate()
    assert (before.manifests, before.blobs) == (0, 0)
    then = await report.simulate(at=at)
    assert (then.manifests, then.blobs, then.bytes) == (1, 1, 5)
    assert (then.later_blobs, then.later_bytes) == (1, 3)
    world.clock.now = at
    assert (await world.collector.review_manifests()).removed == then.manifests
    done = await world.collector.review_blobs()
    assert (done.removed, done.bytes) == (then.blobs, then.bytes)


async def test_why_tells_tags_uses_and_leases(world):
    await world.image(b"image", "v1", b"layer")
    report = world.metadata.collection_report
    (of_blob,) = await report.why(str(Digest.of(b"layer")))
    assert [each.kind for each in of_blob.reasons] == ["manifest"]
    (of_manifest,) = await report.why(str(Digest.of(b"image")))
    assert [(each.kind, each.what) for each in of_manifest.reasons] == [("tag", "v1")]
    await world.put(b"loose")
    (of_loose,) = await report.why(str(Digest.of(b"loose")))
    assert [each.kind for each in of_loose.reasons] == ["lease"]
    assert of_loose.event == "blob added"
    assert await report.why(str(Digest.of(b"nothing"))) == ()


async def test_usage_counts_in_three_ways(world):
    await world.image(b"image-a", "a", b"shared", b"1")
    await world.image(b"image-b", "b", b"shared", b"22")
    usage = await world.metadata.usage.of("team/app")
    assert (usage.total.logical, usage.total.unique, usage.total.exclusive) == (29, 23, 23)
    assert [(each.name, each.logical, each.exclusive) for each in usage.items] == [
        ("a", 14, 8),
        ("b", 15, 9),
    ]
    team = await world.metadata.usage.of("team")
    assert [each.name for each in team.items] == ["team/app"]
    assert team.total.unique == 23


async def test_the_loop_rests_while_it_is_paused(world):
    await world.put(b"loose")
    world.clock.now += DAY_S + 1
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    loop = CollectionLoop(world.collector, LoopTerms(pace=10), sleep=nap)
    await world.metadata.upkeep.pause(by="omri")
    assert not await loop.round()
    assert await world.metadata.hot.blob(ACCESS, Digest.of(b"loose")) is not None
    await world.metadata.upkeep.resume()
    assert await loop.round()
    assert await world.metadata.hot.blob(ACCESS, Digest.of(b"loose")) is None
    assert max(naps) > 0.05, "one entry at ten a second"


async def test_an_entry_that_fails_does_not_keep_the_others(world, monkeypatch):
    await world.put(b"one")
    await world.put(b"two")
    world.clock.now += DAY_S + 1
    import registry.metadata.collecting as module

    good = module.blob_verdict
    bad = min((Digest.of(b"one"), Digest.of(b"two")), key=str)

    def fail(facts: Any, **options: Any) -> Any:
        if facts.lease_until == 1:
            raise ZeroDivisionError
        return good(facts, **options)

    def mark(tx: Any) -> None:
        tx.connection.execute(
            update(tables.blob).where(tables.blob.c.digest == str(bad)).values(lease_until=1)
        )
        tx.connection.execute(
            update(tables.gc_queue).where(tables.gc_queue.c.key == str(bad)).values(due_at=1)
        )

    await world.metadata.blobs.transactions.write(mark)
    monkeypatch.setattr(module, "blob_verdict", fail)
    with pytest.raises(ZeroDivisionError):
        await world.collector.review_blobs()
    assert (await world.collector.review_blobs()).removed == 1
