"""Each race by its name, on both kinds of database; see `races`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders.postgres import PostgresServer
from tests.registry.content import races
from tests.registry.content.collect_model import World
from tests.registry.content.test_collect_machine import on_postgresql, on_sqlite


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "sqlite":
        template: Path = request.getfixturevalue("empty_database")
        registry, drop = on_sqlite(template)()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        registry, drop = on_postgresql(server, request.getfixturevalue("migrated"))()
    made = World(registry)
    yield made
    made.close()
    drop()


@pytest.mark.parametrize("race", races.RACES.values(), ids=lambda race: race.__name__)
def test_race(world: World, race: Callable[[World], None]) -> None:
    race(world)
    world.converge()
