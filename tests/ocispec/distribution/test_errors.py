from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution import errors
from ocispec.distribution.errors import MESSAGES, STATUS, Problem, parse_problems, problem_body
from tests.ocispec.strategies import json_values


def test_the_fourteen_codes_of_the_spec() -> None:
    assert len(STATUS) == 14 and STATUS.keys() == MESSAGES.keys()
    for code in STATUS:
        assert getattr(errors, code) == code
        assert set(code) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")


def test_the_body_of_an_error() -> None:
    body = problem_body(
        [Problem(errors.DENIED), Problem(errors.DIGEST_INVALID, "not hex", {"digest": "x"})]
    )
    assert json.loads(body) == {
        "errors": [
            {"code": "DENIED", "message": "requested access to the resource is denied"},
            {"code": "DIGEST_INVALID", "message": "not hex", "detail": {"digest": "x"}},
        ]
    }
    assert parse_problems(body) == (
        Problem("DENIED", "requested access to the resource is denied"),
        Problem("DIGEST_INVALID", "not hex", {"digest": "x"}),
    )


@pytest.mark.parametrize(
    ("body", "expected", "description"),
    [
        ({"errors": [{"code": "TAG_INVALID"}]}, ["error (TAG_INVALID)"], "a code of their own"),
        ({"errors": [{"code": "x y", "message": "m"}]}, ["m (UNKNOWN)"], "not a code"),
        ({"errors": [{"message": "m"}, 3, None]}, ["m (UNKNOWN)"], "entries that are no objects"),
        ({"errors": [{"code": "DENIED", "message": 5}]}, [f"{MESSAGES['DENIED']} (DENIED)"], ""),
        ({"errors": []}, [], "empty list"),
        ({"errors": "x"}, [], "not a list"),
        (
            {"details": "wrong password"},
            ["wrong password (UNKNOWN)"],
            "Docker Hub",
        ),
        ({"error": "invalid_grant", "error_description": "no"}, ["no (UNKNOWN)"], "OAuth 2"),
        ({"error": "invalid_grant"}, ["invalid_grant (UNKNOWN)"], "OAuth 2, short"),
        ({"message": "Not Found"}, ["Not Found (UNKNOWN)"], "a proxy"),
        ({"message": ""}, [], "empty message"),
        (
            {"errors": [{"code": "DENIED", "message": "a\x1b[2J\nb\u202e" + "c" * 5000}]},
            None,
            "terminal escapes, and endless",
        ),
    ],
)
def test_what_a_peer_says(body: object, expected: list[str] | None, description: str) -> None:
    found = [str(problem) for problem in parse_problems(json.dumps(body).encode())]
    if expected is None:
        assert len(found) == 1 and found[0].isprintable() and len(found[0]) < 1100
    else:
        assert found == expected


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_error_body_says_nothing(raw: bytes) -> None:
    assert parse_problems(raw) == ()


def test_a_body_longer_than_the_limit_says_nothing() -> None:
    body = problem_body([Problem(errors.DENIED)])
    assert parse_problems(body, limit=len(body)) != ()
    assert parse_problems(body, limit=len(body) - 1) == ()


def test_the_number_of_problems_is_bounded() -> None:
    assert len(parse_problems(problem_body([Problem(errors.DENIED)] * 500))) == 20


@given(st.binary(max_size=100) | json_values.map(lambda v: json.dumps({"errors": [v]}).encode()))
def test_no_body_raises(raw: bytes) -> None:
    for problem in parse_problems(raw):
        assert str(problem).isprintable()
