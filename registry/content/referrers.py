"""The list of manifests that refer to one: an image index made on demand, page by page."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ocispec.digest import Digest
from ocispec.mediatype import OCI_INDEX
from registry.metadata.base import Access, Manifests, Referrer

# Clients refuse larger manifests, and this is one.
MAX_PAGE_BYTES = 4 * 1024 * 1024 - 1024

# Rows are fetched in small lots: each may carry as much as a manifest may hold in annotations.
LOT = 32


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """The index as bytes, and the last digest in it if more follow."""

    raw: bytes
    next_after: str


async def list_referrers(
    manifests: Manifests,
    access: Access,
    subject: Digest,
    *,
    artifact_type: str,
    size: int,
    last: str,
) -> ReferrersPage:
    """At most `size` referrers after `last`, fewer if they would not fit a page's bytes."""
    entries: list[bytes] = []
    total = 0
    more = size > 0
    while more and len(entries) < size:
        page = await manifests.referrers(
            access, subject, artifact_type=artifact_type, n=min(LOT, size - len(entries)), last=last
        )
        more = page.more
        for referrer in page.items:
            entry = _describe(referrer)
            total += len(entry) + 1
            if total > MAX_PAGE_BYTES and entries:
                return _page(entries, last)
            entries.append(entry)
            last = str(referrer.digest)
    return _page(entries, last if more else "")


def _page(entries: list[bytes], next_after: str) -> ReferrersPage:
    head = b'{"schemaVersion":2,"mediaType":"' + OCI_INDEX.encode() + b'","manifests":['
    return ReferrersPage(head + b",".join(entries) + b"]}", next_after)


def _describe(referrer: Referrer) -> bytes:
    descriptor: dict[str, object] = {
        "mediaType": referrer.media_type,
        "digest": str(referrer.digest),
        "size": referrer.size,
    }
    if referrer.artifact_type:
        descriptor["artifactType"] = referrer.artifact_type
    if referrer.annotations:
        descriptor["annotations"] = dict(referrer.annotations)
    return json.dumps(descriptor, separators=(",", ":")).encode()
