"""What must not make the collector take bytes that are wanted."""

from __future__ import annotations

from pathlib import Path

from ocispec.digest import Digest
from registry.storage.disk import DiskStorage
from registry.storage.errors import StorageError
from tests.registry.content.test_collect import ACCESS, World


async def test_a_store_that_is_away_for_a_while_loses_nothing(tmp_path: Path) -> None:
    made = World(tmp_path / "metadata.db", DiskStorage(str(tmp_path / "store")))
    try:
        await made.image(b"image", "v1", b"layer")
        (tmp_path / "store").rename(tmp_path / "away")
        (tmp_path / "store").mkdir()  # the bare mount point
        try:
            await made.collector.scrub()
        except StorageError:
            pass
        (tmp_path / "store").rmdir()
        (tmp_path / "away").rename(tmp_path / "store")
        made.clock.now += 3600
        await made.collect()
        assert made.keys(), "bytes of a tagged image were removed"
    finally:
        made.metadata.close()


async def test_a_key_to_be_swept_never_becomes_a_live_one(tmp_path: Path) -> None:
    made = World(tmp_path / "metadata.db", DiskStorage(str(tmp_path / "store")))
    try:
        old = await made.put(b"x")
        made.clock.now += 10 * 86400
        while (await made.collector.review_blobs()).looked:
            pass
        new = await made.put(b"x")
        assert old != new
        (tmp_path / "store" / str(new)).unlink()
        await made.metadata.blobs.relocate(ACCESS, Digest.of(b"x"), old=str(new), new=str(old))
        found = await made.metadata.blobs.find(Digest.of(b"x"))
        assert found is not None
        doomed = await made.metadata.collection.objects_to_sweep(delay_s=0)
        assert found.store_key not in {one.store_key for one in doomed}
    finally:
        made.metadata.close()
