from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec import mediatype
from ocispec.errors import InvalidMediaType
from ocispec.mediatype import is_foreign, layer_compression, parse_media_type


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (mediatype.OCI_MANIFEST, mediatype.OCI_MANIFEST),
        (f"{mediatype.OCI_INDEX}; charset=utf-8", mediatype.OCI_INDEX),
        ("Application/JSON;charset=utf-8", "application/json"),
        ("  text/plain  ", "text/plain"),
        ("text/plain ;", "text/plain"),
    ],
)
def test_content_type_without_parameters(header: str, expected: str) -> None:
    assert parse_media_type(header) == expected


@pytest.mark.parametrize(
    ("header", "description"),
    [
        ("", "empty"),
        ("application", "no subtype"),
        ("application/", "empty subtype"),
        ("a/b/c", "two slashes"),
        ("a/b\r\nX: y", "header injection"),
        ("a/b; c\nd", "newline in a parameter"),
        ("a/b c", "a space inside"),
        ("a/" + "b" * 200, "subtype too long"),
        ("a/b;" + "c" * 2000, "parameters too long"),
        ("ä/b", "not ASCII"),
    ],
)
def test_refused(header: str, description: str) -> None:
    with pytest.raises(InvalidMediaType):
        parse_media_type(header)


@given(st.text())
def test_any_text_is_a_media_type_or_refused(text: str) -> None:
    try:
        kind = parse_media_type(text)
    except InvalidMediaType:
        return
    assert parse_media_type(kind) == kind


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (mediatype.OCI_LAYER, ""),
        (mediatype.OCI_LAYER_GZIP, "gzip"),
        (mediatype.OCI_LAYER_ZSTD, "zstd"),
        (mediatype.DOCKER_LAYER, ""),
        (mediatype.DOCKER_LAYER_GZIP, "gzip"),
        (mediatype.DOCKER_LAYER_ZSTD, "zstd"),
        (mediatype.DOCKER_FOREIGN_LAYER, "gzip"),
        ("application/gzip", ""),
    ],
)
def test_compression_a_layer_claims(media_type: str, compression: str) -> None:
    assert layer_compression(media_type) == compression


def test_foreign_layers() -> None:
    assert is_foreign(mediatype.OCI_NONDISTRIBUTABLE_ZSTD)
    assert is_foreign(mediatype.DOCKER_FOREIGN_LAYER)
    assert not is_foreign(mediatype.OCI_LAYER_GZIP)


def test_accept_names_every_image_type() -> None:
    assert set(mediatype.ACCEPT.split(", ")) == mediatype.IMAGE_TYPES
