"""Tags are sorted bytewise, differ by case, and remember where they pointed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec.distribution.name import Tag
from registry.errors import Denied, ManifestUnknown, NameUnknown
from registry.metadata.base import PULL, PUSH
from tests.registry.metadata.conftest import manifest

DAY = 24 * 3600

TAGS = st.sets(st.from_regex(r"[a-cA-C0-1_][a-cA-C._-]{0,3}", fullmatch=True), max_size=30)


async def test_moving_a_tag_remembers_who_when_and_from_where(registry):
    one = await registry.image(b"one", "latest")
    registry.clock.sleep(60)
    two = manifest(b"two")
    await registry.metadata.manifests.put(
        registry.access(subject="dana"), two, tags=(Tag("latest"),)
    )
    access = registry.access()
    found = await registry.hot.manifest_by_tag(access, Tag("latest"))
    assert found is not None and found.digest == two.digest
    newest, oldest = await registry.metadata.tags.history(access, Tag("latest"))
    assert (newest.old, newest.new, newest.actor) == (one.digest, two.digest, "dana")
    assert (oldest.old, oldest.new, oldest.actor) == (None, one.digest, "omri")
    assert newest.at - oldest.at == 60
    assert (await registry.queued())["manifest", str(one.digest)] == ("tag moved", DAY)


async def test_remove_takes_the_tag_only(registry):
    new = await registry.image(b"{}", "a", "b")
    access = registry.access()
    await registry.metadata.tags.remove(access, Tag("a"))
    assert await registry.hot.manifest_by_tag(access, Tag("a")) is None
    assert await registry.hot.manifest_by_tag(access, Tag("b")) is not None
    assert await registry.hot.manifest_by_digest(access, new.digest) is not None
    assert ("tag.removed", str(new.digest), "a") in await registry.events()
    assert (await registry.queued())["manifest", str(new.digest)] == ("tag removed", DAY)
    with pytest.raises(ManifestUnknown):
        await registry.metadata.tags.remove(access, Tag("a"))


async def test_tags_differ_by_case(registry):
    upper = await registry.image(b"upper", "V1")
    lower = await registry.image(b"lower", "v1")
    access = registry.access()
    assert (await registry.hot.manifest_by_tag(access, Tag("V1"))).digest == upper.digest
    assert (await registry.hot.manifest_by_tag(access, Tag("v1"))).digest == lower.digest


async def test_unknown_repository(registry):
    with pytest.raises(NameUnknown):
        await registry.metadata.tags.page(registry.access(), n=10)
    with pytest.raises(NameUnknown):
        await registry.metadata.tags.remove(registry.access(), Tag("a"))
    assert await registry.metadata.tags.history(registry.access(), Tag("a")) == ()


async def test_a_repository_without_tags_has_an_empty_page(registry):
    await registry.metadata.uploads.begin(registry.access())
    page = await registry.metadata.tags.page(registry.access(), n=10)
    assert (page.items, page.more) == ((), False)


async def test_no_items_asked_for_none_given(registry):
    await registry.image(b"{}", "a", "b")
    page = await registry.metadata.tags.page(registry.access(), n=0)
    assert (page.items, page.more) == ((), False)


@given(
    names=TAGS,
    n=st.integers(1, 7),
    last=st.one_of(st.just(""), TAGS.map(lambda s: min(s, default=""))),
)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_pages_together_are_the_sorted_listing(registry, names, n, last):
    access = registry.access(f"r{abs(hash((frozenset(names), n, last)))}")
    new = manifest(b"{}")
    await registry.metadata.manifests.put(access, new, tags=tuple(map(Tag, names)))
    expected = sorted((name for name in names if name > last), key=str.encode)
    listed: list[str] = []
    more = True
    while more:
        page = await registry.metadata.tags.page(access, n=n, last=last)
        assert len(page.items) == n or not page.more
        listed += [tag.text for tag in page.items]
        last, more = listed[-1] if listed else last, page.more
    assert listed == expected


async def test_rights(registry):
    await registry.image(b"{}", "a")
    with pytest.raises(Denied):
        await registry.metadata.tags.remove(registry.access("team/app", "x", PULL, PUSH), Tag("a"))
    with pytest.raises(Denied):
        await registry.metadata.tags.page(registry.access("team/app", "x", PUSH), n=1)


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        ("a\x00z", ["ab", "b"]),
        ("aé", ["b"]),
        ("a\udc80", ["b"]),
        ("\x00", ["a", "ab", "b"]),
        ("~", []),
        ("x" * 100_000, []),
    ],
    ids=["NUL", "not ASCII", "surrogate", "NUL alone", "after all", "long"],
)
async def test_a_page_may_begin_after_any_text(registry, last, expected):
    await registry.image(b"{}", "a", "ab", "b")
    page = await registry.metadata.tags.page(registry.access(), n=10, last=last)
    assert [tag.text for tag in page.items] == expected
