from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.name import RepositoryName, Tag
from ocispec.errors import InvalidName
from tests.ocispec.strategies import names, tags


@given(names)
def test_name_reads_back(name: RepositoryName) -> None:
    assert RepositoryName.parse(str(name)) == name
    assert "/".join(name.components) == name.text


@given(tags)
def test_tag_reads_back(tag: Tag) -> None:
    assert Tag.parse(str(tag)) == tag


@given(st.text())
def test_any_text_is_a_name_or_refused(text: str) -> None:
    for kind in (RepositoryName, Tag):
        try:
            assert str(kind.parse(text)) == text
        except InvalidName:
            pass
        else:
            assert text.isascii()


@pytest.mark.parametrize(
    "text",
    ["a", "0", "omrisiri/wget", "a.b_c__d-e---f", "library/a/b/c/d", "a" * 255, "blobs/uploads"],
)
def test_repository_names(text: str) -> None:
    assert RepositoryName.parse(text).text == text


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("", "empty"),
        ("/a", "starts with a slash"),
        ("a/", "ends with a slash"),
        ("a//b", "empty component"),
        ("a..b", "two dots"),
        ("../a", "path upwards"),
        ("a/..", "path upwards"),
        ("a___b", "three underscores"),
        ("a.-b", "two kinds of separator"),
        ("-a", "starts with a separator"),
        ("a_", "ends with a separator"),
        ("A/b", "capitals"),
        ("a b", "a space"),
        ("a:b", "a colon"),
        ("a\n", "newline at the end"),
        ("ä", "not ASCII"),
        ("\u0661", "a digit, but not of ASCII"),
        ("a%2fb", "escaped slash"),
        ("a" * 256, "too long"),
    ],
)
def test_refused_repository_names(text: str, description: str) -> None:
    with pytest.raises(InvalidName) as caught:
        RepositoryName(text)
    assert str(caught.value).isascii() and len(str(caught.value)) < 300


def test_capitals_get_a_clear_hint() -> None:
    with pytest.raises(InvalidName, match="must be lowercase") as caught:
        RepositoryName.parse("OmriSiri/Wget")
    assert caught.value.hint == "write omrisiri/wget"


@pytest.mark.parametrize("text", ["latest", "1.0", "_x", "V1-rc.1_2", "sha256-abc.sig", "a" * 128])
def test_tag_names(text: str) -> None:
    assert Tag.parse(text).text == text


@pytest.mark.parametrize("text", ["", ".a", "-a", "a/b", "a:b", "a+b", "a\n", "é", "a" * 129])
def test_refused_tags(text: str) -> None:
    with pytest.raises(InvalidName, match="is not a tag"):
        Tag(text)


def test_no_name_takes_long_to_refuse() -> None:
    start = time.perf_counter()
    for text in ("a-" * 127, "a" * 254 + "!", "-" * 255, "a" + "-" * 253 + "!", "a." * 10**6):
        with pytest.raises(InvalidName):
            RepositoryName.parse(text)
    assert time.perf_counter() - start < 0.5
