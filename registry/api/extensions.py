"""What we add to the specification, and `/v2/_oci/ext/discover`, where clients learn of it.

Spec: distribution-spec, extensions/README.md: names below an underscore, ours are `_pyreg`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocispec.distribution.name import Tag
from registry.api.params import parse_page
from registry.metadata.base import Access

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

MAX_CHANGES = 100

EXTENSIONS = [
    {
        "name": "_oci",
        "description": "which extensions there are",
        "endpoints": ["_oci/ext/discover"],
    },
    {
        "name": "_catalog",
        "description": "the repositories that the caller may pull, page by page; q= filters them",
        "endpoints": ["_catalog"],
    },
    {
        "name": "_pyreg",
        "description": "what a tag named before, when it changed, and who changed it",
        "endpoints": ["_pyreg/history"],
    },
]


async def discover(exchange: Exchange) -> None:
    """The list is the same for everybody who is logged in."""
    await exchange.services.guard.require_login(exchange)
    await exchange.reply_json(200, {"extensions": EXTENSIONS})


async def tag_history(exchange: Exchange, access: Access) -> None:
    """`/v2/<name>/_pyreg/history/<tag>`: the latest changes of a tag first; `n` of them.

    Of a tag that was never there: none. Times are seconds since 1970.
    """
    tag = Tag.parse(exchange.target.reference)
    size = parse_page(exchange.query, MAX_CHANGES).size
    changes = await exchange.services.metadata.tags.history(access, tag, n=size)
    document = {
        "name": access.name.text,
        "tag": tag.text,
        "changes": [
            {
                "from": str(change.old) if change.old is not None else None,
                "to": str(change.new) if change.new is not None else None,
                "by": change.actor,
                "at": change.at,
            }
            for change in changes
        ],
    }
    await exchange.reply_json(200, document)
