"""Listings on SQLite go along an index from where the page begins: no scan, no sorting."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ocispec.digest import Digest

EVERY = 60


@pytest.fixture
def asked() -> Any:
    """The SELECT statements that were run, with their values."""
    statements: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.lstrip().startswith("SELECT"):
            statements.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    yield statements
    event.remove(Engine, "before_cursor_execute", note)


def plan(path: Path, statement: str, values: Any) -> list[str]:
    connection = sqlite3.connect(path)
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    finally:
        connection.close()


Listing = Callable[[Any], Coroutine[Any, Any, Any]]


async def tags_page(registry: Any) -> Any:
    return await registry.metadata.tags.page(registry.access("app"), n=5, last="t3")


async def catalog_page(registry: Any) -> Any:
    return await registry.metadata.repositories.page(lambda name: True, n=5, last="a")


async def search(registry: Any) -> Any:
    return await registry.metadata.repositories.page(lambda name: "b" in name, n=5, look_at=9)


async def referrers_page(registry: Any) -> Any:
    subject = Digest.of(b"subject")
    return await registry.metadata.manifests.referrers(registry.access("app"), subject, n=5)


async def filtered_referrers_page(registry: Any) -> Any:
    subject = Digest.of(b"subject")
    return await registry.metadata.manifests.referrers(
        registry.access("app"), subject, artifact_type="application/x", n=5
    )


@pytest.mark.parametrize(
    "listing", [tags_page, catalog_page, search, referrers_page, filtered_referrers_page]
)
async def test_a_page_is_read_along_an_index(
    file_registry: Any, path: Path, asked: list[tuple[str, Any]], listing: Listing
) -> None:
    await file_registry.image(b"{}", name="app")
    asked.clear()
    await listing(file_registry)
    assert asked
    for statement, values in asked:
        steps = plan(path, statement, values)
        assert steps
        for step in steps:
            assert not step.startswith("SCAN"), (statement, steps)
            assert "TEMP B-TREE" not in step, (statement, steps)


async def test_a_page_looks_at_a_bounded_number_of_names(
    file_registry: Any, asked: list[tuple[str, Any]]
) -> None:
    """Where few are wanted, or empty repositories lie between, the page ends early and says so."""
    for number in range(EVERY):
        await file_registry.image(b"{}", name=f"app{number:03}")
    repositories = file_registry.metadata.repositories
    asked.clear()
    page = await repositories.page(lambda name: False, n=4, look_at=20)
    assert (page.items, page.more, page.seen) == ((), True, "app019")
    assert sum(values[-2] for _, values in asked) == 20, "the LIMITs of its questions"
    found: list[str] = []
    last, pages = "", 0
    while True:
        page = await repositories.page(lambda name: name.endswith("7"), n=2, last=last, look_at=20)
        found += [name.text for name in page.items]
        pages += 1
        if not page.more:
            break
        last = page.seen or page.items[-1].text
    assert found == [f"app{number:03}" for number in range(7, EVERY, 10)]
    assert pages <= 4
