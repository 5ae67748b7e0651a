from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.links import format_next, parse_link
from ocispec.errors import InvalidHeader


@pytest.mark.parametrize(
    ("header", "expected", "description"),
    [
        ('</v2/a/tags/list?n=1&last=b>; rel="next"', {"next": "/v2/a/tags/list?n=1&last=b"}, ""),
        ("</x>; rel=next", {"next": "/x"}, "without quotes"),
        ("</x>;rel=next", {"next": "/x"}, "without space"),
        ('</x> ; rel = "next"', {"next": "/x"}, "with much space"),
        ('</x>; REL="Next"', {"next": "/x"}, "without case"),
        ('</x>; rel="next last"', {"next": "/x", "last": "/x"}, "two relations"),
        ("</x>; rel=next, </y>; rel=prev", {"next": "/x", "prev": "/y"}, "two links"),
        ("</x>; rel=next, </y>; rel=next", {"next": "/x"}, "the first counts"),
        ("</x>; rel=next; rel=prev", {"next": "/x"}, "the first relation counts"),
        ('</a,b;c>; title="x, <y>; \\"z"; rel=next', {"next": "/a,b;c"}, "separators inside"),
        ("</x>; a; b=; rel=next", None, "a parameter without its value"),
        ("</x>; a; rel=next;", {"next": "/x"}, "parameter without value, empty parameter"),
        ("</x>", {}, "no relation"),
        ("<>; rel=next", {"next": ""}, "the same document"),
        ("", {}, "empty"),
        (" , ,", {}, "only commas"),
        ("/x; rel=next", None, "no angle brackets"),
        ("</x; rel=next", None, "bracket left open"),
        ("</a b>; rel=next", None, "a space in the URL"),
        ("</x>; rel=next\n", None, "newline"),
        ("</x> rel=next", None, "no semicolon"),
        ('</x>; rel="next', None, "quote left open"),
        ("</ä>; rel=next", None, "not ASCII"),
    ],
)
def test_parse(header: str, expected: dict[str, str] | None, description: str) -> None:
    if expected is None:
        with pytest.raises(InvalidHeader):
            parse_link(header)
    else:
        assert parse_link(header) == expected


@given(st.from_regex(r"[!-;=?-~]{1,40}", fullmatch=True))
def test_next_reads_back(url: str) -> None:
    assert parse_link(format_next(url)) == {"next": url}


@pytest.mark.parametrize("url", ["", "/a>b", "/a b", "/a\r\nX: y", "/ä"])
def test_next_refuses_what_is_no_url(url: str) -> None:
    with pytest.raises(InvalidHeader):
        format_next(url)


@given(st.text() | st.text('<>;=," \\relnxt/'))
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        links = parse_link(header)
    except InvalidHeader:
        return
    assert all(url.isascii() for url in links.values())


def test_no_header_takes_long() -> None:
    start = time.perf_counter()
    for header in ("<a>" + ";a" * 4000, '<a>;a="' + "\\" * 8000, "<a>," * 2000, " " * 8000 + "x"):
        try:
            parse_link(header)
        except InvalidHeader:
            pass
    with pytest.raises(InvalidHeader, match="more than"):
        parse_link("<a>," * 10_000)
    assert time.perf_counter() - start < 1
