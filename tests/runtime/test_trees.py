"""Removing trees that somebody hostile made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.trees import remove_tree


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/canary").write_text("alive")
    (tmp_path / "tree/d").mkdir(parents=True)
    os.symlink(tmp_path / "outside", tmp_path / "tree/d/link")
    os.mkfifo(tmp_path / "tree/fifo")
    remove_tree(str(tmp_path / "tree"))
    assert sorted(os.listdir(tmp_path)) == ["outside"]
    assert (tmp_path / "outside/canary").read_text() == "alive"


def test_a_link_in_place_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    os.symlink("real", tmp_path / "tree")
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == ["real"]


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(str(tmp_path / "nothing"))


def test_thousands_of_nested_directories(tmp_path: Path) -> None:
    """Deeper than the recursion limit, the descriptor limit and PATH_MAX."""
    os.mkdir(tmp_path / "tree")
    here = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("d" * 10, dir_fd=here)
        below = os.open("d" * 10, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(str(tmp_path / "tree"))
    assert os.listdir(tmp_path) == []


@pytest.mark.root
def test_a_users_own_directories_without_permission(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents[:2]:
        os.chmod(parent, 0o755)
    (tmp_path / "mine/tree/no/deep").mkdir(parents=True)
    (tmp_path / "mine/tree/no/file").write_text("x")
    for path in (tmp_path / "mine").rglob("*"):
        os.chown(path, 65534, 65534)
    os.chown(tmp_path / "mine", 65534, 65534)
    os.chmod(tmp_path / "mine/tree/no/deep", 0)
    os.chmod(tmp_path / "mine/tree/no", 0)
    os.chmod(tmp_path / "mine/tree", 0o555)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            remove_tree(str(tmp_path / "mine/tree"))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(tmp_path / "mine") == []
