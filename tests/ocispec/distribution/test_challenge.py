from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.challenge import Challenge, parse_challenges
from ocispec.errors import InvalidHeader
from tests.ocispec.strategies import challenges

REALM = "https://auth.example/token"


@pytest.mark.parametrize(
    ("header", "expected", "description"),
    [
        (
            f'Bearer realm="{REALM}",service="r.example",scope="repository:a:pull"',
            [
                (
                    "Bearer",
                    {"realm": REALM, "service": "r.example", "scope": "repository:a:pull"},
                )
            ],
            "as registries send it",
        ),
        (
            f'Bearer realm="{REALM}", error="insufficient_scope"',
            [("Bearer", {"realm": REALM, "error": "insufficient_scope"})],
            "space after the comma",
        ),
        ('Basic realm="pyreg"', [("Basic", {"realm": "pyreg"})], "basic"),
        ('bearer REALM="x"', [("Bearer", {"realm": "x"})], "without case"),
        (
            'Basic realm="a", Bearer realm="b",service=c',
            [("Basic", {"realm": "a"}), ("Bearer", {"realm": "b", "service": "c"})],
            "two challenges",
        ),
        (
            'Negotiate, Basic realm="a"',
            [("Negotiate", {}), ("Basic", {"realm": "a"})],
            "a scheme alone",
        ),
        (f"Bearer realm={REALM},service=x", [("Bearer", {"realm": REALM, "service": "x"})], "bare"),
        (
            'Basic realm="a \\"b\\" \\\\, c=d, Bearer x"',
            [("Basic", {"realm": 'a "b" \\, c=d, Bearer x'})],
            "separators and escapes inside quotes",
        ),
        ('Basic realm=""', [("Basic", {"realm": ""})], "empty value"),
        (
            'Basic realm = "a" , b = c',
            [("Basic", {"realm": "a", "b": "c"})],
            "much space",
        ),
        (', ,Basic realm="a",,', [("Basic", {"realm": "a"})], "empty list elements"),
        ("", [], "empty"),
    ],
)
def test_parse(header: str, expected: list[tuple[str, dict[str, str]]], description: str) -> None:
    assert parse_challenges(header) == tuple(Challenge(*parts) for parts in expected)


def test_a_token_in_place_of_parameters() -> None:
    first, second = parse_challenges("Negotiate YII/+a==, Basic realm=x")
    assert first == Challenge("Negotiate", {}, "YII/+a==")
    assert second.parameters == {"realm": "x"}
    assert first.format() == "Negotiate YII/+a=="


@pytest.mark.parametrize(
    ("header", "description"),
    [
        ('Bearer realm="x', "quote left open"),
        ('Bearer realm="x\\"', "quote left open after an escape"),
        ('Bearer realm="a" service="b"', "no comma"),
        ('Bearer realm="a",realm="b"', "a parameter twice"),
        ('Bearer realm="a",REALM="b"', "twice, in other case"),
        ("Bearer realm=,service=x", "no value"),
        ("Bearer =x", "no name"),
        ('"Bearer"', "quotes around the scheme"),
        ('Bearer realm="a\r\nX: y"', "header injection"),
        ('Bearer realm="a\0"', "NUL"),
        ("Bäsic realm=x", "not ASCII"),
        ("Bearer " + ",".join(f"a{i}=b" for i in range(40)), "too many parameters"),
        (",".join(f"S{i} a=b" for i in range(20)), "too many challenges"),
        ("Basic realm=" + "x" * 20_000, "too long"),
    ],
)
def test_refused(header: str, description: str) -> None:
    with pytest.raises(InvalidHeader):
        parse_challenges(header)


@given(st.lists(challenges, max_size=3))
def test_text_reads_back(items: list[Challenge]) -> None:
    header = ", ".join(item.format() for item in items)
    assert parse_challenges(header) == tuple(items)


@given(st.text() | st.text('Basic "=,\\/ \t'))
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        for challenge in parse_challenges(header):
            assert parse_challenges(challenge.format()) == (challenge,)
    except InvalidHeader:
        pass


@pytest.mark.parametrize(
    "challenge",
    [Challenge("Basic", {"realm": "a\nb"}), Challenge("Basic", {"realm": "\u20ac"}), Challenge("")],
)
def test_format_refuses_what_a_header_cannot_carry(challenge: Challenge) -> None:
    with pytest.raises(InvalidHeader):
        challenge.format()


def test_challenges_can_be_counted() -> None:
    assert len({Challenge("Basic", {"realm": "a"}), Challenge("Basic", {"realm": "a"})}) == 1


def test_no_header_takes_long() -> None:
    start = time.perf_counter()
    for header in ("a " * 8000, "a=" * 8000, 'B r="' + "\\a" * 8000, "a" * 16_000, "," * 16_000):
        try:
            parse_challenges(header)
        except InvalidHeader:
            pass
    assert time.perf_counter() - start < 1
