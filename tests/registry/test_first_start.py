"""The first start: directory, database, and one password that is told once."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from registry.auth.login import FIRST_ADMIN
from registry.first_start import DataUnusable, StartFailed, prepare, prepare_apart, require_registry
from registry.settings import Settings


async def test_the_password_of_the_first_admin_is_given_once(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path))
    password = await prepare(settings)
    assert len(password) >= 20
    assert await prepare(settings) == ""
    assert FIRST_ADMIN.encode() in settings.data.joinpath("metadata.db").read_bytes()
    for path in (settings.data, *settings.data.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        if path.is_file():
            assert password.encode() not in path.read_bytes()


def test_the_database_is_made_by_a_child_and_the_tool_stays_there(tmp_path: Path) -> None:
    before = "alembic" in sys.modules
    settings = Settings(root=str(tmp_path))
    assert len(prepare_apart(settings)) >= 20
    assert prepare_apart(settings) == ""
    require_registry(settings)
    assert ("alembic" in sys.modules) == before


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    settings = Settings(root=str(tmp_path / "file"))
    with pytest.raises(StartFailed, match="cannot write to the data directory") as caught:
        prepare_apart(settings)
    assert "--root" in caught.value.hint
    with pytest.raises(DataUnusable):
        require_registry(settings)


def test_an_older_database_is_not_upgraded_unasked(tmp_path: Path) -> None:
    settings = Settings(root=str(tmp_path), upgrade=False)
    with pytest.raises(StartFailed, match="has schema none") as caught:
        prepare_apart(settings)
    assert "pyreg db upgrade" in caught.value.hint
    assert not settings.data.joinpath("metadata.db").exists()
    prepare_apart(Settings(root=str(tmp_path)))
    assert prepare_apart(settings) == ""
