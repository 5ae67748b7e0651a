"""`/v1/search`: what is left of the first registry API, because `docker search` and `podman search`
still ask it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.api.catalog import MAX_TERM
from registry.api.params import parse_page
from registry.api.problems import Refusal

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

DEFAULT_RESULTS = 25
MAX_RESULTS = 100

# There are no further pages of a search. A tenth of a second, in a thread of its own.
MAX_LOOKED_AT = 100_000


async def ping(exchange: Exchange) -> None:
    """Docker asks this before it searches."""
    await exchange.reply_json(200, True, [(b"x-docker-registry-standalone", b"true")])


async def search(exchange: Exchange) -> None:
    """Names that contain `q`, of the repositories that the caller may read."""
    services = exchange.services
    may_read = await services.guard.authorise_search(exchange)
    term = (exchange.query.first("q") or "").strip().lower()
    if len(term) > MAX_TERM:
        raise Refusal(400, "UNSUPPORTED", f"q has at most {MAX_TERM} characters")
    given = exchange.query.first("n")
    wanted = parse_page(exchange.query, MAX_RESULTS).size if given else DEFAULT_RESULTS

    def wanted_name(name: str) -> bool:
        return term in name and may_read(name)

    page = await services.metadata.repositories.page(wanted_name, n=wanted, look_at=MAX_LOOKED_AT)
    results = [
        {
            "name": name.text,
            "description": "",
            "star_count": 0,
            "is_official": False,
            "is_automated": False,
        }
        for name in page.items
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
