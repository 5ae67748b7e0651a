"""Media types of manifests, configs and layers, of OCI and of Docker schema 2."""

from __future__ import annotations

import re

from ocispec import grammar
from ocispec.errors import InvalidMediaType

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"

# Layers that stay where their `urls` point: a registry need not have them.
OCI_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_NONDISTRIBUTABLE_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
OCI_NONDISTRIBUTABLE_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_FOREIGN_LAYER_PLAIN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

# Schema 1, recognised only to be refused with a clear message.
DOCKER_MANIFEST_V1 = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_MANIFEST_V1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
IMAGE_TYPES = MANIFEST_TYPES | INDEX_TYPES
SCHEMA1_TYPES = frozenset({DOCKER_MANIFEST_V1, DOCKER_MANIFEST_V1_SIGNED})
FOREIGN_TYPES = frozenset(
    {
        OCI_NONDISTRIBUTABLE,
        OCI_NONDISTRIBUTABLE_GZIP,
        OCI_NONDISTRIBUTABLE_ZSTD,
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_PLAIN,
    }
)

# What a client says it understands when it asks for a manifest.
ACCEPT = ", ".join((OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST))


def parse_media_type(header: str) -> str:
    """The type of a Content-Type header in lower case, without its parameters.

    Raises: InvalidMediaType if it is empty, too long or not `type/subtype`.
    Spec: RFC 9110, 8.3.1.
    """
    kind, _, _ = header[: grammar.MEDIA_TYPE_MAX].partition(";")
    kind = kind.strip(" \t")
    if not is_media_type(header.strip(" \t")):
        raise InvalidMediaType(f"{header[:80]!r} is not a media type", hint="write type/subtype")
    return kind.lower()


def is_media_type(text: str) -> bool:
    """Whether a text is `type/subtype`, perhaps with parameters, of a bounded length."""
    if len(text) > grammar.MEDIA_TYPE_MAX:
        return False
    pattern = grammar.MEDIA_TYPE + grammar.MEDIA_TYPE_PARAMETERS
    return re.fullmatch(pattern, text) is not None


def is_foreign(media_type: str) -> bool:
    """Whether a layer of this type is allowed to be absent from the registry."""
    return media_type in FOREIGN_TYPES


def layer_compression(media_type: str) -> str:
    """`gzip`, `zstd`, or "" for a layer that its media type says is not compressed.

    Says nothing about the bytes: some tools mislabel layers, so a reader looks at those too.
    """
    for name in ("gzip", "zstd"):
        if media_type.endswith((f"+{name}", f".{name}")):
            return name
    return ""
