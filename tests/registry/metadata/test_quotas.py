"""Quotas on both databases: what is counted is what is there, whatever happens in between."""

from __future__ import annotations

import asyncio
import random

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.errors import (
    BlobReferenced,
    BlobUnknown,
    ManifestUnknown,
    NameUnknown,
    QuotaExceeded,
    QuotaUnknown,
    UploadUnknown,
)
from tests.registry.metadata.conftest import DAY, manifest

TEAM = RepositoryName("team")


async def used(registry, namespace="team"):
    found = await registry.metadata.quotas.find(namespace)
    return found.bytes_used, found.bytes_reserved, found.tags_used


async def limit(registry, namespace=TEAM, bytes=None, tags=None):
    return await registry.metadata.quotas.set(namespace, bytes_limit=bytes, tags_limit=tags)


async def finish(registry, upload, content):
    digest = Digest.of(content)
    generation = (await registry.metadata.hot.placement(registry.access(), digest)).generation
    return await registry.metadata.uploads.finish(
        registry.access(), upload, digest, len(content),
        store_key=f"{digest}.{generation}", generation=generation,
    )  # fmt: skip


async def test_what_was_there_before_counts(registry):
    await registry.image(b"image", "v1", "v2", layers=(b"a" * 100, b"b" * 50))
    await registry.image(b"image", "v1", layers=(b"a" * 100,), name="team/web")
    await registry.image(b"other", "v1", layers=(b"a" * 100,), name="teams/web")
    found = await limit(registry, bytes=1000)
    assert (found.bytes_used, found.tags_used, found.repositories) == (100 + 50 + 100 + 10, 3, 2)
    # The longest namespace counts, and only that; a removal gives back.
    await limit(registry, RepositoryName("team/web"), tags=1)
    assert await used(registry, "team/web") == (105, 0, 1)
    assert await used(registry) == (155, 0, 2)
    await registry.image(b"new", layers=(b"c" * 10,), name="team/web")
    assert await used(registry, "team/web") == (118, 0, 1)
    await registry.metadata.quotas.remove("team/web")
    assert await used(registry) == (273, 0, 3)
    with pytest.raises(QuotaUnknown):
        await registry.metadata.quotas.remove("team/web")
    await registry.metadata.quotas.remove("team")
    await registry.image(b"big", layers=(b"d" * 5000,))


async def test_a_full_namespace_refuses_and_nothing_is_half_there(registry):
    await limit(registry, bytes=100, tags=1)
    await registry.blob(b"a" * 60)
    await registry.blob(b"a" * 60)  # held already
    with pytest.raises(QuotaExceeded) as refused:
        await registry.blob(b"b" * 41)
    assert str(refused.value).count("\n") == 0
    assert "quota of team is 100 bytes, 60 of them are used" in str(refused.value)
    with pytest.raises(QuotaExceeded):  # the same bytes in another repository count once more
        await registry.metadata.blobs.mount(
            registry.access("team/web"), Digest.of(b"a" * 60), registry.access()
        )
    assert await used(registry) == (60, 0, 0)
    await registry.image(b"one", "v1")
    await registry.image(b"two", "v1")  # moved: still one tag
    with pytest.raises(QuotaExceeded) as refused:
        await registry.image(b"three", "v2")
    assert "1 tag" in str(refused.value)
    with pytest.raises(ManifestUnknown):
        await registry.metadata.manifests.remove(registry.access(), Digest.of(b"three"))
    assert await used(registry) == (66, 0, 1)
    # Lower limits take nothing away; what makes it less is possible.
    await limit(registry, bytes=10)
    await registry.metadata.tags.remove(registry.access(), Tag("v1"))
    await registry.metadata.blobs.remove(registry.access(), Digest.of(b"a" * 60))
    assert await used(registry) == (6, 0, 0)


async def test_an_upload_reserves_what_it_announces_and_gives_it_back(registry):
    await limit(registry, bytes=100)
    uploads, access = registry.metadata.uploads, registry.access()
    one, two, three = [await uploads.begin(access) for _ in range(3)]
    assert one.reserved == 0
    await uploads.reserve(access, one.id, 70)
    await uploads.reserve(access, one.id, 60)
    with pytest.raises(QuotaExceeded):
        await uploads.reserve(access, two.id, 31)
    await uploads.reserve(access, two.id, 30)
    assert await used(registry) == (0, 100, 0)
    with pytest.raises(QuotaExceeded):
        await uploads.begin(access)
    assert (await registry.metadata.hot.upload(access, two.id)).reserved == 30
    await finish(registry, one.id, b"x" * 70)
    assert await used(registry) == (70, 30, 0)
    await uploads.cancel(access, two.id)
    assert await used(registry) == (70, 0, 0)
    await uploads.reserve(access, three.id, 5)
    registry.clock.sleep(8 * DAY)
    await uploads.reap()
    assert await used(registry) == (70, 0, 0)


async def test_an_upload_older_than_the_quota(registry):
    uploads, access = registry.metadata.uploads, registry.access()
    before = await uploads.begin(access)
    await limit(registry, bytes=100)
    await uploads.reserve(access, before.id, 50)
    assert await used(registry) == (0, 50, 0)
    with pytest.raises(QuotaExceeded):
        await finish(registry, before.id, b"y" * 101)
    await finish(registry, before.id, b"y" * 99)
    assert await used(registry) == (99, 0, 0)
    after = await limit(registry, bytes=200)
    assert after.bytes_limit == 200
    last = await uploads.begin(access)
    await registry.metadata.quotas.remove("team")
    await uploads.reserve(access, last.id, 10_000)
    await finish(registry, last.id, b"z" * 10_000)


async def test_collected_content_is_given_back(registry):
    await limit(registry, bytes=10_000)
    await registry.image(b"image", "v1", layers=(b"a" * 1000,))
    await registry.blob(b"loose" * 10)
    await registry.metadata.tags.remove(registry.access(), Tag("v1"))
    for _ in range(3):
        registry.clock.sleep(40 * DAY)
        await registry.metadata.collection.review_manifests()
        await registry.metadata.collection.review_blobs()
    assert await used(registry) == (0, 0, 0)


async def test_the_last_room_is_given_to_one(registry):
    await limit(registry, bytes=1000, tags=3)
    await registry.blob(b"")
    done = await asyncio.gather(
        *(registry.blob(b"%d" % each * 300, f"team/r{each}") for each in range(9)),
        return_exceptions=True,
    )
    refused = [each for each in done if isinstance(each, QuotaExceeded)]
    assert len(refused) == 6, done
    assert (await used(registry))[0] == 900
    done = await asyncio.gather(
        *(registry.image(b"%d" % each, f"t{each}", name="team/app") for each in range(9)),
        return_exceptions=True,
    )
    assert len([each for each in done if isinstance(each, QuotaExceeded)]) == 6, done
    assert await used(registry) == (903, 0, 3)


@pytest.mark.parametrize("seed", range(4))
async def test_counted_is_what_a_recount_finds(registry, seed):
    """Any order of what changes content, in two namespaces, one in the other."""
    m, draw = registry.metadata, random.Random(seed)
    names = ["team/app", "team/web/one", "team/web/two", "team"]
    contents = [b"%d" % n * (n + 1) for n in range(6)]
    started: list[tuple[str, str]] = []
    await limit(registry, bytes=400, tags=5)
    expected = (
        QuotaExceeded, BlobReferenced, BlobUnknown, ManifestUnknown, NameUnknown, QuotaUnknown,
        UploadUnknown,
    )  # fmt: skip
    refusals = 0
    for _ in range(60):
        name, content = draw.choice(names), draw.choice(contents)
        access = registry.access(name)
        layers = tuple(draw.sample(contents, 2))
        image = manifest(content + b"-" + b"+".join(layers), layers=layers)
        try:
            match kind := draw.randrange(12):
                case 0 | 1 | 2:
                    await registry.image(
                        image.raw, draw.choice("abcdefg"), name=name, layers=layers
                    )
                case 3:
                    await registry.blob(content, name)
                case 4:
                    other = registry.access(draw.choice(names))
                    await m.blobs.mount(access, Digest.of(content), other)
                case 5:
                    await m.blobs.remove(access, Digest.of(content))
                case 6:
                    await m.tags.remove(access, Tag(draw.choice("abcdefg")))
                case 7:
                    await m.manifests.remove(access, image.digest)
                case 8:
                    upload = await m.uploads.begin(access)
                    started.append((name, upload.id))
                    await m.uploads.reserve(access, upload.id, draw.randrange(60))
                case 9 if started:
                    where, id = started.pop()
                    await m.uploads.cancel(registry.access(where), id)
                case 10:
                    if draw.random() < 0.5:
                        await limit(registry, RepositoryName("team/web"), bytes=200)
                    else:
                        await m.quotas.remove("team/web")
                case 11:
                    registry.clock.sleep(draw.choice([1, 20 * DAY]))
                    await m.uploads.reap()
                    await m.collection.review_manifests()
                    await m.collection.review_blobs()
        except expected as error:
            refusals += isinstance(error, QuotaExceeded)
        before = await m.quotas.all()
        for each in before:
            await m.quotas.recount(each.namespace)
        assert await m.quotas.all() == before, kind
