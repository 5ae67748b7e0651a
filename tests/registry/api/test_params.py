"""Query strings and conditional headers, whatever is in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.api.forwarded import ForwardedHeaders
from registry.api.params import MAX_QUERY, Query, etag_matches, next_link, parse_page
from registry.api.problems import Refusal


@given(st.binary(max_size=300))
def test_any_query_is_read_or_refused(raw: bytes) -> None:
    try:
        query = Query(raw)
        page = parse_page(query, 100)
    except Refusal as refusal:
        assert refusal.status in (400, 414)
    else:
        assert 0 <= page.size <= 100
        assert page.last == (query.first("last") or "")


@pytest.mark.parametrize("raw", [b"username=%00", b"last=a%00b", b"%00=x"])
def test_attack_a_nul_is_refused(raw: bytes) -> None:
    """PostgreSQL takes no such text: it would be a failure of the database."""
    with pytest.raises(Refusal) as caught:
        Query(raw)
    assert caught.value.status == 400


def test_too_long_and_too_many() -> None:
    for raw in (b"a=" + b"x" * MAX_QUERY, b"&".join([b"a=1"] * 1000)):
        with pytest.raises(Refusal):
            Query(raw)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=10_000))
def test_a_page_is_never_larger_than_the_cap(n: int, cap: int) -> None:
    assert parse_page(Query(b"n=%d" % n), cap).size == min(n, cap)


@given(st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=50))
def test_a_next_link_reads_back(last: str) -> None:
    last = last.encode("utf-8", "replace").decode()
    name, value = next_link("/v2/a/tags/list", n="5", last=last, q="")
    assert name == b"link"
    target = value.decode("ascii").removeprefix("</v2/a/tags/list?").removesuffix('>; rel="next"')
    query = Query(target.encode())
    assert (query.first("n"), query.first("last"), query.first("q")) == ("5", last, None)


@given(st.binary(max_size=100))
def test_no_rubbish_matches_an_etag(header: bytes) -> None:
    if header.strip() != b"*":
        assert not etag_matches(header, "sha256:" + "a" * 64)


async def no_app(scope: object, receive: object, send: object) -> None:
    raise AssertionError("not called")


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("spoofed, 192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.0.0.9", "192.0.2.1"),
        ("", "10.0.0.1"),
        ("10.0.0.2", "10.0.0.1"),
    ],
)
async def test_the_client_is_the_last_address_that_is_no_proxy(forwarded: str, client: str) -> None:
    seen = {}

    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        seen.update(scope)

    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    scope = {"type": "http", "client": ("10.0.0.1", 5), "scheme": "http", "headers": headers}
    await ForwardedHeaders(app, ("10.0.0.0/8",))(scope, no_app, no_app)  # type: ignore[arg-type]
    assert seen["client"][0] == client
