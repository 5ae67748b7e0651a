"""`/v1/search`: what is left of the first registry API, because `docker search` and `podman search`
still ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.api.catalog import MAX_TERM
from registry.api.params import parse_page
from registry.api.problems import Refusal
from registry.metadata.search import Visible
from registry.search.query import BadQuery, parse_query

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

DEFAULT_RESULTS = 25
MAX_RESULTS = 100


async def ping(exchange: Exchange) -> None:
    """Docker asks this before it searches."""
    await exchange.reply_json(200, True, [(b"x-docker-registry-standalone", b"true")])


async def search(exchange: Exchange) -> None:
    """What fits `q` (see `registry.search.query`) of the repositories that the caller may read."""
    services = exchange.services
    may_read = await services.guard.authorise_search(exchange)
    term = (exchange.query.first("q") or "").strip()
    if len(term) > MAX_TERM:
        raise Refusal(400, "UNSUPPORTED", f"q has at most {MAX_TERM} characters")
    try:
        query = parse_query(term)
    except BadQuery as error:
        raise Refusal(400, "UNSUPPORTED", str(error)) from error
    given = exchange.query.first("n")
    wanted = parse_page(exchange.query, MAX_RESULTS).size if given else DEFAULT_RESULTS
    page = await services.metadata.search.find(query, Visible(may_read), n=wanted)
    results = [
        {
            "name": found.name,
            "description": found.description,
            "star_count": 0,
            "is_official": False,
            "is_automated": False,
        }
        for found in page.items
    ]
    await exchange.reply_json(
        200,
        {
            "num_results": len(results),
            "num_pages": 1,
            "page": 1,
            "page_size": wanted,
            "query": term,
            "results": results,
        },
    )
