"""Descriptors: the typed, sized, digested pointers that OCI documents are made of."""

from __future__ import annotations

import binascii

from ocispec.digest import Digest
from ocispec.errors import InvalidDigest
from ocispec.image.platform import Platform
from ocispec.jsondoc import Fields
from ocispec.mediatype import is_media_type
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

FIELDS = (
    "mediaType",
    "digest",
    "size",
    "urls",
    "annotations",
    "data",
    "platform",
    "artifactType",
)


@value
class Descriptor:
    """What some content is, how long it is, and the digest that names it.

    media_type: what the bytes are.
    digest: of the bytes as stored (of a layer: compressed).
    size: in bytes, 0 to 2**63-1. Whoever fetches the content must read no more than this.
    annotations: free text by key; treat as immutable.
    platform: in an index, what the manifest runs on.
    artifact_type: in an index, the type of the artifact described.
    urls: where else the content may be had.
    data: the content itself, if embedded; it has been checked against size and digest.

    The constructor does not check; `from_json` does. Equal values have equal fields; annotations
    are left out of the hash. Spec: image-spec descriptor.md.
    """

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = {}
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()
    data: bytes | None = None

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Descriptor:
        """Read one JSON object. Raises: InvalidDocument naming every problem found."""
        fields = Fields(members)
        descriptor = cls.read(fields)
        fields.check("descriptor")
        assert descriptor is not None  # otherwise there was a problem
        return descriptor

    @classmethod
    def read(cls, fields: Fields) -> Descriptor | None:
        """Read from a larger document: None when a needed field is wrong, told to `fields`."""
        fields.refuse_lookalikes(FIELDS)
        digest = _read_digest(fields)
        size = fields.integer("size", required=True)
        platform = fields.child("platform")
        rest: dict[str, Any] = {
            "media_type": read_media_type(fields, "mediaType", required=True),
            "annotations": fields.text_map("annotations"),
            "platform": None if platform is None else Platform.read(platform),
            "artifact_type": read_media_type(fields, "artifactType"),
            "urls": fields.texts("urls"),
            "data": _read_data(fields, digest, size),
        }
        return None if digest is None else cls(digest=digest, size=size, **rest)

    def to_json(self) -> dict[str, Any]:
        """The JSON object, members in the order of the spec, empty ones left out."""
        document: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.urls:
            document["urls"] = list(self.urls)
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.data is not None:
            document["data"] = binascii.b2a_base64(self.data, newline=False).decode("ascii")
        if self.platform is not None:
            document["platform"] = self.platform.to_json()
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document

    def __hash__(self) -> int:
        return hash((self.digest, self.size, self.media_type))


def read_media_type(fields: Fields, name: str, *, required: bool = False) -> str:
    """A member that holds a media type; "" when it is absent or, told to `fields`, wrong."""
    text = fields.text(name, required=required)
    if (text or required) and not is_media_type(text) and isinstance(fields.members.get(name), str):
        fields.problem(name, f"is {text[:80]!a}, not a media type")
        return ""
    return text


def _read_digest(fields: Fields) -> Digest | None:
    text = fields.text("digest", required=True)
    if not isinstance(fields.members.get("digest"), str):
        return None
    try:
        return Digest.parse(text)
    except InvalidDigest as error:
        fields.problem("digest", f"is wrong: {error}")
        return None


def _read_data(fields: Fields, digest: Digest | None, size: int) -> bytes | None:
    """Embedded content. Believing it unchecked would let a manifest swap what it names."""
    if not isinstance(fields.members.get("data"), str):
        fields.text("data")
        return None
    try:
        data = binascii.a2b_base64(fields.text("data"), strict_mode=True)
    except ValueError:  # binascii.Error, or characters outside ASCII
        fields.problem("data", "is not base64")
        return None
    if len(data) != size:
        fields.problem("data", f"has {len(data)} bytes, the size says {size}")
    elif digest is not None and Digest.of(data, digest.algorithm) != digest:
        fields.problem("data", f"does not have the digest {digest}")
    return data
