"""Accounts of a database made by the first migration come over."""

from __future__ import annotations

import sqlite3
from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

import migrations
from registry.metadata.base import Metadata
from registry.metadata.database import make_file, open_metadata, sqlite_engine


def _first(connection: object) -> None:
    with resources.as_file(resources.files(migrations)) as directory:
        config = Config()
        config.set_main_option("script_location", str(directory))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")


_FILL = (
    "INSERT INTO account (id, name, password_hash, role, disabled, created_at,"
    " password_changed_at) VALUES (3, 'ann', 'h', 'admin', {no}, 5, 6),"
    " (9, 'gone', 'h', 'reader', {no}, 5, 6)",
    "INSERT INTO refresh_token (token_hash, account_id, client_id, created_at, expires_at)"
    " VALUES ('t', 3, 'docker', 5, 4000000000)",
    "DELETE FROM account WHERE name = 'gone'",
)


async def _check(metadata: Metadata) -> None:
    ann = await metadata.accounts.find("ann")
    assert ann is not None
    assert (ann.role, ann.kind, ann.created_at, ann.version) == ("admin", "user", 5, 1)
    token = await metadata.credentials.find_refresh_token("t")
    assert token is not None and token.account == "ann"
    await metadata.accounts.add("plain", "h", "user")
    await metadata.accounts.remove("plain")


async def test_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "metadata.db"
    make_file(path)
    engine = sqlite_engine(path, begin="BEGIN IMMEDIATE")
    with engine.begin() as connection:
        _first(connection)
        for statement in _FILL:
            connection.execute(text(statement.format(no="0")))
    engine.dispose()
    metadata = open_metadata(path)
    try:
        await _check(metadata)
    finally:
        metadata.close()
    opened = sqlite3.connect(path)
    try:
        assert opened.execute("PRAGMA foreign_key_check").fetchall() == []
        # An id is not given twice, even that of an account that was removed long ago.
        query = "SELECT seq FROM sqlite_sequence WHERE name = 'account'"
        assert opened.execute(query).fetchall() == [(10,)]
    finally:
        opened.close()
