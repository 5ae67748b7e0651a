"""Keys of annotations that the image spec defines. Spec: image-spec annotations.md."""

from __future__ import annotations

CREATED = "org.opencontainers.image.created"  # RFC 3339
AUTHORS = "org.opencontainers.image.authors"
URL = "org.opencontainers.image.url"
DOCUMENTATION = "org.opencontainers.image.documentation"
SOURCE = "org.opencontainers.image.source"
VERSION = "org.opencontainers.image.version"
REVISION = "org.opencontainers.image.revision"
VENDOR = "org.opencontainers.image.vendor"
LICENSES = "org.opencontainers.image.licenses"  # an SPDX expression
REF_NAME = "org.opencontainers.image.ref.name"  # in index.json of a layout: a tag or reference
TITLE = "org.opencontainers.image.title"  # of an artifact's layer: a file name, never a path
DESCRIPTION = "org.opencontainers.image.description"
BASE_DIGEST = "org.opencontainers.image.base.digest"
BASE_NAME = "org.opencontainers.image.base.name"
