from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec import mediatype
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import InvalidDocument
from ocispec.image.manifest import (
    MAX_MANIFEST_BYTES,
    ImageIndex,
    ImageManifest,
    new_index,
    new_manifest,
    parse_manifest,
)
from ocispec.mediatype import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.ocispec.strategies import descriptors, json_values, text_maps

EMPTY = Descriptor(mediatype.OCI_EMPTY, Digest.of(b"{}"), 2)
LAYER = Descriptor(mediatype.OCI_LAYER_GZIP, Digest.of(b"layer"), 5)
CHILD = Descriptor(OCI_MANIFEST, Digest.of(b"child"), 5)

MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": EMPTY.to_json(),
    "layers": [LAYER.to_json()],
}
INDEX: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [CHILD.to_json()],
}


def raw(document: dict[str, Any], **changes: Any) -> bytes:
    """The document with members changed, or taken out where the change is `...`."""
    merged = {name: item for name, item in (document | changes).items() if item is not ...}
    return json.dumps(merged, indent=3).encode()


@given(
    config=descriptors(),
    layers=st.lists(descriptors(), max_size=3),
    annotations=text_maps,
    docker=st.booleans(),
    subject=st.none() | descriptors(OCI_MANIFEST),
    artifact_type=st.sampled_from(["", "application/x"]),
)
def test_a_new_manifest_reads_back(
    config: Descriptor, layers: list[Descriptor], **rest: Any
) -> None:
    made = new_manifest(config, layers, **rest)
    assert parse_manifest(made.raw) == made
    assert parse_manifest(made.raw, made.media_type) == made
    assert made.digest == Digest.of(made.raw)


@given(
    manifests=st.lists(descriptors(OCI_MANIFEST), max_size=3),
    annotations=text_maps,
    docker=st.booleans(),
    subject=st.none() | descriptors(OCI_MANIFEST),
)
def test_a_new_index_reads_back(manifests: list[Descriptor], **rest: Any) -> None:
    made = new_index(manifests, **rest)
    assert parse_manifest(made.raw) == made
    assert made.references() == tuple(manifests)


def test_the_bytes_received_are_the_manifest() -> None:
    received = raw(MANIFEST, custom={"b": 1, "a": [1.50]})
    manifest = parse_manifest(received)
    assert manifest.raw == received
    assert manifest.digest == Digest.of(received)
    assert isinstance(manifest, ImageManifest)
    assert manifest.config == EMPTY and manifest.layers == (LAYER,)
    assert manifest.references() == (EMPTY, LAYER)


def test_the_subject_is_not_something_the_manifest_needs() -> None:
    manifest = parse_manifest(raw(MANIFEST, subject=CHILD.to_json(), artifactType="application/x"))
    assert manifest.subject == CHILD
    assert CHILD not in manifest.references()
    assert manifest.artifact_type == "application/x"


@pytest.mark.parametrize(
    ("document", "content_type", "expected", "description"),
    [
        (raw(MANIFEST), OCI_MANIFEST, OCI_MANIFEST, "both say the same"),
        (raw(MANIFEST), f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST, "parameters are ignored"),
        (raw(MANIFEST), "", OCI_MANIFEST, "only the document says"),
        (raw(MANIFEST, mediaType=...), OCI_MANIFEST, OCI_MANIFEST, "only the header says"),
        (raw(MANIFEST, mediaType=...), DOCKER_MANIFEST, DOCKER_MANIFEST, "header, and Docker"),
        (raw(MANIFEST, mediaType=...), "", OCI_MANIFEST, "nobody says: by shape"),
        (raw(INDEX, mediaType=...), "", OCI_INDEX, "nobody says: by shape"),
        (raw(MANIFEST, mediaType=DOCKER_MANIFEST), "", DOCKER_MANIFEST, "Docker schema 2"),
        (raw(INDEX, mediaType=DOCKER_LIST), DOCKER_LIST, DOCKER_LIST, "Docker manifest list"),
        (raw(MANIFEST, mediaType=""), "", OCI_MANIFEST, "an empty type is none"),
    ],
)
def test_which_type(document: bytes, content_type: str, expected: str, description: str) -> None:
    parsed = parse_manifest(document, content_type)
    assert parsed.media_type == expected
    assert isinstance(parsed, ImageIndex if expected in mediatype.INDEX_TYPES else ImageManifest)


@pytest.mark.parametrize(
    ("document", "description"),
    [
        (raw(MANIFEST, layers=[]), "no layers"),
        (raw(MANIFEST, layers=None), "null layers"),
        (raw(MANIFEST, layers=...), "layers left out"),
        (raw(INDEX, manifests=[]), "empty index"),
        (raw(INDEX, manifests=None), "null manifests"),
        (raw(INDEX, manifests=[CHILD.to_json() | {"mediaType": OCI_INDEX}]), "nested index"),
        (raw(INDEX, manifests=[CHILD.to_json() | {"mediaType": "a/b"}]), "unknown child type"),
        (raw(INDEX, subject=CHILD.to_json(), artifactType="a/b"), "index with subject"),
        (raw(MANIFEST, config=EMPTY.to_json() | {"data": "e30="}), "embedded data"),
        (raw(MANIFEST, config=EMPTY.to_json() | {"mediaType": "a/b+json"}), "unknown config"),
        (raw(MANIFEST, annotations=None, subject=None, artifactType=None), "nulls"),
        (
            raw(
                MANIFEST,
                layers=[
                    LAYER.to_json()
                    | {"mediaType": mediatype.DOCKER_FOREIGN_LAYER, "urls": ["https://x/y"]}
                ],
            ),
            "foreign layer",
        ),
    ],
)
def test_accepted(document: bytes, description: str) -> None:
    assert parse_manifest(document).raw == document


@pytest.mark.parametrize(
    ("document", "content_type", "message", "description"),
    [
        (raw(MANIFEST), DOCKER_MANIFEST, "sent as .* but says", "Content-Type differs"),
        (raw(MANIFEST), OCI_INDEX, "sent as .* but says", "Content-Type of the other kind"),
        (raw(MANIFEST), "application/json", "sent as", "Content-Type says nothing"),
        (raw(MANIFEST, mediaType=...), "application/json", "not the type", "unknown Content-Type"),
        (raw(MANIFEST), "nonsense", "not a media type", "Content-Type malformed"),
        (raw(MANIFEST, mediaType="a/b"), "", "not the type", "unknown type"),
        (raw(MANIFEST, mediaType=5), "", "mediaType is not a text", "type is a number"),
        (raw(MANIFEST | INDEX, mediaType=...), "", "config is not allowed", "both shapes"),
        (raw(MANIFEST | INDEX, mediaType=OCI_MANIFEST), "", "manifests is not allowed", "both"),
        (raw(MANIFEST | INDEX, mediaType=OCI_INDEX), "", "layers is not allowed", "both"),
        (raw(INDEX, config=EMPTY.to_json()), "", "config is not allowed", "index with config"),
        (raw(INDEX, layers=None), "", "layers is not allowed", "index with null layers"),
        (raw(MANIFEST, manifests=[]), "", "manifests is not allowed", "and an empty list"),
        (raw(MANIFEST, mediaType=OCI_INDEX), "", "config is not allowed", "wrong kind"),
        (raw(INDEX, mediaType=...), OCI_MANIFEST, "manifests is not allowed", "wrong kind"),
        (raw(MANIFEST, Manifests=[]), "", "could be read as 'manifests'", "Go ignores case"),
        (raw(INDEX, LAYERS=[]), "", "could be read as 'layers'", "Go ignores case"),
        (raw(MANIFEST, MediaType="x"), "", "could be read as 'mediaType'", "Go ignores case"),
        (raw(MANIFEST, schemaVersion=1), "", "schemaVersion is 1", "version 1 with layers"),
        (raw(MANIFEST, schemaVersion=...), "", "schemaVersion is missing", "no version"),
        (raw(MANIFEST, schemaVersion="2"), "", "schemaVersion is not a whole", "version as text"),
        (raw(MANIFEST, config=...), "", "config is missing", "no config"),
        (raw(MANIFEST, config=None), "", "config is missing", "null config"),
        (raw(MANIFEST, layers={}), "", "layers is not a list", "layers as an object"),
        (raw(MANIFEST, layers=[1]), "", "layers\\[0\\] is not an object", "a number as a layer"),
        (raw(MANIFEST, subject={}), "", "subject.digest is missing", "empty subject"),
        (raw(MANIFEST, annotations={"a": None}), "", "annotations.a is not a text", "null text"),
        (raw(MANIFEST, artifactType="x y"), "", "not a media type", "artifact type"),
        (b'{"schemaVersion":1,"fsLayers":[]}', "", "version 1", "schema 1"),
        (raw(MANIFEST, fsLayers=[]), "", "version 1", "schema 1 and 2 at once"),
        (b"{}", mediatype.DOCKER_MANIFEST_V1_SIGNED, "version 1", "schema 1 by type"),
        (b'{"mediaType":"a","mediaType":"b"}', "", "occurs twice", "type twice"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "", "the limit is 4194304", "too long"),
    ],
)
def test_refused(document: bytes, content_type: str, message: str, description: str) -> None:
    with pytest.raises(InvalidDocument, match=message):
        parse_manifest(document, content_type)


def test_every_wrong_layer_is_named() -> None:
    layers = [LAYER.to_json() | {"size": -1}, LAYER.to_json(), LAYER.to_json() | {"digest": "x"}]
    with pytest.raises(InvalidDocument) as caught:
        parse_manifest(raw(MANIFEST, layers=layers))
    first, second = caught.value.problems
    assert first.startswith("layers[0].size") and second.startswith("layers[2].digest")


def test_a_manifest_of_nearly_four_mebibytes() -> None:
    annotations = {f"key{i}": "x" * 10_000 for i in range(390)}
    manifest = parse_manifest(raw(MANIFEST, annotations=annotations))
    assert manifest.annotations == annotations


def test_values_are_small_to_print_and_can_be_counted() -> None:
    manifest, index = parse_manifest(raw(MANIFEST)), parse_manifest(raw(INDEX))
    assert repr(manifest) == f"ImageManifest({manifest.digest}, 1 layers)"
    assert len({manifest, index, parse_manifest(raw(MANIFEST))}) == 2


@given(st.dictionaries(st.sampled_from([*MANIFEST, *INDEX, "subject", "annotations"]), json_values))
def test_any_document_is_a_manifest_or_refused(changes: dict[str, Any]) -> None:
    for document in (MANIFEST, INDEX):
        try:
            parse_manifest(raw(document, **changes))
        except InvalidDocument:
            pass


@given(st.binary(max_size=100), st.text(max_size=20))
def test_any_bytes_are_a_manifest_or_refused(data: bytes, content_type: str) -> None:
    try:
        parse_manifest(data, content_type)
    except InvalidDocument:
        pass
