"""Metadata on a real SQLite file and on a real PostgreSQL, with a clock that only tests move.

`registry` runs each test on both; `file_registry` is for what only a file has.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import insert, update

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.metadata import tables
from registry.metadata.base import (
    DELETE,
    PULL,
    PUSH,
    Access,
    BlobRecord,
    BlobReference,
    HotReads,
    Metadata,
    NewManifest,
)
from registry.metadata.database import Database, SqlMetadata, assemble, open_metadata, prepare
from registry.metadata.hotreads import AtOnce, SqliteHotReads
from registry.metadata.hotreads_postgres import PostgresHotReads
from registry.metadata.location import Location
from registry.metadata.postgres import PATIENCE_S, PostgresDatabase, prepare_postgres
from registry.metadata.transaction import Terms, Transaction, Transactions
from tests.builders.postgres import PostgresServer

HOUR = 3600
DAY = 24 * HOUR


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Registry:
    """The metadata under test with short words for what most tests do first."""

    metadata: SqlMetadata
    database: Transactions
    clock: Clock
    #: Opens the same database once more, as another process does.
    reopen: Callable[[], Metadata]

    @property
    def hot(self) -> HotReads:
        return self.metadata.hot

    def access(self, name: str = "team/app", subject: str = "omri", *actions: str) -> Access:
        granted = frozenset(actions or (PULL, PUSH, DELETE))
        return Access(RepositoryName(name), subject, granted)

    async def blob(self, content: bytes, name: str = "team/app") -> BlobRecord:
        digest = Digest.of(content)
        generation = (await self.hot.placement(self.access(name), digest)).generation
        return await self.metadata.blobs.add(
            self.access(name),
            digest,
            len(content),
            store_key=f"{digest}.{generation}",
            generation=generation,
        )

    async def image(
        self, content: bytes, *tags: str, name: str = "team/app", layers: tuple[bytes, ...] = ()
    ) -> NewManifest:
        """Push a manifest whose bytes are `content`, and before it its layers."""
        for layer in layers:
            await self.blob(layer, name)
        new = manifest(content, layers=layers)
        await self.metadata.manifests.put(self.access(name), new, tags=tuple(map(Tag, tags)))
        return new

    async def doom(self, digest: Digest) -> None:
        """What the collector does to a blob nobody uses, in short."""

        def step(tx: Transaction) -> None:
            memberships = tables.repository_blob
            tx.connection.execute(memberships.delete().where(memberships.c.digest == str(digest)))
            row = tx.connection.execute(
                tables.blob.select().where(tables.blob.c.digest == str(digest))
            ).one()
            tx.connection.execute(
                insert(tables.doomed_object).values(
                    store_key=row.store_key, size=row.size, doomed_at=tx.now
                )
            )
            tx.connection.execute(
                update(tables.blob)
                .where(tables.blob.c.digest == str(digest))
                .values(state="doomed", generation=row.generation + 1)
            )

        await self.database.write(step)

    async def queued(self) -> dict[tuple[str, str], tuple[str, int]]:
        """Kind and key of what the collector will look at → why, and in how many seconds."""

        def step(tx: Transaction) -> dict[tuple[str, str], tuple[str, int]]:
            rows = tx.connection.execute(tables.gc_queue.select())
            return {(r.kind, r.key): (r.event, r.due_at - tx.now) for r in rows}

        return await self.database.read(step)

    async def events(self) -> list[tuple[str, str, str]]:
        def step(tx: Transaction) -> list[tuple[str, str, str]]:
            rows = tx.connection.execute(tables.event.select().order_by(tables.event.c.id))
            return [(r.kind, r.digest, r.tag) for r in rows]

        return await self.database.read(step)

    async def row(self, content: bytes) -> BlobRecord:
        found = await self.metadata.blobs.find(Digest.of(content))
        assert found is not None
        return found


def manifest(
    content: bytes,
    *,
    layers: tuple[bytes, ...] = (),
    children: tuple[Digest, ...] = (),
    subject: Digest | None = None,
    artifact_type: str = "",
    config_media_type: str = "",
    annotations: dict[str, str] | None = None,
) -> NewManifest:
    return NewManifest(
        digest=Digest.of(content),
        media_type="application/vnd.oci.image.manifest.v1+json",
        raw=content,
        blobs=tuple(BlobReference(Digest.of(layer), "layer") for layer in layers),
        children=children,
        subject=subject,
        artifact_type=artifact_type,
        config_media_type=config_media_type,
        annotations=annotations or {},
    )


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, to be copied."""
    path = tmp_path_factory.mktemp("template") / "metadata.db"
    prepare(path)
    return path


@pytest.fixture
def path(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copyfile(empty_database, tmp_path / "metadata.db"))


@pytest.fixture(scope="session")
def migrated(postgres: PostgresServer) -> str:
    """A migrated PostgreSQL database without rows, to be copied; its name."""
    name = postgres.create()
    prepare_postgres(Location.parse(postgres.url(name)))
    return name


@pytest.fixture
def database_url(postgres: PostgresServer, migrated: str) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with our tables."""
    name = postgres.create(migrated)
    yield postgres.url(name)
    postgres.drop(name)


def open_file(path: Path, terms: Terms | None = None) -> Registry:
    clock = Clock()
    database = Database(path, clock=clock, terms=terms or Terms())
    immediate = SqliteHotReads(path, clock=clock)
    metadata = assemble(database, AtOnce(immediate), database.close, immediate=immediate)
    return Registry(metadata, database, clock, lambda: open_metadata(path, clock=clock))


def open_server(
    url: str, *, patience_s: float = PATIENCE_S, terms: Terms | None = None
) -> Registry:
    clock = Clock()
    place = Location.parse(url)
    database = PostgresDatabase(
        place, clock=clock, terms=terms or Terms(), connections=4, patience_s=patience_s
    )
    hot = PostgresHotReads(place, clock=clock, patience_s=patience_s)
    metadata = assemble(database, hot, database.close)
    return Registry(
        metadata, database, clock, lambda: open_metadata(Path(), database=url, clock=clock)
    )


@pytest.fixture
def file_registry(path: Path) -> Iterator[Registry]:
    registry = open_file(path)
    yield registry
    registry.metadata.close()


@pytest.fixture
def server_registry(database_url: str) -> Iterator[Registry]:
    registry = open_server(database_url)
    yield registry
    registry.metadata.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def registry(request: pytest.FixtureRequest) -> Registry:
    kind = "file_registry" if request.param == "sqlite" else "server_registry"
    found = request.getfixturevalue(kind)
    assert isinstance(found, Registry)
    return found
