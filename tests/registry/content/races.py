"""The twelve races between a collector and everybody else, each in the order that would hurt.

Every function takes a fresh `World`. `test_collect_races` runs them on both kinds of database, and
`test_collect_mutations` to see that they fail where a safeguard is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ocispec.digest import Digest
from registry.errors import UploadUnknown
from registry.metadata.base import NewManifest
from registry.storage.base import StoreKey
from registry.storage.errors import UploadUnknown as NoStoredUpload
from tests.registry.content.collect_model import (
    EXPIRY,
    HISTORY,
    IMAGES,
    LAYERS,
    LEASE,
    SWEEP,
    UNKNOWN,
    UNTAGGED,
    World,
    access,
    body,
)
from tests.registry.content.steps import Op

HERE, THERE = "team/app", "team/other"
A, B, C, INDEX, SIGNATURE = (
    IMAGES[name] for name in ("image-a", "image-b", "image-c", "index", "signature")
)
LAYER = LAYERS[3]
DIGEST = Digest.of(LAYER)


def do(world: World, make: Callable[[Op], Any]) -> Any:
    """An operation that nobody disturbs."""
    result = world.steps.finish(world.steps.start("alone", make))
    world.check()
    return result


def push(world: World, name: str, tag: str = "", where: str = HERE) -> None:
    do(world, lambda op: world.push(op, where, name, tag))


def later(world: World, seconds: float) -> None:
    world.clock.sleep(seconds)


def reviewing(world: World, kind: str) -> Op:
    """A collector that is about to begin its transaction."""
    op = world.steps.start(f"review {kind}", lambda op: _review(world, op, kind))
    world.steps.until(op, f"collection.review_{kind}")
    return op


def uploading(world: World, layer: bytes, where: str = HERE, *, session: bool = False) -> Op:
    return world.steps.start("upload", lambda op: world.upload(op, where, layer, session=session))


def _review(world: World, op: Op, kind: str) -> Any:
    return getattr(world.collector(op), f"review_{kind}")()


def put(world: World, new: NewManifest, tag: str = "", where: str = HERE) -> bool:
    done: bool = do(world, lambda op: world.put(op, where, new, tag))
    return done


def there(world: World, content: bytes, where: str = HERE) -> bool:
    found = world.steps.run(world.metadata.hot.blob(access(where), Digest.of(content)))
    return found is not None


def r01_an_upload_whose_manifest_is_not_there_yet(world: World) -> None:
    do(world, lambda op: world.upload(op, HERE, LAYER, session=True))
    later(world, LEASE - 2)
    world.collect()
    assert put(world, C, "v1")
    # One that took longer than a lease begins again, and succeeds.
    do(world, lambda op: world.upload(op, THERE, LAYERS[4], session=False))
    later(world, LEASE + 1)
    world.collect()
    assert not there(world, LAYERS[4], THERE)
    push(world, "signature", "v1", THERE)


def r02_a_collector_between_head_and_the_manifest(world: World) -> None:
    do(world, lambda op: world.upload(op, HERE, LAYER, session=False))
    later(world, LEASE // 2)
    assert do(world, lambda op: world.find(op, HERE, DIGEST))
    later(world, LEASE // 2 + 1)
    world.collect()
    assert put(world, C, "v1")


def r03_a_mount_while_the_last_use_is_collected(world: World) -> None:
    for mount_first in (True, False):
        do(world, lambda op: world.upload(op, HERE, LAYER, session=False))
        later(world, LEASE + 1)
        review = reviewing(world, "blobs")
        mount = world.steps.start("mount", lambda op: world.mount(op, THERE, DIGEST))
        for op in (mount, review) if mount_first else (review, mount):
            world.steps.finish(op)
            world.check()
        assert mount.task.result() is mount_first
        assert there(world, LAYER, THERE) is mount_first
        later(world, LEASE + SWEEP + 2)
        world.collect()
        later(world, SWEEP + 1)
        world.collect()
        assert not world.storage._blobs


def r04_a_manifest_whose_blob_is_being_removed(world: World) -> None:
    do(world, lambda op: world.upload(op, HERE, LAYER, session=False))
    later(world, LEASE + 1)
    review = reviewing(world, "blobs")
    assert put(world, C, "v1")
    assert world.steps.finish(review).removed == 0
    world.check()
    assert there(world, LAYER)
    do(world, lambda op: world.delete_manifest(op, HERE, C.digest))
    later(world, HISTORY + LEASE + 1)
    waiting = world.steps.start("put", lambda op: world.put(op, HERE, C, "v1"))
    world.collect()
    assert world.steps.finish(waiting) is False
    push(world, "image-c", "v1")
    later(world, SWEEP + 1)
    world.collect()
    world.check()


def r05_two_replicas_finish_a_digest_that_is_being_removed(world: World) -> None:
    do(world, lambda op: world.upload(op, HERE, LAYER, session=False))
    later(world, LEASE + 1)
    ops = [
        uploading(world, LAYER, where, session=session)
        for where, session in ((HERE, False), (THERE, True))
        for _ in (1, 2)
    ]
    world.steps.until(ops[0], "blobs.add")
    world.steps.until(ops[1], "blobs.add")
    world.steps.until(ops[2], "uploads.finish")
    world.collect()
    later(world, SWEEP - 1)
    for op in ops:
        world.steps.finish(op)
        world.check()
    later(world, 2)
    world.collect()
    world.check()
    assert there(world, LAYER, HERE) and there(world, LAYER, THERE)


def r06_a_tag_comes_back_while_its_image_is_collected(world: World) -> None:
    push(world, "image-a", "v1")
    push(world, "image-c", "v1")
    later(world, UNTAGGED + 1)
    review = reviewing(world, "manifests")
    assert put(world, A, "v2")
    assert world.steps.finish(review).removed == 0
    world.check()
    do(world, lambda op: world.delete_tag(op, HERE, "v2"))
    later(world, UNTAGGED + 1)
    tagging = world.steps.start("put", lambda op: world.put(op, HERE, A, "v2"))
    assert do(world, lambda op: world.collector(op).review_manifests()).removed == 1
    # Its blobs are kept for another lease, so that it comes back at once.
    assert world.steps.finish(tagging) is True
    world.check()


def r07_an_index_whose_child_is_collected(world: World) -> None:
    push(world, "image-a")
    push(world, "image-b")
    later(world, UNTAGGED + 1)
    review = reviewing(world, "manifests")
    assert put(world, INDEX, "v1")
    assert world.steps.finish(review).removed == 0
    world.check()
    do(world, lambda op: world.delete_tag(op, HERE, "v1"))
    later(world, UNTAGGED + 1)
    indexing = world.steps.start("put", lambda op: world.put(op, HERE, INDEX, "v1"))
    world.collect()
    assert world.steps.finish(indexing) is False
    push(world, "index", "v1")


def r08_what_refers_to_a_subject_before_and_after_it(world: World) -> None:
    push(world, "signature")
    later(world, UNTAGGED - 2)
    world.collect()
    push(world, "image-a", "v1")
    later(world, 3 * UNTAGGED)
    world.collect()
    world.check()
    found = world.metadata.hot.manifest_by_digest
    assert world.steps.run(found(access(HERE), SIGNATURE.digest)) is not None
    do(world, lambda op: world.delete_manifest(op, HERE, A.digest))
    later(world, UNTAGGED + 1)
    world.collect()
    assert world.steps.run(found(access(HERE), SIGNATURE.digest)) is None
    world.check()


def r09_a_crash_between_the_bytes_and_their_row(world: World) -> None:
    for session, at in ((False, "blobs.add"), (True, "uploads.finish")):
        op = uploading(world, LAYER, session=session)
        world.steps.until(op, at)
        world.steps.kill(op)
        assert world.storage._blobs and not there(world, LAYER)
        later(world, max(EXPIRY, UNKNOWN) + 1)
        world.audit()
        later(world, SWEEP + 1)
        world.collect()
        assert not world.storage._blobs
    push(world, "image-c", "v1")
    do(world, lambda op: world.delete_manifest(op, HERE, C.digest))
    later(world, HISTORY + LEASE + 1)
    world.collect()
    later(world, SWEEP + 1)
    for place in ("before removal", "after removal"):
        sweep = world.steps.start("sweep", lambda op: world.collector(op).sweep())
        world.steps.until(sweep, place)
        world.steps.kill(sweep)
        world.check()
    world.collect()
    assert not world.storage._blobs and not world.rows()[2]


def r10_bytes_that_arrive_after_their_removal(world: World) -> None:
    do(world, lambda op: world.upload(op, HERE, LAYER, session=False))
    [old] = world.storage._blobs
    later(world, LEASE + 1)
    world.collect()
    later(world, SWEEP + 1)
    world.collect()
    assert not world.storage._blobs
    push(world, "image-c", "v1")
    world.storage._blobs[old] = LAYER, 0.0  # a slow write of the same key
    assert StoreKey.parse(world.rows()[1][str(DIGEST)]) != old
    world.audit()
    later(world, SWEEP + 1)
    world.collect()
    assert old not in world.storage._blobs
    world.check()


def r11_a_restore_while_its_blobs_are_collected(world: World) -> None:
    push(world, "image-c", "v1")
    do(world, lambda op: world.delete_manifest(op, HERE, C.digest))
    later(world, HISTORY - 2)
    world.collect()
    review = reviewing(world, "blobs")
    do(world, lambda op: world.restore_manifest(op, HERE, C.digest))
    world.steps.finish(review)
    world.check()
    assert world.named(HERE, "v1") == C.digest
    do(world, lambda op: world.delete_tag(op, HERE, "v1"))
    later(world, min(UNTAGGED, HISTORY) - 2)
    review = reviewing(world, "manifests")
    do(world, lambda op: world.restore_tag(op, HERE, "v1"))
    world.steps.finish(review)
    world.check()
    assert world.named(HERE, "v1") == C.digest


def r12_an_upload_that_goes_on_while_it_is_reaped(world: World) -> None:
    upload, reap, going_on = _expiring(world)
    world.steps.finish(going_on)
    later(world, EXPIRY - 1)
    world.steps.finish(reap)
    do(
        world,
        lambda op: world.uploads(op).finish(
            access(HERE), upload, DIGEST, None, start=None, size=None
        ),
    )
    assert there(world, LAYER)

    _, reap, going_on = _expiring(world)
    world.steps.step(going_on)
    later(world, 2)
    world.steps.finish(reap)
    try:
        world.steps.finish(going_on)
    except (UploadUnknown, NoStoredUpload):
        assert not world.storage._uploads
    else:
        raise AssertionError("bytes for an upload that is gone were taken")


def _expiring(world: World) -> tuple[str, Op, Op]:
    """An upload about to expire, the reaper, and a client that goes on with it."""
    upload: str = do(world, lambda op: world.uploads(op).begin(access(HERE))).id
    later(world, EXPIRY - 1)
    reap = world.steps.start("reap", lambda op: world.uploads(op).reap(older_than_s=10**6))
    going_on = world.steps.start(
        "append",
        lambda op: world.uploads(op).append(
            access(HERE), upload, body(LAYER), start=0, size=len(LAYER)
        ),
    )
    return upload, reap, going_on


RACES = {
    name.partition("_")[0]: race
    for name, race in list(globals().items())
    if name.startswith("r") and name[1:3].isdigit()
}
