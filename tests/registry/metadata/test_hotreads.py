"""Hot reads see every commit of everybody, remember nothing, change nothing and block nobody."""

from __future__ import annotations

import sqlite3
import time

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import Denied
from registry.metadata.base import PULL, PUSH
from registry.metadata.database import open_metadata
from registry.metadata.hotreads import SqliteHotReads


async def test_a_commit_of_another_process_is_seen_at_once(registry):
    access = registry.access()
    other = open_metadata(registry.path, clock=registry.clock)
    try:
        new = await registry.image(b"{}", "latest", layers=(b"layer",))
        assert await other.hot.manifest_by_tag(access, Tag("latest")) is not None
        assert await other.hot.blob(access, Digest.of(b"layer")) is not None
        await other.manifests.remove(access, new.digest)
        await other.blobs.remove(access, Digest.of(b"layer"))
        assert registry.hot.manifest_by_tag(access, Tag("latest")) is None
        assert registry.hot.manifest_by_digest(access, new.digest) is None
        assert registry.hot.blob(access, Digest.of(b"layer")) is None
    finally:
        other.close()


async def test_cve_2026_35172_membership_ends_for_good_whoever_asks_elsewhere(registry):
    layer = Digest.of(b"layer")
    await registry.blob(b"layer", "a/a")
    await registry.blob(b"layer", "b/b")
    assert registry.hot.blob(registry.access("a/a"), layer) is not None
    await registry.metadata.blobs.remove(registry.access("a/a"), layer)
    assert registry.hot.blob(registry.access("b/b"), layer) is not None
    assert registry.hot.blob(registry.access("a/a"), layer) is None


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
            question()


async def test_no_read_transaction_stays_open(registry):
    """One would keep the write-ahead log from being emptied, and hide later commits."""
    await registry.image(b"{}", "latest", layers=(b"layer",))
    access = registry.access()
    registry.hot.manifest_by_tag(access, Tag("latest"))
    registry.hot.manifest_by_tag(access, Tag("none"))
    registry.hot.blob(access, Digest.of(b"layer"))
    registry.hot.repository(access)
    registry.hot.placement(access, Digest.of(b"layer"))
    registry.hot.upload(access, "id")
    with sqlite3.connect(registry.path, isolation_level=None) as connection:
        busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    connection.close()
    assert not busy


async def test_a_writer_in_the_middle_of_a_transaction_blocks_no_reader(registry):
    await registry.image(b"{}", "latest")
    writer = sqlite3.connect(registry.path, isolation_level=None)
    try:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("DELETE FROM tag")
        started = time.perf_counter()
        assert registry.hot.manifest_by_tag(registry.access(), Tag("latest")) is not None
        assert time.perf_counter() - started < 0.5
        writer.execute("ROLLBACK")
    finally:
        writer.close()


def test_the_connection_cannot_write(path):
    hot = SqliteHotReads(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        hot._connection.execute("DELETE FROM tag")
    hot.close()


async def test_questions_use_indexes_only(registry):
    """A plan that scans would be slow only with many rows, long after the tests passed."""
    from registry.metadata import hotreads

    connection = sqlite3.connect(registry.path)
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
    assert hot.account("omri") is None
    await accounts.add("omri", "hash", "writer")
    assert hot.account("omri") == await accounts.find("omri")
    await accounts.set_role("omri", "reader")
    await accounts.set_disabled("omri", True)
    seen = hot.account("omri")
    assert (seen.role, seen.disabled) == ("reader", True)
    await accounts.remove("omri")
    assert hot.account("omri") is None
