"""The trash, undo, restore, releases and as-of, on both databases."""

from __future__ import annotations

import asyncio

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.errors import (
    Denied,
    ManifestUnknown,
    NothingToUndo,
    NotRestorable,
    TagMoved,
)
from registry.metadata.base import PULL
from registry.metadata.history import ABSENT, Move
from tests.registry.metadata.conftest import DAY, manifest

APP = RepositoryName("team/app")


def of(content: bytes) -> str:
    return str(Digest.of(content))


async def tag_of(registry, tag="v1", name="team/app"):
    found = await registry.hot.manifest_by_tag(registry.access(name), Tag(tag))
    return None if found is None else found.raw


async def test_undo_takes_back_a_move_and_again_the_undo(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"two", "v1")
    done = await registry.metadata.history.undo(registry.access, name=APP, tag="v1", actor="zoe")
    assert [(s.tag, s.old, s.new) for s in done.steps] == [("v1", of(b"two"), of(b"one"))]
    assert await tag_of(registry) == b"one"
    await registry.metadata.history.undo(registry.access, name=APP, tag="v1")
    assert await tag_of(registry) == b"two"
    log = await registry.metadata.history.log(registry.access(), tag="v1")
    assert [entry.kind for entry in log] == ["undo", "undo", "", ""]


async def test_a_dry_run_changes_nothing(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"two", "v1")
    before = await registry.metadata.history.log(registry.access())
    done = await registry.metadata.history.undo(registry.access, name=APP, tag="v1", dry_run=True)
    assert done.change == 0 and done.steps[0].new == of(b"one")
    assert await tag_of(registry) == b"two"
    assert await registry.metadata.history.log(registry.access()) == before


async def test_undo_of_a_first_push_removes_the_tag(registry):
    await registry.image(b"one", "v1")
    await registry.metadata.history.undo(registry.access, name=APP, tag="v1")
    assert await tag_of(registry) is None


async def test_tags_of_one_push_are_one_change(registry):
    await registry.image(b"one", "v1", "v2")
    await registry.image(b"two", "v1", "v2")
    await registry.metadata.history.undo(registry.access, name=APP, tag="v2")
    assert (await tag_of(registry, "v1"), await tag_of(registry, "v2")) == (b"one", b"one")


async def test_a_deleted_manifest_comes_back_with_its_tags_and_blobs(registry):
    await registry.image(b"one", "v1", "v2", layers=(b"layer",))
    await registry.metadata.manifests.remove(registry.access(), Digest.of(b"one"))
    assert await tag_of(registry) is None
    page = await registry.metadata.trash.page(registry.access())
    assert [each.digest for each in page.items] == [of(b"one")]
    row = await registry.row(b"layer")
    assert row.lease_until >= registry.clock.now + 30 * DAY
    # As the collector does it for blobs that a repository has no use for any more.
    await registry.metadata.blobs.remove(registry.access(), Digest.of(b"layer"))
    done = await registry.metadata.history.restore(registry.access(), of(b"one"))
    assert done.restored == (("team/app", of(b"one")),)
    assert (await tag_of(registry), await tag_of(registry, "v2")) == (b"one", b"one")
    assert await registry.hot.blob(registry.access(), Digest.of(b"layer")) is not None
    assert (await registry.row(b"layer")).unreferenced_since is None
    assert not (await registry.metadata.trash.page(registry.access())).items


async def test_an_index_comes_back_with_its_children(registry):
    await registry.image(b"amd", layers=(b"a",))
    await registry.image(b"arm", layers=(b"b",))
    index = manifest(b"index", children=(Digest.of(b"amd"), Digest.of(b"arm")))
    await registry.metadata.manifests.put(registry.access(), index, tags=(Tag("v1"),))
    act = await registry.metadata.history.remove_repository(registry.access())
    assert [(step.tag, step.new) for step in act.steps] == [("v1", None)]
    done = await registry.metadata.history.restore(registry.access(), "v1")
    assert {digest for _, digest in done.restored} == {of(b"amd"), of(b"arm"), of(b"index")}
    assert await tag_of(registry) == b"index"


async def test_a_repository_comes_back_whole(registry):
    await registry.image(b"one", "v1", layers=(b"x",))
    await registry.image(b"two", "v2", layers=(b"x", b"y"))
    await registry.image(b"signature", layers=(b"z",))
    await registry.metadata.history.remove_repository(registry.access())
    assert (await registry.metadata.tags.page(registry.access(), n=9)).items == ()
    await registry.metadata.history.restore(registry.access())
    assert (await tag_of(registry, "v1"), await tag_of(registry, "v2")) == (b"one", b"two")
    found = await registry.hot.manifest_by_digest(registry.access(), Digest.of(b"signature"))
    assert found is not None


async def test_undo_of_a_deletion_of_a_repository(registry):
    await registry.image(b"one", "v1", layers=(b"x",))
    await registry.metadata.history.remove_repository(registry.access())
    await registry.metadata.history.undo(registry.access, name=APP)
    assert await tag_of(registry) == b"one"


async def test_what_is_past_its_time_does_not_come_back(registry):
    await registry.image(b"one", "v1")
    await registry.metadata.manifests.remove(registry.access(), Digest.of(b"one"))
    registry.clock.sleep(30 * DAY)
    with pytest.raises(NotRestorable):
        await registry.metadata.history.restore(registry.access(), of(b"one"))
    with pytest.raises(NotRestorable, match="gone for good"):
        await registry.metadata.history.restore(registry.access(), "v1")
    assert await registry.metadata.trash.expire() == 1
    assert await registry.metadata.trash.expire() == 0


async def test_a_restored_tag_must_not_exist(registry):
    await registry.image(b"one", "v1")
    with pytest.raises(NotRestorable, match="not deleted"):
        await registry.metadata.history.restore(registry.access(), "v1")
    with pytest.raises(NothingToUndo):
        await registry.metadata.history.undo(registry.access, change=99)


async def test_restoring_leaves_a_tag_alone_that_was_made_again(registry):
    await registry.image(b"one", "v1")
    await registry.metadata.manifests.remove(registry.access(), Digest.of(b"one"))
    await registry.image(b"new", "v1")
    await registry.metadata.history.restore(registry.access(), of(b"one"))
    assert await tag_of(registry) == b"new"


async def test_a_release_is_all_or_nothing(registry):
    for name in ("team/app", "team/web"):
        await registry.image(b"one " + name.encode(), "v1", name=name)
        await registry.image(b"two " + name.encode(), "v2", name=name)
    history = registry.metadata.history
    moves = (
        Move("team/app", "stable", "v2", ABSENT),
        Move("team/web", "v1", of(b"two team/web"), of(b"wrong")),
    )
    with pytest.raises(TagMoved, match="team/web"):
        await history.release(registry.access, moves)
    assert await tag_of(registry, "stable") is None
    moves = (moves[0], Move("team/web", "v1", of(b"two team/web"), of(b"one team/web")))
    done = await history.release(registry.access, moves, note="1.0")
    assert await tag_of(registry, "stable") == b"two team/app"
    assert await tag_of(registry, "v1", "team/web") == b"two team/web"
    await history.undo(registry.access, change=done.change)
    assert await tag_of(registry, "stable") is None
    assert await tag_of(registry, "v1", "team/web") == b"one team/web"


async def test_undo_of_a_release_is_refused_whole_if_one_tag_moved_since(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"two", "v2")
    history = registry.metadata.history
    moves = (Move("team/app", "a", "v1"), Move("team/app", "b", "v1"))
    done = await history.release(registry.access, moves)
    await registry.image(b"two", "b")
    with pytest.raises(TagMoved):
        await history.undo(registry.access, change=done.change)
    assert await tag_of(registry, "a") == b"one"


async def test_two_releases_of_the_same_new_tags_leave_one_winner(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"two", "v2")
    history = registry.metadata.history
    for round in range(5):
        names = [f"t{round}-{i}" for i in range(6)]
        results = await asyncio.gather(
            *(
                history.release(
                    registry.access,
                    tuple(
                        Move("team/app", name, to, ABSENT)
                        for name in (names if to == "v1" else reversed(names))
                    ),
                )
                for to in ("v1", "v2")
            ),
            return_exceptions=True,
        )
        lost = [each for each in results if isinstance(each, BaseException)]
        assert len(lost) == 1 and isinstance(lost[0], TagMoved)
        assert len({await tag_of(registry, name) for name in names}) == 1


async def test_attack_release_of_a_tag_the_caller_may_not_push(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"one", "v1", name="other/app")

    def rights(name):
        return registry.access(name, "eve", *(() if name == "team/app" else (PULL,)))

    moves = (Move("team/app", "x", "v1"), Move("other/app", "x", "v1"))
    with pytest.raises(Denied):
        await registry.metadata.history.release(rights, moves)
    assert await tag_of(registry, "x") is None


async def test_attack_undo_of_a_set_with_repositories_of_others(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"one", "v1", name="other/app")
    history = registry.metadata.history
    moves = (Move("team/app", "x", "v1"), Move("other/app", "x", "v1"))
    done = await history.release(registry.access, moves)

    def rights(name):
        return registry.access(name, "eve", *(() if name == "team/app" else (PULL,)))

    with pytest.raises(Denied):
        await history.undo(rights, change=done.change)
    with pytest.raises(Denied):
        await history.undo(rights, name=APP, tag="x")
    assert await tag_of(registry, "x") == b"one"


async def test_as_of(registry):
    start = registry.clock.now
    await registry.image(b"one", "v1")
    registry.clock.sleep(100)
    await registry.image(b"two", "v1")
    registry.clock.sleep(100)
    history, access = registry.metadata.history, registry.access()
    found = await history.as_of(access, Tag("v1"), int(start) + 50)
    assert (found.digest, found.place) == (of(b"one"), "here")
    await registry.metadata.manifests.remove(access, Digest.of(b"one"))
    assert (await history.as_of(access, Tag("v1"), int(start) + 50)).place == "trash"
    registry.clock.sleep(30 * DAY)
    assert (await history.as_of(access, Tag("v1"), int(start) + 50)).place == "gone"
    with pytest.raises(ManifestUnknown):
        await history.as_of(access, Tag("v1"), int(start) - 1)


async def test_the_collector_leaves_the_blobs_of_the_trash_until_its_end(registry):
    await registry.image(b"one", "v1", layers=(b"layer",))
    await registry.metadata.manifests.remove(registry.access(), Digest.of(b"one"))
    for _ in range(29):
        registry.clock.sleep(DAY)
        await registry.metadata.collection.review_manifests()
        await registry.metadata.collection.review_blobs()
    await registry.metadata.history.restore(registry.access(), of(b"one"))
    assert await tag_of(registry) == b"one"
    assert (await registry.row(b"layer")).state == "live"
    await registry.metadata.manifests.remove(registry.access(), Digest.of(b"one"))
    for _ in range(33):
        registry.clock.sleep(DAY)
        await registry.metadata.collection.review_blobs()
    assert (await registry.row(b"layer")).state == "doomed"
