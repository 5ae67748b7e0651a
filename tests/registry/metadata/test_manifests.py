"""A manifest is stored with what it names, or not at all; and keeps it as long as it lives."""

from __future__ import annotations

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import Denied, ManifestBlobUnknown, ManifestUnknown, NameUnknown
from registry.metadata.base import PULL, BlobReference, NewManifest
from tests.registry.metadata.conftest import manifest

DAY = 24 * 3600
ABSENT = Digest.of(b"absent")


async def test_put_and_get_by_tag_and_digest_give_the_exact_bytes(registry):
    access = registry.access()
    await registry.blob(b"layer")
    raw = b'{ "odd":   "spacing\xc3\xa9" }\n'
    new = manifest(raw, layers=(b"layer",), subject=ABSENT)
    assert await registry.metadata.manifests.put(access, new, tags=(Tag("v1"), Tag("latest")))
    for found in (
        await registry.hot.manifest_by_tag(access, Tag("v1")),
        await registry.hot.manifest_by_tag(access, Tag("latest")),
        await registry.hot.manifest_by_digest(access, new.digest),
    ):
        assert found is not None
        assert (found.raw, found.digest, found.media_type) == (raw, new.digest, new.media_type)
        assert found.subject == ABSENT
        assert found.pushed_at == registry.clock.now


async def test_the_same_manifest_again_changes_nothing(registry):
    await registry.image(b"{}", "latest", layers=(b"layer",))
    events, queued = await registry.events(), await registry.queued()
    registry.clock.sleep(100)
    again = await registry.metadata.manifests.put(
        registry.access(), manifest(b"{}", layers=(b"layer",)), tags=(Tag("latest"),)
    )
    assert not again
    assert await registry.events() == events
    assert set(await registry.queued()) == set(queued)
    assert len(await registry.metadata.tags.history(registry.access(), Tag("latest"))) == 1


async def test_everything_missing_is_reported_at_once_and_nothing_is_stored(registry):
    await registry.blob(b"here")
    await registry.blob(b"elsewhere", "other/app")
    await registry.blob(b"doomed")
    await registry.doom(Digest.of(b"doomed"))
    layers = (b"never", b"here", b"elsewhere", b"doomed", b"never")
    new = manifest(b"{}", layers=layers, children=(ABSENT,))
    with pytest.raises(ManifestBlobUnknown) as caught:
        await registry.metadata.manifests.put(registry.access(), new, tags=(Tag("latest"),))
    expected = [str(Digest.of(c)) for c in (b"never", b"elsewhere", b"doomed", b"absent")]
    assert list(caught.value.digests) == expected
    assert await registry.hot.manifest_by_digest(registry.access(), new.digest) is None
    assert (await registry.metadata.tags.page(registry.access(), n=10)).items == ()
    assert await registry.events() == []


async def test_a_refused_manifest_leaves_no_repository_behind(registry):
    with pytest.raises(ManifestBlobUnknown):
        await registry.metadata.manifests.put(
            registry.access("new/app"), manifest(b"{}", layers=(b"x",))
        )
    assert await registry.hot.repository(registry.access("new/app")) is None


async def test_a_manifest_without_blobs_may_be_the_first_thing_in_a_repository(registry):
    await registry.metadata.manifests.put(registry.access("new/app"), manifest(b"{}"))
    assert await registry.hot.repository(registry.access("new/app")) is not None


async def test_foreign_layers_may_be_absent_but_are_kept_if_here(registry):
    await registry.blob(b"here")
    references = tuple(
        BlobReference(Digest.of(c), "layer", may_be_absent=True) for c in (b"here", b"absent")
    )
    new = NewManifest(Digest.of(b"{}"), "x/y", b"{}", references)
    await registry.metadata.manifests.put(registry.access(), new)
    assert (await registry.row(b"here")).unreferenced_since is None


async def test_children_must_exist_unless_sparse_is_allowed(registry):
    access = registry.access()
    child = await registry.image(b"child")
    index = manifest(b"index", children=(child.digest, ABSENT))
    with pytest.raises(ManifestBlobUnknown) as caught:
        await registry.metadata.manifests.put(access, index)
    assert caught.value.digests == (str(ABSENT),)
    assert await registry.metadata.manifests.put(access, index, allow_sparse=True)


async def test_a_child_of_another_repository_does_not_count(registry):
    child = await registry.image(b"child", name="other/app")
    with pytest.raises(ManifestBlobUnknown):
        await registry.metadata.manifests.put(
            registry.access(), manifest(b"index", children=(child.digest,))
        )


async def test_blobs_in_use_are_not_unreferenced_until_the_last_use_ends(registry):
    access = registry.access()
    one = await registry.image(b"one", layers=(b"shared", b"own"))
    two = await registry.image(b"two", layers=(b"shared",), name="other/app")
    assert (await registry.row(b"shared")).unreferenced_since is None
    registry.clock.sleep(50)
    await registry.metadata.manifests.remove(access, one.digest)
    assert (await registry.row(b"own")).unreferenced_since == registry.clock.now
    assert (await registry.row(b"shared")).unreferenced_since is None
    queued = await registry.queued()
    assert queued["blob", str(Digest.of(b"own"))] == ("manifest removed", DAY)
    registry.clock.sleep(50)
    await registry.metadata.manifests.remove(registry.access("other/app"), two.digest)
    assert (await registry.row(b"shared")).unreferenced_since == registry.clock.now


async def test_remove_takes_every_tag_that_points_there(registry):
    access = registry.access()
    gone = await registry.image(b"gone", "a", "b")
    await registry.image(b"stays", "c")
    await registry.metadata.manifests.remove(access, gone.digest)
    assert await registry.hot.manifest_by_digest(access, gone.digest) is None
    assert await registry.hot.manifest_by_tag(access, Tag("a")) is None
    assert await registry.hot.manifest_by_tag(access, Tag("b")) is None
    assert (await registry.metadata.tags.page(access, n=10)).items == (Tag("c"),)
    change = (await registry.metadata.tags.history(access, Tag("a")))[0]
    assert (change.old, change.new, change.actor) == (gone.digest, None, "omri")
    assert ("manifest.removed", str(gone.digest), "") in await registry.events()
    with pytest.raises(ManifestUnknown):
        await registry.metadata.manifests.remove(access, gone.digest)


async def test_removing_queues_children_and_referrers_for_review(registry):
    access = registry.access()
    child = await registry.image(b"child", "c")
    await registry.metadata.manifests.put(access, manifest(b"index", children=(child.digest,)))
    index = Digest.of(b"index")
    await registry.metadata.manifests.put(access, manifest(b"signature", subject=index))
    await registry.metadata.manifests.remove(access, index)
    queued = await registry.queued()
    assert queued["manifest", str(child.digest)][0] == "index removed"
    assert queued["manifest", str(Digest.of(b"signature"))][0] == "subject removed"
    listed = await registry.metadata.manifests.referrers(access, index, n=10)
    assert [each.digest for each in listed.items] == [Digest.of(b"signature")]


async def test_remove_in_an_unknown_repository(registry):
    with pytest.raises(NameUnknown):
        await registry.metadata.manifests.remove(registry.access(), ABSENT)


async def test_an_untagged_push_is_reviewed_after_a_day(registry):
    new = await registry.image(b"{}")
    assert (await registry.queued())["manifest", str(new.digest)] == ("pushed untagged", DAY)


async def test_referrers_describe_filter_and_page(registry):
    access = registry.access()
    subject = Digest.of(b"subject, which was never pushed")
    pushed = {}
    for number in range(5):
        new = manifest(
            b"referrer %d" % number,
            subject=subject,
            artifact_type="" if number == 4 else f"type/{number % 2}",
            config_media_type="type/config",
            annotations={"n": str(number), "é": "ü"},
        )
        await registry.metadata.manifests.put(access, new)
        pushed[str(new.digest)] = new
    await registry.metadata.manifests.put(registry.access("b/b"), manifest(b"x", subject=subject))

    async def listed(**options):
        return await registry.metadata.manifests.referrers(access, subject, **options)

    page = await listed(n=100)
    assert [str(each.digest) for each in page.items] == sorted(pushed)
    assert not page.more
    for each in page.items:
        new = pushed[str(each.digest)]
        assert (each.size, each.media_type) == (len(new.raw), new.media_type)
        assert each.annotations == new.annotations
        assert each.artifact_type == (new.artifact_type or "type/config")
    of_type = await listed(n=100, artifact_type="type/0")
    assert {each.annotations["n"] for each in of_type.items} == {"0", "2"}
    assert len((await listed(n=100, artifact_type="type/config")).items) == 1
    first = await listed(n=3)
    rest = await listed(n=3, last=str(first.items[-1].digest))
    assert first.more and not rest.more
    assert first.items + rest.items == page.items


async def test_referrers_of_an_unknown_repository_are_none(registry):
    page = await registry.metadata.manifests.referrers(registry.access("no/such"), ABSENT, n=10)
    assert page.items == ()


async def test_many_layers_and_children_in_one_manifest(registry):
    layers = tuple(b"%d" % number for number in range(1200))
    await registry.image(b"{}", "latest", layers=layers)
    assert (await registry.row(b"1199")).unreferenced_since is None
    await registry.metadata.manifests.remove(registry.access(), Digest.of(b"{}"))
    assert (await registry.row(b"1199")).unreferenced_since is not None


async def test_pull_rights_neither_put_nor_remove(registry):
    new = await registry.image(b"{}", "latest")
    reader = registry.access("team/app", "omri", PULL)
    with pytest.raises(Denied):
        await registry.metadata.manifests.put(reader, new, tags=(Tag("other"),))
    with pytest.raises(Denied):
        await registry.metadata.manifests.remove(reader, new.digest)
    assert await registry.hot.manifest_by_tag(reader, Tag("latest")) is not None
