"""`/v2/_catalog`: the repositories that the caller may read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.api.params import next_link, parse_page
from registry.api.problems import Refusal

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

# Nobody looks for more than a repository name.
MAX_TERM = 255


async def catalog(exchange: Exchange) -> None:
    """Sorted bytewise, page by page; `q` keeps the names that contain it.

    The filter is ours: `pyreg search` asks it of the server instead of reading all names.
    """
    services = exchange.services
    may_read = await services.guard.authorise_catalog(exchange)
    wanted = parse_page(exchange.query, services.settings.page_size)
    term = exchange.query.first("q") or ""
    if len(term) > MAX_TERM:
        raise Refusal(400, "UNSUPPORTED", f"q has at most {MAX_TERM} characters")

    def wanted_name(name: str) -> bool:
        return term in name and may_read(name)

    page = await services.metadata.repositories.page(wanted_name, n=wanted.size, last=wanted.last)
    names = [name.text for name in page.items]
    headers = []
    if page.more:
        # A page may be short, or even empty, where few names of many are wanted.
        last = page.seen or names[-1]
        headers.append(next_link("/v2/_catalog", n=str(wanted.size), last=last, q=term))
    await exchange.reply_json(200, {"repositories": names}, headers)
