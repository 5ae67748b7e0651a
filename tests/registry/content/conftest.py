"""Databases to copy, for tests of content on real metadata."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders.postgres import PostgresServer


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from registry.metadata.database import prepare

    path = tmp_path_factory.mktemp("template") / "metadata.db"
    prepare(path)
    return path


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    from registry.metadata.location import Location
    from registry.metadata.postgres import prepare_postgres

    name = postgres.create()
    prepare_postgres(Location.parse(postgres.url(name)))
    return name
