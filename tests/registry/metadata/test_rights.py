"""Groups, access tokens and rules: on both databases, and how they end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ocispec.distribution.name import RepositoryName, Tag
from registry.auth.policy import Policy, Subject
from registry.auth.rules import Limit, WantedImmutable, WantedRule
from registry.errors import (
    AccountUnknown,
    Denied,
    GroupExists,
    GroupUnknown,
    LastAdministrator,
    PolicyChanged,
    PolicyInvalid,
    RuleUnknown,
    TokenUnknown,
)
from registry.metadata.base import Access
from tests.registry.metadata.conftest import manifest

ALL = frozenset({"pull"})


async def _version(registry) -> int:
    return await registry.metadata.hot.policy_version()


async def test_every_change_of_rights_is_counted(registry):
    m = registry.metadata
    await m.accounts.add("ann", "h", "user")
    await m.groups.add("dev")
    token = await m.access_tokens.add("ann", "hash", label="", limit=Limit(), expires_at=None)
    rule = await m.policy.add_rule("**", "group:dev", ALL, "allow")
    kept = await m.policy.add_immutable("**", "v*")
    changes = [
        lambda: m.groups.join("dev", "ann"),
        lambda: m.groups.leave("dev", "ann"),
        lambda: m.groups.set_groups("ann", ["dev", "other"]),
        lambda: m.access_tokens.revoke("ann", token.id),
        lambda: m.policy.remove_rule(rule.id),
        lambda: m.policy.remove_immutable(kept.id),
        lambda: m.accounts.set_role("ann", "reader"),
        lambda: m.accounts.set_disabled("ann", True),
        lambda: m.accounts.set_password("ann", "x"),
        lambda: m.groups.remove("dev"),
        lambda: m.accounts.remove("ann"),
    ]
    for change in changes:
        before = await _version(registry)
        await change()
        assert await _version(registry) > before
        assert (await m.policy.load()).version == await _version(registry)
    before = await _version(registry)
    await m.accounts.add("bob", "h", "user")
    found = await m.hot.account("bob")
    assert found.version == await _version(registry) == before + 1
    assert (await m.accounts.find("bob")).version == found.version


async def test_groups(registry):
    m = registry.metadata
    await m.accounts.add("ann", "h", "user")
    await m.groups.add("dev")
    await m.groups.add("ops")
    with pytest.raises(GroupExists):
        await m.groups.add("dev")
    await m.groups.join("dev", "ann")
    await m.groups.join("dev", "ann")
    assert (await m.groups.find("dev")).members == ("ann",)
    await m.groups.set_groups("ann", ["ops", "unknown"])
    assert await m.groups.of("ann") == ("ops",)
    assert [(g.name, g.members) for g in await m.groups.all()] == [("dev", ()), ("ops", ("ann",))]
    assert (await m.policy.load()).groups == {"ann": frozenset({"ops"})}
    for call in (m.groups.join("no", "ann"), m.groups.leave("no", "ann"), m.groups.remove("no")):
        with pytest.raises(GroupUnknown):
            await call
    with pytest.raises(AccountUnknown):
        await m.groups.join("dev", "nobody")
    assert await m.groups.find("no") is None


async def test_access_tokens(registry):
    m, clock = registry.metadata, registry.clock
    await m.accounts.add("bot", "", "user", kind="robot")
    limit = Limit(frozenset({"pull"}), ("team/*", "a"))
    token = await m.access_tokens.add(
        "bot", "hash", label="ci", limit=limit, expires_at=int(clock.now) + 100
    )
    found = await m.access_tokens.find("hash")
    assert (found.name, found.kind, found.token) == ("bot", "robot", token)
    assert (await m.access_tokens.holder(token.id)).token == token
    await m.access_tokens.used(token.id)
    first = int(clock.now)
    clock.sleep(60)
    await m.access_tokens.used(token.id)
    assert [t.last_used_at for t in await m.access_tokens.of("bot")] == [first]
    clock.sleep(40)
    assert await m.access_tokens.find("hash") is None  # expired
    assert await m.access_tokens.holder(token.id) is None
    await m.accounts.add("ann", "h", "user")
    with pytest.raises(TokenUnknown):
        await m.access_tokens.revoke("ann", token.id)
    await m.access_tokens.revoke("bot", token.id)
    assert await m.access_tokens.of("bot") == ()
    with pytest.raises(PolicyInvalid):
        await m.access_tokens.add(
            "ann", "x", label="", limit=Limit(repositories=("A",)), expires_at=None
        )
    await m.access_tokens.add("ann", "other", label="", limit=Limit(), expires_at=None)
    await m.accounts.set_disabled("ann", True)
    assert await m.access_tokens.find("other") is None


async def test_attack_a_new_account_of_an_old_name_inherits_nothing(registry):
    m = registry.metadata
    for _ in range(2):
        await m.accounts.add("ann", "h", "user")
        rows = await m.policy.load()
        assert (rows.rules, rows.groups) == ((), {})
        assert await m.access_tokens.of("ann") == ()
        await m.groups.add("dev")
        await m.groups.join("dev", "ann")
        await m.policy.add_rule("**", "user:ann", ALL, "allow")
        await m.policy.add_rule("**", "group:dev", ALL, "allow")
        await m.access_tokens.add("ann", "hash", label="", limit=Limit(), expires_at=None)
        await m.accounts.remove("ann")
        await m.groups.remove("dev")


async def test_rules_name_somebody_who_exists(registry):
    m = registry.metadata
    await m.accounts.add("ann", "h", "user")
    for subject, error in [
        ("user:bob", AccountUnknown),
        ("robot:ann", AccountUnknown),
        ("group:x", GroupUnknown),
        ("king", PolicyInvalid),
    ]:
        with pytest.raises(error):
            await m.policy.add_rule("**", subject, ALL, "allow")
    rule = await m.policy.add_rule("team/**", "user:ann", frozenset({"pull", "create"}), "deny")
    assert (await m.policy.load()).rules == (rule,)
    for gone in (m.policy.remove_rule(99), m.policy.remove_immutable(99)):
        with pytest.raises(RuleUnknown):
            await gone


async def test_attack_the_last_administrator_is_removed(registry):
    accounts = registry.metadata.accounts
    await accounts.add("a", "h", "admin")
    await accounts.add("b", "h", "admin")
    results = await asyncio.gather(
        accounts.remove("a"), accounts.set_role("b", "user"), return_exceptions=True
    )
    assert [type(each) for each in results].count(LastAdministrator) == 1
    [left] = [each.name for each in await accounts.all() if each.role == "admin"]
    for call in (accounts.remove(left), accounts.set_disabled(left, True)):
        with pytest.raises(LastAdministrator):
            await call


def _access(policy: Policy, subject: Subject, name: str) -> Access:
    rights = policy.rights(subject, name)
    return Access(RepositoryName.parse(name), subject.name, rights.actions, rights.tags)


async def test_attack_an_immutable_tag_overwritten_by_two_at_once(registry):
    """Only one of them creates it; the other one would overwrite it, and by digest is no way."""
    m = registry.metadata
    await m.policy.add_immutable("team/*", "v*")
    rows = await m.policy.load()
    policy = Policy(rules=rows.rules, immutable=rows.immutable)
    access = _access(policy, Subject("w", "writer"), "team/app")
    new = [manifest(b"%d" % n) for n in range(4)]
    results = await asyncio.gather(
        *(m.manifests.put(access, each, tags=(Tag("v1"),)) for each in new),
        return_exceptions=True,
    )
    assert [type(each) for each in results].count(Denied) == 3
    [won] = [each for each, result in zip(new, results, strict=True) if result is True]
    for call in (m.tags.remove(access, Tag("v1")), m.manifests.remove(access, won.digest)):
        with pytest.raises(Denied, match="immutable"):
            await call
    assert (await registry.hot.manifest_by_tag(access, Tag("v1"))).digest == won.digest
    await m.manifests.put(access, won, tags=(Tag("v1"), Tag("latest")))
    await m.tags.remove(access, Tag("latest"))


async def test_create_and_overwrite_are_told_apart_where_the_tag_is(registry):
    m = registry.metadata
    await m.accounts.add("ann", "h", "user")
    rules = [
        await m.policy.add_rule("a", "user:ann", frozenset({"create"}), "allow"),
        await m.policy.add_rule("b", "user:ann", frozenset({"overwrite"}), "allow"),
    ]
    policy = Policy(rules=tuple(rules))
    one, two = manifest(b"1"), manifest(b"2")
    creator = _access(policy, Subject("ann", "user"), "a")
    await m.manifests.put(creator, one, tags=(Tag("x"),))
    with pytest.raises(Denied, match="overwrite"):
        await m.manifests.put(creator, two, tags=(Tag("x"),))
    changer = _access(policy, Subject("ann", "user"), "b")
    with pytest.raises(Denied, match="create"):
        await m.manifests.put(changer, one, tags=(Tag("x"),))
    await m.manifests.put(registry.access("b"), one, tags=(Tag("x"),))
    await m.manifests.put(changer, two, tags=(Tag("x"),))


async def test_a_whole_policy_is_put_in_place_at_once(registry):
    m = registry.metadata
    pull = frozenset({"pull"})
    await m.accounts.add("ann", "x", "user")
    for glob in ("a/*", "b/*"):
        await m.policy.add_rule(glob, "user:ann", pull, "allow")
    await m.policy.add_immutable("a/*", "v*")
    before = await m.policy.load()
    bad = [WantedRule("c/*", "anonymous", pull, "allow"), WantedRule("d", "user:bob", pull, "deny")]
    with pytest.raises(AccountUnknown):
        await m.policy.replace(bad, [])
    with pytest.raises(PolicyChanged):
        await m.policy.replace([], [], versions={str(before.version - 1)})
    assert await m.policy.load() == before

    kept = WantedRule("b/*", "user:ann", pull, "allow")
    wanted = [kept, WantedRule("c/*", "anonymous", pull, "allow")]
    after = await m.policy.replace(
        wanted, [WantedImmutable("a/*", "v*", True)], versions={str(before.version)}
    )
    assert after == await m.policy.load()
    assert after.version == before.version + 1
    assert [r.repositories for r in after.rules] == ["b/*", "c/*"]
    assert after.rules[0] == before.rules[1]
    assert [(r.tags, r.may_expire) for r in after.immutable] == [("v*", True)]
    # Twins stay two.
    twice = await m.policy.replace([kept, kept], [])
    assert [r.repositories for r in twice.rules] == ["b/*", "b/*"]
    assert twice.rules[0] == before.rules[1]
    assert await m.policy.replace([], []) == replace(twice, version=twice.version + 1, rules=())


async def test_of_two_who_replace_what_both_read_one_is_told(registry):
    m = registry.metadata
    version = str((await m.policy.load()).version)
    pull = frozenset({"pull"})
    done = await asyncio.gather(
        *(
            m.policy.replace(
                [WantedRule(f"{each}/*", "anonymous", pull, "allow")], [], versions={version}
            )
            for each in "abcd"
        ),
        return_exceptions=True,
    )
    refused = [each for each in done if isinstance(each, PolicyChanged)]
    assert len(refused) == 3, done
    assert len((await m.policy.load()).rules) == 1
