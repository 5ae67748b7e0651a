"""`/v2/<name>/manifests/<reference>`: GET, HEAD, PUT and DELETE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from ocispec.errors import InvalidName
from registry.api.params import etag_matches, parse_digest, parse_tags
from registry.api.problems import Refusal
from registry.content.manifests import read_manifest
from registry.errors import ManifestUnknown
from registry.metadata.base import Access

if TYPE_CHECKING:
    from registry.api.exchange import Exchange, Header


# A tag moves; what a digest names never changes. Private, as not everybody may read it.
_ASK_AGAIN = b"private, no-cache"
_KEEP = b"private, max-age=31536000, immutable"


async def read_manifest_by_reference(exchange: Exchange, access: Access) -> None:
    """GET and HEAD, whatever Accept says: there is one form of a manifest, the pushed one.

    Spec: distribution-spec, end-3.
    """
    reference = exchange.target.reference
    hot = exchange.services.metadata.hot
    if ":" in reference:
        found = await hot.manifest_by_digest(access, parse_digest(reference))
    else:
        found = await hot.manifest_by_tag(access, _tag_asked_for(access, reference))
    if found is None:
        raise ManifestUnknown(access.name, reference)
    digest = str(found.digest)
    headers = manifest_headers(digest, found.media_type, by_digest=":" in reference)
    condition = exchange.header(b"if-none-match")
    if condition is not None and etag_matches(condition, digest):
        await exchange.reply(304, headers)
    else:
        if exchange.method == "GET":
            exchange.services.pulls[access.name.text, digest] = None
        await exchange.reply(200, headers, found.raw)


def manifest_headers(digest: str, media_type: str, *, by_digest: bool) -> list[Header]:
    """Of every answer with a manifest, apart from its size."""
    encoded = digest.encode()
    return [
        (b"content-type", media_type.encode()),
        (b"docker-content-digest", encoded),
        (b"etag", b'"' + encoded + b'"'),
        (b"cache-control", _KEEP if by_digest else _ASK_AGAIN),
    ]


async def push_manifest(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-7a and 7b."""
    settings = exchange.services.settings
    reference = exchange.target.reference
    tags = parse_tags(exchange.query)
    digest: Digest | None = None
    if ":" in reference:
        digest = parse_digest(reference)
    elif tags:
        raise Refusal(400, "UNSUPPORTED", "tag parameters go with a push by digest")
    else:
        tags = (Tag.parse(reference),)
    raw = await exchange.read_body(settings.max_manifest_bytes)
    if raw is None:
        limit = settings.max_manifest_bytes
        raise Refusal(
            413,
            "MANIFEST_INVALID",
            f"the manifest is larger than {limit} bytes, or did not arrive whole",
            headers=[(b"connection", b"close")],
        )
    manifest = read_manifest(
        raw,
        content_type=exchange.header_text(b"content-type"),
        digest=digest,
        limit=settings.max_manifest_bytes,
        layers_may_be_absent=settings.allow_sparse_image,
    )
    await exchange.services.metadata.manifests.put(
        access, manifest, tags=tags, allow_sparse=settings.allow_sparse_index
    )
    headers = [
        (b"location", f"/v2/{access.name}/manifests/{manifest.digest}".encode()),
        (b"docker-content-digest", str(manifest.digest).encode()),
    ]
    if manifest.subject is not None:
        headers.append((b"oci-subject", str(manifest.subject).encode()))
    if digest is not None and tags:
        headers += [(b"oci-tag", tag.text.encode()) for tag in tags]
    await exchange.reply(201, headers)


async def delete_manifest(exchange: Exchange, access: Access) -> None:
    """A tag goes alone, a manifest with all its tags. Spec: distribution-spec, end-9."""
    reference = exchange.target.reference
    metadata = exchange.services.metadata
    if ":" in reference:
        await metadata.manifests.remove(access, parse_digest(reference))
    else:
        await metadata.tags.remove(access, _tag_asked_for(access, reference))
    await exchange.reply(202)


def _tag_asked_for(access: Access, text: str) -> Tag:
    """A text that can be no tag names nothing: 404 as for any other unknown one."""
    try:
        return Tag.parse(text)
    except InvalidName:
        raise ManifestUnknown(access.name, text[:128]) from None
