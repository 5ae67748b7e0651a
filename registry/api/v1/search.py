"""Search over the administration API, and the index behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from registry.api.problems import Refusal
from registry.api.v1.call import Call
from registry.api.v1.shapes import Text
from registry.api.v1.table import Endpoint, Listing, Who
from registry.metadata.search import Place, Visible
from registry.metadata.transaction import comparable
from registry.search.query import MAX_PARTS, MAX_QUERY, BadQuery, parse_query

_PART = r"[^\x00-\x20\x7f-\x9f]*"
_READABLE = rf"{_PART}( {_PART}){{0,{MAX_PARTS - 1}}}"


@dataclass(frozen=True, slots=True)
class Found:
    """A repository that fits. `rank` is how far from an exact fit: the least comes first."""

    name: str
    description: str
    rank: int
    updated_at: int
    platforms: tuple[str, ...]
    #: Artifact types, and media types of manifests and configurations.
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """Words and filters: `nginx tag:1.* label:key=value platform:linux/arm64 base:debian`."""

    q: Annotated[str, Text(0, MAX_QUERY, _READABLE)] = ""


@dataclass(frozen=True, slots=True)
class IndexState:
    """How far the index of search follows what happens."""

    #: Events that are not in it yet, or not known to be.
    waiting: int
    #: What of a rebuild is under way; empty if none is.
    rebuilding: str


async def search_repositories(call: Call) -> Listing:
    try:
        query = parse_query(call.query(SearchQuery).q)
    except BadQuery as error:
        raise Refusal(400, "UNSUPPORTED", str(error)) from error
    # Made for thousands of names, where `call.may_read` is for one.
    guard = call.services.guard
    readable = call.may_read if call.is_admin else await guard.readable_by(call.exchange)
    found = await call.services.metadata.search.find(
        query, Visible(readable), n=call.paging.n, after=_place(call.paging.last)
    )
    items = tuple(
        Found(i.name, i.description, i.rank, i.updated_at, i.platforms, i.types)
        for i in found.items
    )
    last = f"{items[-1].rank}:{items[-1].name}" if found.more else ""
    return Listing(items, last)


async def show_search_index(call: Call) -> IndexState:
    seen = await call.services.metadata.search_index.look()
    return IndexState(max(0, seen.newest - seen.position), seen.rebuilding)


async def rebuild_search_index(call: Call) -> IndexState:
    """Everything is indexed anew, in the background; what is there is found meanwhile."""
    await call.services.metadata.search_index.rebuild()
    return await show_search_index(call)


def _place(last: str) -> Place | None:
    """Where the page before ended, as this API said it."""
    if not last:
        return None
    rank, _, name = last.partition(":")
    # Anything else is a place, too, as the names of other listings are: before all names.
    is_ours = rank.isascii() and rank.isdigit() and len(rank) <= 3
    return (int(rank), comparable(name)) if is_ours else (0, "")


ENDPOINTS = (
    Endpoint(
        "GET", "/search", search_repositories, Who.ACCOUNT,
        "Search repositories by what they are called and hold", Found, query=SearchQuery,
        paged=True,
    ),
    Endpoint(
        "GET", "/search/index", show_search_index, Who.ADMIN,
        "Show how far the index of search is", IndexState,
    ),
    Endpoint(
        "POST", "/search/index/rebuild", rebuild_search_index, Who.ADMIN,
        "Index everything anew", IndexState, 202,
    ),
)  # fmt: skip
