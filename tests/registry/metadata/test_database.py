"""Transactions: on disk when acknowledged, whole or absent, in groups, next to other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import DatabaseBusy, NameUnknown, StorageFull
from registry.metadata import database as database_module
from registry.metadata.base import Metadata
from registry.metadata.database import Database, open_metadata
from registry.metadata.transaction import Terms, Transaction
from tests.registry.metadata.conftest import Clock, manifest

# Pushes for ever; one line per acknowledged push.
WRITER = """
import asyncio, sys
from pathlib import Path
from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.metadata.base import Access, BlobReference, NewManifest
from registry.metadata.database import open_metadata

async def main(path, name, count):
    metadata = open_metadata(Path(path))
    access = Access(RepositoryName(name), "omri", frozenset({"pull", "push", "delete"}))

    async def push(number):
        content = f"{name} {number}".encode()
        layer = Digest.of(content)
        upload = await metadata.uploads.begin(access)
        await metadata.uploads.advance(access, upload.id, start=0, offset=len(content))
        await metadata.uploads.finish(access, upload.id, layer, len(content),
                                      store_key=str(layer), generation=0)
        new = NewManifest(Digest.of(b"m" + content), "x/y", b"m" + content,
                          (BlobReference(layer, "layer"),))
        await metadata.manifests.put(access, new, tags=(Tag(f"t{number}"), Tag("latest")))
        print(number, flush=True)

    for number in range(0, count, 4):
        await asyncio.gather(*(push(number + lane) for lane in range(4)))
    metadata.close()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def start_writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WRITER, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_two_processes_write_at_once_and_nobody_sees_a_lock(file_registry, path):
    """Each leaves the lock to the other in time; "database is locked" never surfaces."""
    writers = [start_writer(path, f"writer{number}", 60) for number in range(2)]
    for number in range(20):
        await file_registry.image(b"mine %d" % number, f"m{number}")
    for writer in writers:
        _, problems = writer.communicate(timeout=60)
        assert (writer.returncode, problems) == (0, "")
    for name in ("writer0", "writer1"):
        page = await file_registry.metadata.tags.page(file_registry.access(name), n=100)
        assert len(page.items) == 61


@pytest.mark.parametrize("after", [3, 17, 42])
async def test_kill_9_loses_nothing_acknowledged_and_shows_nothing_half_done(path, after):
    writer = start_writer(path, "victim", 10_000)
    assert writer.stdout is not None and writer.stderr is not None
    acknowledged = [int(writer.stdout.readline()) for _ in range(after)]
    os.kill(writer.pid, signal.SIGKILL)
    complete = writer.stdout.read().rpartition("\n")[0]
    acknowledged += [int(line) for line in complete.splitlines()]
    writer.stderr.close()
    writer.wait()
    writer.stdout.close()
    metadata = open_metadata(path)
    try:
        await check_whole(metadata, path, acknowledged)
    finally:
        metadata.close()


async def check_whole(metadata: Metadata, path: Path, acknowledged: list[int]) -> None:
    from ocispec.distribution.name import RepositoryName
    from registry.metadata.base import Access

    access = Access(RepositoryName("victim"), "omri", frozenset({"pull", "push", "delete"}))
    for number in acknowledged:
        found = metadata.immediate.manifest_by_tag(access, Tag(f"t{number}"))
        assert found is not None
        assert metadata.immediate.blob(access, Digest.of(found.raw[1:])) is not None
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    half_done = """SELECT count(*) FROM manifest WHERE id NOT IN (SELECT manifest_id FROM tag)
                   OR id NOT IN (SELECT manifest_id FROM manifest_blob)"""
    assert connection.execute(half_done).fetchone() == (0,)
    connection.close()


async def test_an_operation_that_raises_changes_nothing(registry):
    def step(tx: Transaction) -> None:
        tx.connection.execute(text("INSERT INTO repository (name, created_at) VALUES ('x', 1)"))
        raise NameUnknown("x")

    with pytest.raises(NameUnknown):
        await registry.database.write(step)
    assert await registry.hot.repository(registry.access("x")) is None


async def test_what_waits_for_the_disk_is_committed_together_each_on_its_own(file_registry):
    """One of a group fails: the others are kept, it alone is undone."""
    gate = threading.Event()
    first = asyncio.ensure_future(file_registry.database.write(lambda tx: gate.wait(10)))
    await asyncio.sleep(0.05)  # the writer is busy now, the rest becomes one group
    absent = manifest(b"refused", layers=(b"absent",))
    results = [
        asyncio.ensure_future(operation)
        for operation in (
            file_registry.metadata.manifests.put(file_registry.access("a/a"), manifest(b"a")),
            file_registry.metadata.manifests.put(file_registry.access("b/b"), absent),
            file_registry.metadata.manifests.put(file_registry.access("c/c"), manifest(b"c")),
        )
    ]
    await asyncio.sleep(0.05)
    gate.set()
    assert await first
    a, b, c = await asyncio.gather(*results, return_exceptions=True)
    assert (a, type(b).__name__, c) == (True, "ManifestBlobUnknown", True)
    assert await file_registry.hot.repository(file_registry.access("a/a")) is not None
    assert await file_registry.hot.repository(file_registry.access("b/b")) is None
    assert await file_registry.hot.repository(file_registry.access("c/c")) is not None


async def test_a_caller_that_went_away_before_its_turn_costs_nothing(file_registry):
    gate = threading.Event()
    first = asyncio.ensure_future(file_registry.database.write(lambda tx: gate.wait(10)))
    await asyncio.sleep(0.05)
    gone = asyncio.ensure_future(file_registry.metadata.uploads.begin(file_registry.access("gone")))
    stays = asyncio.ensure_future(
        file_registry.metadata.uploads.begin(file_registry.access("stays"))
    )
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0.05)
    gate.set()
    await first
    await stays
    assert await file_registry.hot.repository(file_registry.access("gone")) is None
    assert await file_registry.hot.repository(file_registry.access("stays")) is not None


async def test_a_lock_that_is_never_released_is_reported(path, monkeypatch):
    monkeypatch.setattr(database_module, "_LOCK_S", 0.02)
    database = Database(path, clock=Clock(), terms=Terms())
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseBusy) as caught:
        await database.write(lambda tx: None)
    assert caught.value.hint
    holder.execute("ROLLBACK")
    holder.close()
    assert await database.write(lambda tx: 7) == 7
    database.close()


async def test_a_full_disk_is_reported_and_what_was_there_stays(file_registry):
    await file_registry.image(b"before", "latest")

    def limit(tx: Transaction) -> None:
        pages = tx.connection.exec_driver_sql("PRAGMA page_count").scalar()
        tx.connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    await file_registry.database.write(limit)
    big = manifest(b"x" * 1_000_000)
    with pytest.raises(StorageFull):
        await file_registry.metadata.manifests.put(
            file_registry.access(), big, tags=(Tag("latest"),)
        )
    found = await file_registry.hot.manifest_by_tag(file_registry.access(), Tag("latest"))
    assert found is not None and found.raw == b"before"

    def unlimit(tx: Transaction) -> None:
        tx.connection.exec_driver_sql("PRAGMA max_page_count = 1000000000")

    await file_registry.database.write(unlimit)
    await file_registry.metadata.manifests.put(file_registry.access(), big, tags=(Tag("latest"),))


async def test_durability_settings(file_registry):
    def pragmas(tx: Transaction) -> tuple[object, ...]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return tuple(tx.connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names)

    assert await file_registry.database.write(pragmas) == ("wal", 2, 1)
    unflushed = await file_registry.database.write(pragmas, flushed=False)
    assert unflushed == ("wal", 1, 1)
    assert await file_registry.database.write(pragmas) == ("wal", 2, 1)


async def test_a_group_with_one_flushed_step_is_flushed(file_registry):
    """What waits together is committed together: the strictest of them counts."""
    gate = threading.Event()
    held = asyncio.ensure_future(file_registry.database.write(lambda tx: gate.wait(10)))
    await asyncio.sleep(0.05)

    def synchronous(tx: Transaction) -> object:
        return tx.connection.exec_driver_sql("PRAGMA synchronous").scalar()

    both = [
        asyncio.ensure_future(file_registry.database.write(synchronous, flushed=flushed))
        for flushed in (False, True)
    ]
    await asyncio.sleep(0.05)
    gate.set()
    assert await asyncio.gather(*both) == [2, 2]
    await held


async def test_closing_finishes_what_was_begun_and_is_harmless_twice(path):
    metadata = open_metadata(path)
    database = Database(path, clock=time.time, terms=Terms())
    done: list[int] = []
    futures = [
        asyncio.ensure_future(database.write(lambda tx, n=n: done.append(n))) for n in range(50)
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(database.close)
    await asyncio.gather(*futures)
    assert done == list(range(50))
    database.close()
    metadata.close()
    metadata.close()
    with pytest.raises(RuntimeError, match="closed"):
        await database.write(lambda tx: None)


async def test_writes_go_on_after_a_roll_back_that_failed(path, monkeypatch):
    """A disk that fails at the worst moment must not end the thread that all writes need."""
    database = Database(path, clock=Clock(), terms=Terms())
    writer = database._writer
    lost = writer._driver()
    failed = []

    class Failing:
        """The driver's connection, whose roll-back does not work any more."""

        def __getattr__(self, name: str) -> object:
            return getattr(lost, name)

        def rollback(self) -> None:
            monkeypatch.undo()
            failed.append(True)
            raise OSError("input/output error")

    def broken(tx: Transaction) -> None:
        raise NameUnknown("team/app")

    try:
        monkeypatch.setattr(writer, "_driver", Failing)
        with pytest.raises(NameUnknown):
            await database.write(broken)
        assert failed

        def step(tx: Transaction) -> int:
            tx.connection.execute(text("INSERT INTO repository(name, created_at) VALUES('x', 1)"))
            return int(tx.connection.execute(text("SELECT count(*) FROM repository")).scalar_one())

        assert await database.write(step) == 1
        assert writer._driver() is not lost
    finally:
        database.close()
