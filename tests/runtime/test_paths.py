"""The tree on disk: names that cannot leave it, and private modes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from runtime.errors import EngineError
from runtime.paths import Paths, component

DIFF_ID = Digest.of(b"layer")


def test_every_directory_is_private(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path / "a/b"), str(tmp_path / "run"))
    paths.create()
    paths.create()
    for folder, _, _ in os.walk(tmp_path):
        if folder != str(tmp_path):
            assert os.stat(folder).st_mode & 0o777 == 0o700


def test_a_layer_has_no_colon_in_its_name(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path), str(tmp_path / "run"))
    assert paths.layer(DIFF_ID) == f"{tmp_path}/layers/sha256-{DIFF_ID.encoded}"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/etc", "-x", ".x", "a\0b", "a\n", "é", "a b", "x" * 201],
)
def test_names_that_are_refused(name: str) -> None:
    paths = Paths("/r", "/x")
    for path in (paths.container, paths.snapshot, paths.volume, paths.network, paths.name):
        with pytest.raises(EngineError):
            path(name)


@given(st.text(max_size=30))
def test_a_component_never_leaves_its_directory(name: str) -> None:
    try:
        component(name)
    except EngineError:
        return
    assert os.path.normpath(f"/root/{name}") == f"/root/{name}"
    assert "/" not in name and ":" not in name and "," not in name
