from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import InvalidDocument
from ocispec.image.platform import Platform
from ocispec.jsondoc import canonical, parse_object
from ocispec.mediatype import OCI_LAYER_GZIP, OCI_MANIFEST
from tests.ocispec.strategies import descriptors, json_values

DATA = b"{}"
DIGEST = Digest.of(DATA)
GOOD: dict[str, Any] = {"mediaType": OCI_LAYER_GZIP, "digest": str(DIGEST), "size": 2}


@given(descriptors() | descriptors(OCI_MANIFEST))
def test_json_reads_back(descriptor: Descriptor) -> None:
    raw = canonical(descriptor.to_json())
    assert Descriptor.from_json(parse_object(raw, limit=10_000)) == descriptor


def test_all_fields() -> None:
    descriptor = Descriptor.from_json(
        GOOD
        | {
            "urls": ["https://example.com/x"],
            "annotations": {"a": "b"},
            "data": base64.b64encode(DATA).decode(),
            "platform": {
                "os": "windows",
                "architecture": "amd64",
                "os.version": "10.0",
                "os.features": ["win32k"],
            },
            "artifactType": "application/vnd.example",
            "custom": {"kept": "elsewhere"},
        }
    )
    assert descriptor == Descriptor(
        media_type=OCI_LAYER_GZIP,
        digest=DIGEST,
        size=2,
        urls=("https://example.com/x",),
        annotations={"a": "b"},
        data=DATA,
        platform=Platform("windows", "amd64", "", "10.0", ("win32k",)),
        artifact_type="application/vnd.example",
    )
    assert hash(descriptor) == hash(Descriptor(OCI_LAYER_GZIP, DIGEST, 2))


@pytest.mark.parametrize(
    ("change", "problem", "description"),
    [
        ({"mediaType": None}, "mediaType is missing", "null is missing"),
        ({"mediaType": ""}, "not a media type", "empty type"),
        ({"mediaType": "a/b\r\nX: y"}, "not a media type", "header injection"),
        ({"mediaType": 1}, "mediaType is not a text", "number for a text"),
        ({"digest": "sha256:../../x"}, "digest is wrong", "path as digest"),
        ({"digest": "sha256:" + "A" * 64}, "digest is wrong", "digest in capitals"),
        ({"digest": 5}, "digest is not a text", "number for a digest"),
        ({"size": None}, "size is missing", "no size"),
        ({"size": -1}, "size is -1", "negative size"),
        ({"size": 2**63}, "size is 9223372036854775808", "size beyond 63 bits"),
        ({"size": True}, "size is not a whole number", "true is not 1"),
        ({"size": 2.0}, "size is not a whole number", "fraction"),
        ({"size": "2"}, "size is not a whole number", "number in quotes"),
        ({"annotations": {"a": 1}}, "annotations.a is not a text", "annotation of another type"),
        ({"annotations": []}, "annotations is not an object", "list for an object"),
        ({"urls": "https://x"}, "urls is not a list", "text for a list"),
        ({"platform": "linux/amd64"}, "platform is not an object", "platform as text"),
        ({"artifactType": "x"}, "artifactType is 'x', not a media type", "no subtype"),
        ({"data": "e30"}, "data is not base64", "padding left out"),
        ({"data": "e 30="}, "data is not base64", "a space inside"),
        ({"data": "e30é"}, "data is not base64", "not ASCII"),
        ({"data": "W10="}, "data does not have the digest", "other bytes of the same length"),
        ({"data": "e30=", "size": 3}, "data has 2 bytes, the size says 3", "another length"),
        ({"Digest": "x"}, "could be read as 'digest'", "Go would read it as the digest"),
    ],
)
def test_refused(change: dict[str, Any], problem: str, description: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        Descriptor.from_json(GOOD | change)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_all_problems_at_once() -> None:
    with pytest.raises(InvalidDocument) as caught:
        Descriptor.from_json({"size": -1, "urls": [1]})
    assert len(caught.value.problems) == 4


def test_the_greatest_size() -> None:
    assert Descriptor.from_json(GOOD | {"size": 2**63 - 1}).size == 2**63 - 1


@given(json_values)
def test_any_json_is_a_descriptor_or_refused(document: Any) -> None:
    for members in (document, GOOD | {"platform": document}, GOOD | {"data": document}):
        if isinstance(members, dict):
            try:
                Descriptor.from_json(members)
            except InvalidDocument:
                pass
