"""Image manifests and indexes, of OCI and of Docker schema 2, as views on their exact bytes.

The bytes received are the manifest: the digest is over them and nothing here writes them anew.
A document must mean one thing to every reader, so whatever could be taken for both a manifest and
an index is refused (the type confusion of CVE-2021-41190).
"""

from __future__ import annotations

from ocispec.descriptor import Descriptor, read_media_type
from ocispec.digest import Digest
from ocispec.errors import InvalidDocument, InvalidMediaType
from ocispec.jsondoc import Fields, canonical, parse_object
from ocispec.mediatype import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    IMAGE_TYPES,
    INDEX_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    parse_media_type,
)
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# What registries and clients agree on: 4 MiB must be accepted, more is refused nearly everywhere.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024

_FIELDS = (
    "schemaVersion",
    "mediaType",
    "artifactType",
    "config",
    "layers",
    "manifests",
    "subject",
    "annotations",
    "fsLayers",
)


@value
class ImageManifest:
    """One image, or any other artifact: a config and layers. Spec: image-spec manifest.md.

    raw: the exact bytes, unknown fields included.
    media_type: OCI_MANIFEST or DOCKER_MANIFEST.
    config: the configuration; of an artifact often the empty object.
    layers: from the base up; may be empty.
    subject: the manifest that this one is about, which need not exist; or None.
    annotations: free text by key; treat as immutable.
    artifact_type: "" if not given.

    The constructor does not check; `parse_manifest` does.
    """

    raw: bytes
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = {}
    artifact_type: str = ""

    @property
    def digest(self) -> Digest:
        """The SHA-256 digest of `raw`, computed at each call."""
        return Digest.of(self.raw)

    def references(self) -> tuple[Descriptor, ...]:
        """The blobs this manifest is made of. Not the subject: that one need not exist."""
        return (self.config, *self.layers)

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"ImageManifest({self.digest}, {len(self.layers)} layers)"


@value
class ImageIndex:
    """A list of manifests, usually one image for several platforms. Spec: image-index.md.

    raw: the exact bytes, unknown fields included.
    media_type: OCI_INDEX or DOCKER_LIST.
    manifests: in the order of preference; may be empty, may name indexes.
    subject, annotations, artifact_type: as in a manifest.

    The constructor does not check; `parse_manifest` does.
    """

    raw: bytes
    media_type: str
    manifests: tuple[Descriptor, ...]
    subject: Descriptor | None = None
    annotations: Mapping[str, str] = {}
    artifact_type: str = ""

    @property
    def digest(self) -> Digest:
        """The SHA-256 digest of `raw`, computed at each call."""
        return Digest.of(self.raw)

    def references(self) -> tuple[Descriptor, ...]:
        """The manifests listed. Not the subject: that one need not exist."""
        return self.manifests

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"ImageIndex({self.digest}, {len(self.manifests)} manifests)"


def parse_manifest(
    raw: bytes, media_type: str = "", *, limit: int = MAX_MANIFEST_BYTES
) -> ImageManifest | ImageIndex:
    """Read a manifest or index from the bytes of a peer.

    `media_type` is the Content-Type the bytes came with, parameters allowed, or "" if there was
    none: then the document's own `mediaType` decides, and without that its shape, as OCI.

    Raises: InvalidDocument if the bytes are too many or not such a document, if the two types
    differ, if the document could be read as the other kind, or if it is a schema 1 manifest.
    """
    members = parse_object(raw, limit=limit, what="manifest")
    fields = Fields(members)
    fields.refuse_lookalikes(_FIELDS)
    kind = _decide_type(fields, media_type)
    is_index = kind in INDEX_TYPES
    _refuse_other_kind(fields, is_index=is_index)
    fields.integer("schemaVersion", minimum=2, maximum=2, required=True)

    read: dict[str, Any] = {
        "annotations": fields.text_map("annotations"),
        "artifact_type": read_media_type(fields, "artifactType"),
        "subject": _read_descriptor(fields.child("subject")),
    }
    if is_index:
        read["manifests"] = _read_descriptors(fields, "manifests")
    else:
        read["config"] = _read_descriptor(fields.child("config", required=True))
        read["layers"] = _read_descriptors(fields, "layers")
    fields.check("image index" if is_index else "image manifest")
    return (ImageIndex if is_index else ImageManifest)(raw=bytes(raw), media_type=kind, **read)


def new_manifest(
    config: Descriptor,
    layers: Iterable[Descriptor],
    *,
    annotations: Mapping[str, str] = {},
    docker: bool = False,
    subject: Descriptor | None = None,
    artifact_type: str = "",
) -> ImageManifest:
    """Make a manifest; its bytes are written here, once. Layers go from the base up."""
    media_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    layers = tuple(layers)
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        document["artifactType"] = artifact_type
    document["config"] = config.to_json()
    document["layers"] = [layer.to_json() for layer in layers]
    _add_common(document, subject, annotations)
    return ImageManifest(
        canonical(document), media_type, config, layers, subject, dict(annotations), artifact_type
    )


def new_index(
    manifests: Iterable[Descriptor],
    *,
    annotations: Mapping[str, str] = {},
    docker: bool = False,
    subject: Descriptor | None = None,
    artifact_type: str = "",
) -> ImageIndex:
    """Make an index; its bytes are written here, once."""
    media_type = DOCKER_LIST if docker else OCI_INDEX
    manifests = tuple(manifests)
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        document["artifactType"] = artifact_type
    document["manifests"] = [manifest.to_json() for manifest in manifests]
    _add_common(document, subject, annotations)
    return ImageIndex(
        canonical(document), media_type, manifests, subject, dict(annotations), artifact_type
    )


def _add_common(
    document: dict[str, Any], subject: Descriptor | None, annotations: Mapping[str, str]
) -> None:
    if subject is not None:
        document["subject"] = subject.to_json()
    if annotations:
        document["annotations"] = dict(annotations)


def _decide_type(fields: Fields, content_type: str) -> str:
    said_outside = ""
    if content_type:
        try:
            said_outside = parse_media_type(content_type)
        except InvalidMediaType as error:
            raise InvalidDocument(f"invalid manifest: {error}", hint=error.hint) from error
    said_inside = fields.text("mediaType")
    if fields.has("fsLayers") or {said_outside, said_inside} & SCHEMA1_TYPES:
        raise InvalidDocument(
            "manifests of schema version 1 are not supported",
            hint="push the image again with a current docker, podman or skopeo",
        )
    if said_outside and said_inside and said_outside != said_inside:
        raise InvalidDocument(
            f"invalid manifest: sent as {said_outside}, but says it is {said_inside[:200]!a}"
        )
    if kind := said_outside or said_inside:
        if kind not in IMAGE_TYPES:
            raise InvalidDocument(
                f"{kind[:200]!a} is not the type of an image manifest or index",
                hint=f"supported are {', '.join(sorted(IMAGE_TYPES))}",
            )
        return kind
    return OCI_INDEX if fields.has("manifests") else OCI_MANIFEST


def _refuse_other_kind(fields: Fields, *, is_index: bool) -> None:
    for name in ("config", "layers") if is_index else ("manifests",):
        if fields.has(name):
            fields.problem(name, f"is not allowed in {'an index' if is_index else 'a manifest'}")


def _read_descriptor(fields: Fields | None) -> Descriptor | None:
    return None if fields is None else Descriptor.read(fields)


def _read_descriptors(fields: Fields, name: str) -> tuple[Descriptor, ...]:
    found = (Descriptor.read(entry) for entry in fields.children(name))
    return tuple(descriptor for descriptor in found if descriptor is not None)
