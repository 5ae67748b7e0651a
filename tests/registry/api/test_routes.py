"""Paths are read from the right, and nothing outside the table is a route."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.api.routes import ACTIONS, MAX_PATH, Target, methods_of, parse_path

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/v2/", Target("base", "", "")),
        ("/v2", Target("base", "", "")),
        ("/v2/_catalog", Target("catalog", "", "")),
        ("/v2/a/manifests/latest", Target("manifest", "a", "latest")),
        ("/v2/a/b/c/manifests/" + DIGEST, Target("manifest", "a/b/c", DIGEST)),
        ("/v2/a/blobs/" + DIGEST, Target("blob", "a", DIGEST)),
        ("/v2/a/blobs/uploads/", Target("uploads", "a", "")),
        ("/v2/a/blobs/uploads", Target("uploads", "a", "")),
        ("/v2/a/blobs/uploads/1", Target("upload", "a", "1")),
        ("/v2/a/tags/list", Target("tags", "a", "")),
        ("/v2/a/referrers/" + DIGEST, Target("referrers", "a", DIGEST)),
        # Names that hold words of the API.
        ("/v2/blobs/uploads/manifests/x", Target("manifest", "blobs/uploads", "x")),
        ("/v2/tags/list/tags/list", Target("tags", "tags/list", "")),
        ("/v2/a/blobs/uploads/blobs/uploads/", Target("uploads", "a/blobs/uploads", "")),
        ("/v2/a/manifests/manifests/manifests", Target("manifest", "a/manifests", "manifests")),
        ("/v2/referrers/blobs/x", Target("blob", "referrers", "x")),
    ],
)
def test_reads(path: str, target: Target) -> None:
    assert parse_path(path) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1/_catalog",
        "//v2/_catalog",
        "/v2/./_catalog",
        "/V2/_catalog",
        "/v2/_catalog/",
        "/v2/_CATALOG",
        "/v2/manifests/latest",
        "/v2//manifests",
        "/v2/a/manifests/",
        "/v2/a/blobs/",
        "/v2/a/tags/list/",
        "/v2/a\nb/manifests/latest",
        "/v2/" + "a" * MAX_PATH + "/tags/list",
    ],
)
def test_is_no_route(path: str) -> None:
    assert parse_path(path) is None


@given(st.text(max_size=200))
def test_any_text_is_a_target_or_none(text: str) -> None:
    target = parse_path("/v2/" + text)
    assert target is None or (target.kind, "GET") in ACTIONS or target.kind == "uploads"


def test_methods_for_allow() -> None:
    assert methods_of("manifest") == ("GET", "HEAD", "PUT", "DELETE")
    assert methods_of("uploads") == ("POST",)
