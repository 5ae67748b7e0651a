"""A manifest on its way in: from bytes and what was said about them to something checked."""

from __future__ import annotations

from ocispec.digest import Digest
from ocispec.image.manifest import ImageIndex, parse_manifest
from ocispec.mediatype import is_foreign
from registry.errors import DigestMismatched
from registry.metadata.base import BlobReference, NewManifest


def read_manifest(
    raw: bytes,
    *,
    content_type: str,
    digest: Digest | None,
    limit: int,
    layers_may_be_absent: bool = False,
) -> NewManifest:
    """Check a manifest's bytes; `digest` is what it is pushed as, None for a push by tag.

    `layers_may_be_absent` treats every layer as a foreign one.

    The bytes are kept as they are. Whether what it names exists is for the transaction to say.

    Raises: DigestMismatched; InvalidDocument.
    """
    found = Digest.of(raw, digest.algorithm if digest is not None else "sha256")
    if digest is not None and found != digest:
        raise DigestMismatched(expected=digest, found=found)
    manifest = parse_manifest(raw, content_type, limit=limit)
    subject = manifest.subject.digest if manifest.subject is not None else None
    if isinstance(manifest, ImageIndex):
        return NewManifest(
            digest=found,
            media_type=manifest.media_type,
            raw=raw,
            children=tuple(child.digest for child in manifest.manifests),
            subject=subject,
            artifact_type=manifest.artifact_type,
            annotations=manifest.annotations,
        )
    layers = tuple(
        # Nobody fetches the addresses of a foreign layer here: they are the client's business.
        BlobReference(
            layer.digest,
            "layer",
            may_be_absent=layers_may_be_absent or is_foreign(layer.media_type) or bool(layer.urls),
        )
        for layer in manifest.layers
    )
    return NewManifest(
        digest=found,
        media_type=manifest.media_type,
        raw=raw,
        blobs=(BlobReference(manifest.config.digest, "config"), *layers),
        subject=subject,
        artifact_type=manifest.artifact_type,
        config_media_type=manifest.config.media_type,
        annotations=manifest.annotations,
    )
