"""Hot reads see every commit of everybody, remember nothing, change nothing and block nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import Denied
from registry.metadata.base import PULL, PUSH
from registry.metadata.hotreads import SqliteHotReads


async def test_a_commit_of_another_process_is_seen_at_once(registry):
    access = registry.access()
    other = await asyncio.to_thread(registry.reopen)
    try:
        new = await registry.image(b"{}", "latest", layers=(b"layer",))
        assert await other.hot.manifest_by_tag(access, Tag("latest")) is not None
        assert await other.hot.blob(access, Digest.of(b"layer")) is not None
        await other.manifests.remove(access, new.digest)
        await other.blobs.remove(access, Digest.of(b"layer"))
        assert await registry.hot.manifest_by_tag(access, Tag("latest")) is None
        assert await registry.hot.manifest_by_digest(access, new.digest) is None
        assert await registry.hot.blob(access, Digest.of(b"layer")) is None
    finally:
        await asyncio.to_thread(other.close)


async def test_cve_2026_35172_membership_ends_for_good_whoever_asks_elsewhere(registry):
    layer = Digest.of(b"layer")
    await registry.blob(b"layer", "a/a")
    await registry.blob(b"layer", "b/b")
    assert await registry.hot.blob(registry.access("a/a"), layer) is not None
    await registry.metadata.blobs.remove(registry.access("a/a"), layer)
    assert await registry.hot.blob(registry.access("b/b"), layer) is not None
    assert await registry.hot.blob(registry.access("a/a"), layer) is None


async def test_rights_are_asked_before_the_database(registry):
    new = await registry.image(b"{}", "latest", layers=(b"layer",))
    pusher = registry.access("team/app", "omri", PUSH)
    for question in (
        lambda: registry.hot.manifest_by_tag(pusher, Tag("latest")),
        lambda: registry.hot.manifest_by_digest(pusher, new.digest),
        lambda: registry.hot.blob(pusher, Digest.of(b"layer")),
        lambda: registry.hot.placement(registry.access("a", "omri", PULL), new.digest),
        lambda: registry.hot.upload(registry.access("a", "omri", PULL), "id"),
    ):
        with pytest.raises(Denied):
            await question()


async def test_no_read_transaction_stays_open(file_registry, path):
    """One would keep the write-ahead log from being emptied, and hide later commits."""
    await file_registry.image(b"{}", "latest", layers=(b"layer",))
    access = file_registry.access()
    await file_registry.hot.manifest_by_tag(access, Tag("latest"))
    await file_registry.hot.manifest_by_tag(access, Tag("none"))
    await file_registry.hot.blob(access, Digest.of(b"layer"))
    await file_registry.hot.repository(access)
    await file_registry.hot.placement(access, Digest.of(b"layer"))
    await file_registry.hot.upload(access, "id")
    with sqlite3.connect(path, isolation_level=None) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert not busy


async def test_a_writer_in_the_middle_of_a_transaction_blocks_no_reader(file_registry, path):
    await file_registry.image(b"{}", "latest")
    writer = sqlite3.connect(path, isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM tag")
        started = time.perf_counter()
        assert (
            await file_registry.hot.manifest_by_tag(file_registry.access(), Tag("latest"))
            is not None
        )
        assert time.perf_counter() - started < 0.5
        writer.execute("ROLLBACK")
    finally:
        writer.close()


def test_the_connection_cannot_write(path):
    hot = SqliteHotReads(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        hot._connection.execute("DELETE FROM tag")
    hot.close()


async def test_questions_use_indexes_only(file_registry, path):
    """A plan that scans would be slow only with many rows, long after the tests passed."""
    from registry.metadata import hotreads

    connection = sqlite3.connect(path)
    for query in (
        hotreads._REPOSITORY,
        hotreads._MANIFEST_BY_TAG,
        hotreads._MANIFEST_BY_DIGEST,
        hotreads._BLOB,
        hotreads._PLACEMENT,
        hotreads._UPLOAD,
    ):
        arguments = ("x",) * query.count("?")
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + query, arguments)]
        assert all(step.startswith("SEARCH") for step in plan), (query, plan)
    connection.close()


async def test_an_account_is_seen_as_it_is_now(registry):
    accounts, hot = registry.metadata.accounts, registry.hot
    assert await hot.account("omri") is None
    await accounts.add("omri", "hash", "writer")
    assert await hot.account("omri") == await accounts.find("omri")
    await accounts.set_role("omri", "reader")
    await accounts.set_disabled("omri", True)
    seen = await hot.account("omri")
    assert (seen.role, seen.disabled) == ("reader", True)
    await accounts.remove("omri")
    assert await hot.account("omri") is None
