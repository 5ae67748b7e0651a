from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.scope import (
    MAX_SCOPES,
    Scope,
    format_scopes,
    intersect,
    merge,
    parse_scopes,
)
from ocispec.errors import InvalidScope
from tests.ocispec.strategies import scopes


def scope(kind: str, name: str, *actions: str) -> Scope:
    return Scope(kind, name, frozenset(actions))


@given(scopes)
def test_text_reads_back(item: Scope) -> None:
    assert Scope.parse(str(item)) == item


@given(st.lists(scopes, max_size=4))
def test_lists_read_back_merged(items: list[Scope]) -> None:
    assert parse_scopes(format_scopes(items)) == merge(items)


@given(st.text() | st.text("repository:(/)a,*"))
def test_any_text_is_a_scope_or_refused(text: str) -> None:
    try:
        item = Scope.parse(text)
    except InvalidScope:
        return
    assert Scope.parse(str(item)) == item


@pytest.mark.parametrize(
    ("text", "expected", "description"),
    [
        ("repository:a/b:pull", scope("repository", "a/b", "pull"), "one action"),
        ("repository:a/b:push,pull", scope("repository", "a/b", "pull", "push"), "two"),
        ("repository:a/b:pull,pull", scope("repository", "a/b", "pull"), "one twice"),
        ("registry:catalog:*", scope("registry", "catalog", "*"), "the catalog"),
        ("repository:h:5000/a:pull", scope("repository", "h:5000/a", "pull"), "host with port"),
        ("repository:[::1]:1/a:pull", scope("repository", "[::1]:1/a", "pull"), "IPv6"),
        ("repository(plugin):a/b:pull", scope("repository", "a/b", "pull"), "class is dropped"),
        ("repository:a/b:", scope("repository", "a/b"), "no action"),
    ],
)
def test_parse(text: str, expected: Scope, description: str) -> None:
    assert Scope.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("", "empty"),
        ("repository", "no name"),
        ("repository:a", "no actions"),
        (":a:pull", "no type"),
        ("repository::pull", "empty name"),
        ("repository:a:PULL", "action in capitals"),
        ("repository:a:pull,", "empty action"),
        ("repository:a:pull,,push", "empty action"),
        ("repository(:a:pull", "class left open"),
        ("repository:a b:pull", "a space"),
        ("repository:ä:pull", "not ASCII"),
        ("repository:a:pull\n", "newline"),
        ("repository:" + "a" * 2000 + ":pull", "too long"),
    ],
)
def test_refused(text: str, description: str) -> None:
    with pytest.raises(InvalidScope):
        Scope.parse(text)


def test_any_iterable_of_actions_is_taken() -> None:
    assert Scope("repository", "a", ("push", "pull")) == scope("repository", "a", "pull", "push")  # type: ignore[arg-type]


def test_actions_are_written_as_clients_do() -> None:
    assert str(scope("repository", "a", "delete", "zip", "push", "*", "pull")) == (
        "repository:a:pull,push,delete,*,zip"
    )


def test_a_star_allows_everything() -> None:
    assert scope("repository", "a", "*").allows("push")
    assert scope("repository", "a", "pull").allows("pull")
    assert not scope("repository", "a", "pull").allows("push")


def test_scopes_of_a_mount() -> None:
    assert parse_scopes(" repository:dst:pull,push  repository:src:pull ") == (
        scope("repository", "dst", "pull", "push"),
        scope("repository", "src", "pull"),
    )
    assert parse_scopes("repository:a:pull registry:catalog:* repository:a:push") == (
        scope("repository", "a", "pull", "push"),
        scope("registry", "catalog", "*"),
    )
    assert parse_scopes("") == ()


def test_the_list_is_bounded() -> None:
    with pytest.raises(InvalidScope, match="more than 100"):
        parse_scopes(" ".join(f"repository:a{i}:pull" for i in range(MAX_SCOPES + 1)))
    with pytest.raises(InvalidScope, match="too long"):
        parse_scopes(" " * 10**6)


@pytest.mark.parametrize(
    ("requested", "granted", "expected", "description"),
    [
        ("repository:a:pull,push", "repository:a:pull", "repository:a:pull", "part of it"),
        ("repository:a:pull", "repository:a:pull,push", "repository:a:pull", "no more than asked"),
        ("repository:a:pull", "repository:b:pull", "", "another repository"),
        ("repository:a:pull", "registry:a:pull", "", "another type"),
        ("repository:a:pull,push", "repository:a:*", "repository:a:pull,push", "all granted"),
        ("repository:a:*", "repository:a:pull,push", "repository:a:pull,push", "all asked"),
        ("repository:a:push", "repository:a:pull", "", "nothing left"),
        ("repository:a:pull", "", "", "nothing granted"),
    ],
)
def test_intersect(requested: str, granted: str, expected: str, description: str) -> None:
    assert intersect(parse_scopes(requested), parse_scopes(granted)) == parse_scopes(expected)


@given(st.lists(scopes, max_size=4), st.lists(scopes, max_size=4))
def test_the_intersection_allows_nothing_that_either_side_does_not(
    requested: list[Scope], granted: list[Scope]
) -> None:
    for item in intersect(requested, granted):
        for side in (requested, granted):
            allowing = [s for s in side if (s.type, s.name) == (item.type, item.name)]
            assert all(any(s.allows(action) for s in allowing) for action in item.actions)
