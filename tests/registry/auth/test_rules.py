"""Patterns, and which rule decides."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.scope import format_scopes, parse_scopes
from registry.auth import rules
from registry.auth.globs import check_repositories, matches
from registry.auth.policy import ANONYMOUS, Policy, Subject
from registry.auth.rules import ImmutableRule, Limit, Rule, parse_subject
from registry.errors import PolicyInvalid

NAMES = ["a", "b", "team", "team1", "a/b", "a/b/a", "team/a", "team/a/b", "a/team/a"]


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("team*", ["team", "team1"], ["team/app", "xteam", "team1/x"]),
        ("team/*", ["team/app"], ["team", "team/app/x", "team2/app"]),
        ("team/**", ["team/app", "team/app/x"], ["team", "team2/app"]),
        ("**/app", ["app", "a/app", "a/b/app"], ["xapp", "app/x"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "xa/b", "a/b/x"]),
        ("**/a/**/b", ["a/b", "x/a/a/y/b"], ["b/a"]),
        ("**", ["a", "a/b/c"], []),
        ("a?c", ["abc"], ["a/c", "ac"]),
        ("*-ci/*", ["x-ci/a", "a-ci-ci/b"], ["a-ci", "a-cix/b"]),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_patterns(glob, yes, no):
    check_repositories(glob)
    assert [name for name in yes if not matches(glob, name)] == []
    assert [name for name in no if matches(glob, name)] == []


@pytest.mark.parametrize("glob", ["", "/a", "a//b", "a/", "a**", "A", "a b", "[a]", "a" * 256, "ö"])
def test_attack_patterns_that_are_none(glob):
    with pytest.raises(PolicyInvalid):
        check_repositories(glob)


def _slow(glob: str, name: str) -> bool:
    """The same in the plainest way."""
    parts = [
        "(?:.+/)?" if part == "**" and place < glob.count("/") else
        ".+" if part == "**" else
        "".join({"*": "[^/]*", "?": "[^/]"}.get(c, re.escape(c)) for c in part)
        for place, part in enumerate(glob.split("/"))
    ]  # fmt: skip
    words = "/".join(parts).replace("(?:.+/)?/", "(?:.+/)?")
    return re.fullmatch(words, name) is not None


_part = st.text("ab?*", min_size=1, max_size=4).filter(lambda part: "**" not in part)
_globs = st.lists(_part | st.just("**"), min_size=1, max_size=4).map("/".join)
_names = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=5).map("/".join)


@given(glob=_globs, name=_names)
def test_patterns_mean_what_the_plainest_reading_says(glob, name):
    assert matches(glob, name) == _slow(glob, name)


def test_attack_a_pattern_that_takes_for_ever():
    """Would take years with backtracking."""
    glob = check_repositories("/".join(["**", "*a*a*a*a*a*a*a*a*b"] * 5))
    assert not matches(glob, "/".join(["a" * 40] * 6))


@pytest.mark.parametrize("text", ["", "ann", "user:", "anonymous:x", "king:ann"])
def test_subjects_that_are_nobody(text):
    with pytest.raises(PolicyInvalid):
        parse_subject(text)


_rules = st.lists(
    st.builds(
        Rule,
        id=st.integers(1, 9),
        repositories=st.sampled_from(["**", "a/*", "team*", "team/**", "a"]),
        subject_kind=st.sampled_from(rules.KINDS),
        subject_name=st.sampled_from(["ann", "dev"]),
        actions=st.frozensets(st.sampled_from(rules.ACTIONS), min_size=1),
        effect=st.sampled_from(["allow", "deny"]),
    ),
    max_size=5,
).map(tuple)
_limits = st.none() | st.builds(
    Limit,
    actions=st.frozensets(st.sampled_from(rules.ACTIONS)),
    repositories=st.sampled_from([(), ("a/*",), ("team/**", "a")]),
)
_subjects = st.just(ANONYMOUS) | st.builds(
    Subject,
    st.just("ann"),
    st.sampled_from(["admin", "writer", "reader", "user"]),
    st.sampled_from(["user", "robot"]),
    _limits,
)
_policies = st.builds(
    Policy,
    anonymous_pull=st.booleans(),
    rules=_rules,
    groups=st.sampled_from([{}, {"ann": frozenset({"dev"})}]),
)


@given(policy=_policies, subject=_subjects, name=st.sampled_from(NAMES))
def test_all_answers_agree(policy, subject, name):
    may = {each for each in rules.ACTIONS if policy.decide(subject, each, name).allowed}
    rights = policy.rights(subject, name)
    assert ("pull" in rights.actions) == ("pull" in may) == policy.readable(subject)(name)
    assert ("push" in rights.actions) == bool(may & {"create", "overwrite"})
    assert ("delete" in rights.actions) == ("delete" in may)
    if "push" in rights.actions:
        assert rights.tags.may_create == ("create" in may)
        assert rights.tags.may_overwrite == ("overwrite" in may)
    granted = policy.grant(subject, parse_scopes(f"repository:{name}:pull,push,delete"))
    assert {a for scope in granted for a in scope.actions} == rights.actions


@given(policy=_policies, subject=_subjects, name=st.sampled_from(NAMES),
       action=st.sampled_from(rules.ACTIONS))  # fmt: skip
def test_attack_an_access_token_wider_than_its_owner(policy, subject, name, action):
    owner = Subject(subject.name, subject.role, subject.kind)
    if policy.decide(subject, action, name).allowed:
        assert policy.decide(owner, action, name).allowed


@given(policy=_policies, subject=_subjects, name=st.sampled_from(NAMES),
       action=st.sampled_from(rules.ACTIONS))  # fmt: skip
def test_a_rule_that_denies_beats_every_one_that_allows(policy, subject, name, action):
    decision = policy.decide(subject, action, name)
    if decision.allowed and subject.role != "admin":
        deny = Rule(99, "**", "anonymous" if subject == ANONYMOUS else "authenticated", "",
                    frozenset({action}), "deny")  # fmt: skip
        denied = Policy(policy.anonymous_pull, (*policy.rules, deny), groups=policy.groups)
        assert not denied.decide(subject, action, name).allowed
    if decision.rule is not None:
        assert decision.reason.startswith(f"rule {decision.rule.id}: ")


def test_the_reason_is_told():
    rule = Rule(3, "team/**", "group", "dev", frozenset({"pull", "create"}), "allow")
    policy = Policy(rules=(rule,), groups={"ann": frozenset({"dev"})})
    ann = Subject("ann", "user")
    assert policy.decide(ann, "pull", "team/a").reason == (
        "rule 3: allow group:dev pull,create on team/**"
    )
    assert policy.decide(ann, "delete", "team/a").reason == "no rule allows it"
    assert policy.decide(Subject("bob", "user"), "pull", "team/a").reason == "no rule allows it"
    assert policy.decide(Subject("x", "writer"), "pull", "team/a").reason == "the role writer"
    asked = parse_scopes("repository:team/a:pull,push,delete")
    assert format_scopes(policy.grant(ann, asked)) == "repository:team/a:pull,push"


def test_only_tags_of_the_pattern_are_kept():
    policy = Policy(immutable=(ImmutableRule(1, "team/**", "v*"), ImmutableRule(2, "a", "*", True)))
    assert policy.is_kept("team/a", "v1") and not policy.is_kept("team/a", "latest")
    assert not policy.is_kept("a", "v1")
    tags = policy.rights(Subject("w", "writer"), "a").tags
    assert tags.is_immutable("v1")
