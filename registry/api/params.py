"""Query parameters and header values of requests, bounded and checked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from ocispec.errors import InvalidDigest
from registry.api.problems import Refusal

# Twenty tags of 128 characters and a sha512 digest fit; a longer query is an attack or an error.
MAX_QUERY = 8192
MAX_FIELDS = 128

# The spec wants at least ten tags in one push.
MAX_TAGS = 20


class Query:
    """The parameters of one query string, in order; a name may come more than once."""

    __slots__ = ("_fields",)

    def __init__(self, raw: bytes, *, limit: int = MAX_QUERY) -> None:
        if not raw:
            self._fields: list[tuple[str, str]] = []
            return
        if len(raw) > limit:
            raise Refusal(414, "UNSUPPORTED", f"the query is longer than {limit} bytes")
        try:
            self._fields = parse_qsl(
                raw.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS
            )
        except ValueError as error:  # not ASCII, or too many fields
            raise Refusal(400, "UNSUPPORTED", "the query cannot be read") from error
        if any("\0" in text for field in self._fields for text in field):
            # In no name, tag or password; PostgreSQL has no such text.
            raise Refusal(400, "UNSUPPORTED", "the query has a NUL in it")

    def first(self, name: str) -> str | None:
        """The first value, or None if the name is absent."""
        for field, value in self._fields:
            if field == name:
                return value
        return None

    def items(self) -> list[tuple[str, str]]:
        """Every parameter, in order."""
        return self._fields

    def all(self, name: str) -> list[str]:
        return [value for field, value in self._fields if field == name]


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a sorted listing is wanted.

    size: most entries to give; 0 asks for none.
    last: entries come after this text, which need not exist; empty from the start.
    """

    size: int
    last: str


def parse_page(query: Query, cap: int) -> Page:
    """Read `n` and `last`. A larger `n` than the cap is cut to it, never refused."""
    text = query.first("n")
    last = query.first("last") or ""
    if text is None:
        return Page(cap, last)
    if not (text.isascii() and text.isdigit()):
        raise Refusal(400, "PAGINATION_NUMBER_INVALID", "n must be a whole number, 0 or more")
    # A number of more than nine digits is above every cap; int() of a huge text would be slow.
    size = cap if len(text) > 9 else min(int(text), cap)
    return Page(size, last)


def parse_digest(text: str) -> Digest:
    """A digest out of a path or query; refused with 400 DIGEST_INVALID."""
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        raise Refusal(400, "DIGEST_INVALID", str(error)) from error


def parse_tags(query: Query) -> tuple[Tag, ...]:
    """The `tag` parameters of a push by digest, without repeats."""
    texts = list(dict.fromkeys(query.all("tag")))
    if len(texts) > MAX_TAGS:
        raise Refusal(414, "UNSUPPORTED", f"one push takes at most {MAX_TAGS} tags")
    return tuple(Tag.parse(text) for text in texts)


def etag_matches(header: bytes | None, digest: str) -> bool:
    """Whether If-None-Match names the digest; weak validators compare equal (RFC 9110, 13.1.2)."""
    if header is None:
        return False
    if header.strip() == b"*":
        return True
    wanted = digest.encode()
    for item in header.split(b","):
        if item.strip().removeprefix(b"W/").strip(b'"') == wanted:
            return True
    return False


def next_link(path: str, **parameters: str) -> tuple[bytes, bytes]:
    """The Link header of the next page: relative, as only the client knows how it reaches us."""
    query = urlencode({name: value for name, value in parameters.items() if value})
    return b"link", f'<{path}?{query}>; rel="next"'.encode()
