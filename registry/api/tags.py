"""`/v2/<name>/tags/list`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.api.params import next_link, parse_page
from registry.metadata.base import Access

if TYPE_CHECKING:
    from registry.api.exchange import Exchange


async def list_tags(exchange: Exchange, access: Access) -> None:
    """Sorted bytewise, page by page. Spec: distribution-spec, end-8."""
    wanted = parse_page(exchange.query, exchange.services.settings.page_size)
    page = await exchange.services.metadata.tags.page(access, n=wanted.size, last=wanted.last)
    names = [tag.text for tag in page.items]
    headers = []
    if page.more and names:
        headers.append(
            next_link(f"/v2/{access.name}/tags/list", n=str(wanted.size), last=names[-1])
        )
    await exchange.reply_json(200, {"name": access.name.text, "tags": names}, headers)
