"""The choice between overlay and copies is made by trying, once."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from runtime.images.store import LayerStore
from runtime.paths import Paths
from runtime.snapshots.copying import CopyingSnapshotter
from runtime.snapshots.overlay import OverlaySnapshotter
from runtime.snapshots.probe import choose_snapshotter, overlay_problem

pytestmark = pytest.mark.root


def test_overlay_is_chosen_where_it_works(tmp_path: Path) -> None:
    store = LayerStore(Paths(str(tmp_path / "root"), str(tmp_path / "run")))
    said: list[str] = []
    chosen = choose_snapshotter(store, rootless=False, warn=said.append)
    assert isinstance(chosen, OverlaySnapshotter)
    assert said == []
    assert os.listdir(store.paths.snapshots) == []


def test_on_top_of_an_overlay_it_says_why_and_copies(tmp_path: Path) -> None:
    """Docker in docker: an overlay's upper cannot be on an overlay."""
    for name in ("l", "u", "w", "m"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tmp_path}/l,upperdir={tmp_path}/u,workdir={tmp_path}/w"
    subprocess.run(["mount", "-t", "overlay", "x", "-o", options, tmp_path / "m"], check=True)
    try:
        store = LayerStore(Paths(str(tmp_path / "m/root"), str(tmp_path / "run")))
        said: list[str] = []
        chosen = choose_snapshotter(store, rootless=False, warn=said.append)
        assert isinstance(chosen, CopyingSnapshotter)
        assert len(said) == 1 and "full copy" in said[0]
    finally:
        subprocess.run(["umount", tmp_path / "m"], check=True)


def test_the_answer_is_remembered_until_the_next_boot(tmp_path: Path) -> None:
    paths = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    assert overlay_problem(paths, rootless=False) == ""
    (tmp_path / "run/overlay").write_text("because")
    assert overlay_problem(paths, rootless=False) == "because"


def test_without_root(tmp_path: Path) -> None:
    place = tempfile.mkdtemp()
    os.chown(place, 65534, 65534)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            paths = Paths(place + "/root", place + "/run")
            status = 0 if overlay_problem(paths, rootless=True) == "" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    subprocess.run(["rm", "-rf", place], check=True)
