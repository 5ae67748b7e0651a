"""The table of roles, and that a grant is never more than asked or allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.scope import format_scopes, parse_scopes
from registry.auth.policy import ANONYMOUS, Policy, Subject

ALL = "repository:a/b:pull,push,delete"

CASES = [
    # role        anonymous pull   asked                             granted
    ("admin", False, ALL, ALL),
    ("writer", False, ALL, ALL),
    ("reader", False, ALL, "repository:a/b:pull"),
    ("", False, ALL, ""),
    ("", True, ALL, "repository:a/b:pull"),
    ("emperor", True, ALL, ""),
    ("writer", False, "repository:a/b:*", ALL),
    ("reader", False, "repository:a/b:*", "repository:a/b:pull"),
    ("writer", False, "repository(plugin):a/b:pull", "repository:a/b:pull"),
    ("writer", False, "repository:a/b:pull,fly", "repository:a/b:pull"),
    ("writer", False, "repository:a/b:", ""),
    ("writer", False, "repository:a:pull repository:b:push", "repository:a:pull repository:b:push"),
    ("reader", False, "repository:a:pull repository:b:push", "repository:a:pull"),
    ("reader", False, "registry:catalog:*", "registry:catalog:*"),
    ("", True, "registry:catalog:*", ""),
    ("admin", False, "registry:users:*", ""),
    ("admin", False, "galaxy:a/b:pull", ""),
    ("admin", False, "", ""),
]


@pytest.mark.parametrize(("role", "anonymous_pull", "asked", "granted"), CASES)
def test_grants(role, anonymous_pull, asked, granted):
    subject = Subject("omri", role) if role else ANONYMOUS
    result = Policy(anonymous_pull=anonymous_pull).grant(subject, parse_scopes(asked))
    assert format_scopes(result) == granted


def test_only_admins_administer():
    assert Subject("omri", "admin").is_admin
    assert not Subject("omri", "writer").is_admin
    assert not ANONYMOUS.is_admin


def test_a_subject_without_role_is_not_taken_for_somebody():
    assert not Policy().actions(Subject("omri", ""), "a/b")
    assert not Policy().may_list(ANONYMOUS)


@given(
    role=st.sampled_from(["admin", "writer", "reader", ""]),
    anonymous_pull=st.booleans(),
    actions=st.sets(st.sampled_from(["pull", "push", "delete", "*", "other"])),
)
def test_a_grant_is_within_what_the_subject_may_do(role, anonymous_pull, actions):
    policy = Policy(anonymous_pull=anonymous_pull)
    subject = Subject("omri", role) if role else ANONYMOUS
    asked = parse_scopes(f"repository:a/b:{','.join(sorted(actions))}")
    for scope in policy.grant(subject, asked):
        assert scope.actions <= policy.actions(subject, "a/b")
        assert "*" in actions or scope.actions <= actions
