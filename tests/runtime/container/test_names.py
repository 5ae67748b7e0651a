"""Ids and names."""

from __future__ import annotations

import os

import pytest

from runtime.container import names
from runtime.errors import ContainerUnknown, EngineError, NameInUse
from runtime.paths import Paths


@pytest.fixture
def paths(tmp_path) -> Paths:
    made = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    made.create()
    return made


def make(paths: Paths, container_id: str) -> str:
    os.mkdir(paths.container(container_id))
    return container_id


def test_ids_are_hexadecimal_and_never_look_like_a_number() -> None:
    digits = iter([b"\x12" * 32, b"\xab" * 32])
    assert names.new_id(lambda _: next(digits)) == "ab" * 32


def test_suggestions_are_two_words() -> None:
    first, _, second = names.suggest_name().partition("_")
    assert first in names.ADJECTIVES
    assert second in names.NOUNS
    assert len(set(names.ADJECTIVES)) == len(names.ADJECTIVES)
    assert len(set(names.NOUNS)) == len(names.NOUNS)


def test_a_name_is_taken_once_and_given_up_by_its_holder_only(paths: Paths) -> None:
    first, second = make(paths, "a" * 64), make(paths, "b" * 64)
    names.take_name(paths, "web", first)
    with pytest.raises(NameInUse, match='"/web" is already in use'):
        names.take_name(paths, "web", second)
    names.release_name(paths, "web", second)
    assert names.find_id(paths, "web") == first
    names.release_name(paths, "web", first)
    names.take_name(paths, "web", second)
    assert names.find_id(paths, "/web") == second


def test_a_name_left_over_by_a_crash_is_free(paths: Paths) -> None:
    os.symlink("../containers/" + "c" * 64, paths.name("web"))
    names.take_name(paths, "web", make(paths, "a" * 64))
    assert names.find_id(paths, "web") == "a" * 64


def test_prefixes(paths: Paths) -> None:
    one, two = make(paths, "abc1" + "0" * 60), make(paths, "abc2" + "0" * 60)
    assert names.find_id(paths, "abc1") == one
    assert names.find_id(paths, two) == two
    with pytest.raises(ContainerUnknown, match="multiple"):
        names.find_id(paths, "abc")
    for wanted in ("", "abd", "xyz", "../x", "A", "abc1" + "0" * 61):
        with pytest.raises(ContainerUnknown):
            names.find_id(paths, wanted)


def test_a_name_goes_before_a_prefix(paths: Paths) -> None:
    one, two = make(paths, "abc1" + "0" * 60), make(paths, "def2" + "0" * 60)
    names.take_name(paths, "abc", two)
    assert names.find_id(paths, "abc") == two
    assert names.find_id(paths, "abc1") == one


@pytest.mark.parametrize("name", ["", "x", "-x", "a b", "../x", "a/b", "ä1", "a\n"])
def test_refused_names(paths: Paths, name: str) -> None:
    with pytest.raises(EngineError):
        names.take_name(paths, name, make(paths, "a" * 64))
    assert os.listdir(paths.names) == []
