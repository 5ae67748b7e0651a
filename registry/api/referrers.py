"""`/v2/<name>/referrers/<digest>`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocispec.mediatype import OCI_INDEX
from registry.api.params import next_link, parse_digest, parse_page
from registry.content.referrers import list_referrers
from registry.metadata.base import Access

if TYPE_CHECKING:
    from registry.api.exchange import Exchange


async def referrers(exchange: Exchange, access: Access) -> None:
    """Always 200, also for what does not exist: 404 would say that the API is missing.

    Spec: distribution-spec, end-12.
    """
    subject = parse_digest(exchange.target.reference)
    artifact_type = exchange.query.first("artifactType") or ""
    wanted = parse_page(exchange.query, exchange.services.settings.page_size)
    page = await list_referrers(
        exchange.services.metadata.manifests,
        access,
        subject,
        artifact_type=artifact_type,
        size=wanted.size,
        last=wanted.last,
    )
    headers = [(b"content-type", OCI_INDEX.encode())]
    if artifact_type:
        headers.append((b"oci-filters-applied", b"artifactType"))
    if page.next_after:
        headers.append(
            next_link(
                f"/v2/{access.name}/referrers/{subject}",
                artifactType=artifact_type,
                n=str(wanted.size),
                last=page.next_after,
            )
        )
    await exchange.reply(200, headers, page.raw)
