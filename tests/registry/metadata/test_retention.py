"""Retention: the pure decision by properties, and runs on both databases."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.errors import NotAcknowledged
from registry.metadata.retention_rules import Rule, TagState, name_of, to_go
from registry.upkeep import flush_pulls, run_retention
from tests.registry.metadata.conftest import DAY

NOW = 1_000_000
_times = st.integers(0, NOW)
_tags = st.lists(
    st.builds(TagState, st.text("ab1", min_size=1, max_size=3), _times, _times, _times),
    unique_by=lambda tag: tag.name,
    max_size=12,
)
_rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from(["*", "team/*", "other/*"]),
        st.sampled_from([("*",), ("a*",), ("b*", "1")]),
        st.integers(0, 4),
        st.sampled_from([0, 100, NOW // 2]),
        st.sampled_from([0, 100, NOW // 2]),
    ),
    max_size=4,
)


@given(_rules, _tags)
def test_only_governed_tags_go_and_none_that_a_rule_keeps(rules, tags):
    gone = set(to_go(rules, "team/app", tags, NOW))
    for tag in tags:
        mine = [rule for rule in rules if rule.governs("team/app", tag.name)]
        if not mine:
            assert tag.name not in gone
        if any(tag.newest > NOW - rule.younger_s for rule in mine):
            assert tag.name not in gone
        if any(tag.pulled_at > max(0, NOW - rule.pulled_s) for rule in mine):
            assert tag.name not in gone
    for rule in rules:
        mine = [tag for tag in tags if rule.governs("team/app", tag.name)]
        left = [tag for tag in mine if tag.name not in gone]
        assert len(left) >= min(rule.keep_last, len(mine))


@given(_rules, _tags)
def test_a_second_run_finds_nothing_and_a_further_rule_of_the_same_tags_saves_only(rules, tags):
    gone = to_go(rules, "team/app", tags, NOW)
    left = [tag for tag in tags if tag.name not in gone]
    assert to_go(rules, "team/app", left, NOW) == ()
    for rule in rules:
        again = Rule(rule.repositories, rule.tags, keep_last=5)
        assert set(to_go([*rules, again], "team/app", tags, NOW)) <= set(gone)


@given(_rules)
def test_the_name_of_a_set_does_not_depend_on_its_order(rules):
    assert name_of(rules) == name_of(rules[::-1])
    assert name_of([*rules, Rule("x", keep_last=9)]) != name_of(rules)


async def acknowledged(registry, *rules):
    for rule in rules:
        await registry.metadata.retention.add(rule)
    name, _, _ = await registry.metadata.retention.preview()
    await registry.metadata.retention.acknowledge(name, actor="root")


async def tags(registry):
    page = await registry.metadata.tags.page(registry.access(), n=99)
    return [tag.text for tag in page.items]


async def test_nothing_runs_before_its_preview_was_acknowledged(registry):
    for number in range(4):
        await registry.image(b"%d" % number, f"v{number}")
        registry.clock.sleep(DAY)
    retention = registry.metadata.retention
    await retention.add(Rule("team/*", keep_last=2))
    name, going, _ = await retention.preview()
    assert [(each.repository, each.tag) for each in going] == [
        ("team/app", "v0"),
        ("team/app", "v1"),
    ]
    with pytest.raises(NotAcknowledged):
        await retention.run(name)
    assert await run_retention(registry.metadata) == 0
    await retention.acknowledge(name, actor="root")
    await retention.add(Rule("other/*", keep_last=1))
    assert await run_retention(registry.metadata) == 0
    with pytest.raises(NotAcknowledged):
        await retention.acknowledge(name, actor="root")
    assert await tags(registry) == ["v0", "v1", "v2", "v3"]
    await acknowledged(registry)
    registry.clock.sleep(2 * 3600)
    assert await run_retention(registry.metadata) == 2
    assert await tags(registry) == ["v2", "v3"]
    assert await run_retention(registry.metadata) == 0
    await registry.metadata.history.undo(registry.access, name=RepositoryName("team/app"))
    assert await tags(registry) == ["v0", "v1", "v2", "v3"]


async def test_what_was_pulled_stays(registry):
    await registry.image(b"one", "v1")
    await registry.image(b"two", "v2")
    registry.clock.sleep(10 * DAY)
    pulls = {("team/app", str(Digest.of(b"one"))): None, ("team/none", "sha256:0"): None}
    await flush_pulls(registry.metadata, pulls)
    assert not pulls
    registry.clock.sleep(DAY)
    await acknowledged(registry, Rule("*", pulled_s=5 * DAY))
    assert await run_retention(registry.metadata) == 1
    assert await tags(registry) == ["v1"]


async def test_one_replica_runs_at_a_time(registry):
    await registry.image(b"one", "v1")
    registry.clock.sleep(10 * DAY)
    await acknowledged(registry, Rule("*", younger_s=DAY))
    leases = await asyncio.gather(*(registry.metadata.retention.take_lease() for _ in range(4)))
    assert len([name for name in leases if name]) == 1


async def test_a_tag_that_moves_meanwhile_stays(registry):
    await registry.image(b"one", "v1")
    registry.clock.sleep(10 * DAY)
    await acknowledged(registry, Rule("*", younger_s=DAY))
    name = await registry.metadata.retention.take_lease()
    await registry.image(b"two", "v1")
    assert await registry.metadata.retention.run(name) == (0, "")
    assert await registry.hot.manifest_by_tag(registry.access(), Tag("v1")) is not None


async def test_immutable_tags_stay_unless_their_rule_lets_them_expire(registry):
    for name in ("kept-1", "lapse-1", "free-1"):
        await registry.image(name.encode(), name)
    registry.clock.sleep(10 * DAY)
    await registry.metadata.policy.add_immutable("team/*", "kept-*")
    await registry.metadata.policy.add_immutable("team/*", "lapse-*", may_expire=True)
    await registry.metadata.policy.add_immutable("other/*", "free-*")
    await acknowledged(registry, Rule("team/*", younger_s=DAY))
    _, going, _ = await registry.metadata.retention.preview()
    assert {each.tag for each in going} == {"lapse-1", "free-1"}
    assert await run_retention(registry.metadata) == 2
    assert await tags(registry) == ["kept-1"]
