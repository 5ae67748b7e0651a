"""`HotReads` on PostgreSQL: prepared statements on held connections, asked by the event loop.

Whether something exists is asked each time. Only the bytes of manifests are remembered, by digest:
they never change. The question about a tag names the digest that was seen last, and the server
leaves the bytes out of its answer if the tag still has that one.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import DatabaseUnreachable
from registry.metadata.base import (
    PULL,
    PUSH,
    Access,
    Account,
    BlobRecord,
    ManifestRecord,
    Placement,
    Repository,
    UploadRecord,
)
from registry.metadata.hotreads import placement_of
from registry.metadata.location import Location
from registry.metadata.pipeline import ConnectionLost, Pipeline, Row, connect
from registry.metadata.postgres import PATIENCE_S
from registry.metadata.transaction import digest_of, is_upload_id, optional_digest

_MANIFEST = b"""
    SELECT m.digest, m.media_type, CASE WHEN m.digest = $3 THEN NULL ELSE m.raw END,
           m.subject_digest, m.pushed_at
    FROM repository r %b WHERE r.name = $1 AND %b = $2
"""
_BLOB_COLUMNS = b"b.size, b.state, b.generation, b.store_key, b.unreferenced_since, b.lease_until"

STATEMENTS = {
    b"repository": b"SELECT id, created_at FROM repository WHERE name = $1",
    b"by_tag": _MANIFEST
    % (
        b"JOIN tag t ON t.repository_id = r.id JOIN manifest m ON m.id = t.manifest_id",
        b"t.name",
    ),
    b"by_digest": _MANIFEST % (b"JOIN manifest m ON m.repository_id = r.id", b"m.digest"),
    b"blob": b"SELECT "
    + _BLOB_COLUMNS
    + b"""
        FROM repository r
        JOIN repository_blob l ON l.repository_id = r.id
        JOIN blob b ON b.digest = l.digest
        WHERE r.name = $1 AND l.digest = $2 AND b.state = 'live'
    """,
    b"placement": b"SELECT " + _BLOB_COLUMNS + b" FROM blob b WHERE b.digest = $1",
    b"upload": b"""
        SELECT u.id, u."offset", u.algorithm, u.hash_state, u.store_state, u.created_at,
               u.expires_at, u.reserved
        FROM upload u JOIN repository r ON r.id = u.repository_id
        WHERE u.id = $1 AND r.name = $2 AND u.subject = $3 AND u.expires_at > $4::bigint
    """,
    b"account": b"""
        SELECT name, password_hash, role, disabled, created_at, kind,
               (SELECT version FROM access_version WHERE id = 1)
        FROM account WHERE name = $1
    """,
    b"version": b"SELECT version FROM access_version WHERE id = 1",
}

# Two, so that a manifest of 4 MiB does not hold up everybody else.
_CONNECTIONS = 2
_GROW_S = 5.0

# Of manifest bytes remembered, and of tags whose digest was seen.
_REMEMBERED_BYTES = 8 << 20
_REMEMBERED_LARGEST = 256 << 10
_REMEMBERED_TAGS = 4096


class PostgresHotReads:
    """For one event loop; it may be closed from any thread."""

    def __init__(
        self,
        location: Location,
        *,
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._location = location
        self._clock = clock
        self._patience_s = patience_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pipelines: list[Pipeline] = []
        self._opener = ThreadPoolExecutor(1, "metadata-connect")
        self._connections: list[psycopg.Connection[Any]] = []
        self._opening: asyncio.Task[Pipeline] | None = None
        self._closed = False
        self._grow_after = 0.0
        self._bytes = _ManifestBytes()
        self._seen: OrderedDict[tuple[str, str], str] = OrderedDict()

    async def repository(self, access: Access) -> Repository | None:
        row = await self._ask(b"repository", access.name.text)
        return None if row is None else Repository(_int(row[0]), access.name, _int(row[1]))

    async def manifest_by_tag(self, access: Access, tag: Tag) -> ManifestRecord | None:
        access.require(PULL)
        place = access.name.text, tag.text
        likely = self._seen.get(place, "")
        found = await self._manifest(b"by_tag", access, tag.text, likely)
        if found is None:
            self._seen.pop(place, None)
        elif (digest := str(found.digest)) != likely:
            self._seen[place] = digest
            if len(self._seen) > _REMEMBERED_TAGS:
                self._seen.popitem(last=False)
        return found

    async def manifest_by_digest(self, access: Access, digest: Digest) -> ManifestRecord | None:
        access.require(PULL)
        return await self._manifest(b"by_digest", access, str(digest), str(digest))

    async def _manifest(
        self, statement: bytes, access: Access, reference: str, likely: str
    ) -> ManifestRecord | None:
        remembered = self._bytes.get(likely)
        known = likely if remembered is not None else ""
        row = await self._ask(statement, access.name.text, reference, known)
        if row is None:
            return None
        digest, media_type, raw, subject, pushed_at = row
        assert digest is not None and media_type is not None
        if raw is None:
            assert remembered is not None
            raw = remembered
        else:
            self._bytes.add(digest.decode(), raw)
        return ManifestRecord(
            digest_of(digest.decode()),
            media_type.decode(),
            raw,
            optional_digest(None if subject is None else subject.decode()),
            _int(pushed_at),
        )

    async def blob(self, access: Access, digest: Digest) -> BlobRecord | None:
        access.require(PULL)
        row = await self._ask(b"blob", access.name.text, str(digest))
        return None if row is None else _blob(digest, row)

    async def placement(self, access: Access, digest: Digest) -> Placement:
        access.require(PUSH)
        row = await self._ask(b"placement", str(digest))
        return placement_of(digest, None if row is None else _blob(digest, row))

    async def upload(self, access: Access, upload: str) -> UploadRecord | None:
        access.require(PUSH)
        if not is_upload_id(upload):
            return None
        now = str(int(self._clock()))
        row = await self._ask(b"upload", upload, access.name.text, access.subject, now)
        if row is None:
            return None
        id, offset, algorithm, hash_state, store_state, created_at, expires_at, reserved = row
        return UploadRecord(
            _text(id),
            _int(offset),
            _text(algorithm),
            hash_state or b"",
            _text(store_state),
            _int(created_at),
            _int(expires_at),
            None if reserved is None else _int(reserved),
        )

    async def account(self, name: str) -> Account | None:
        if "\0" in name:
            return None
        row = await self._ask(b"account", name)
        if row is None:
            return None
        name_, password_hash, role, disabled, created_at, kind, version = row
        return Account(
            _text(name_),
            _text(password_hash),
            _text(role),
            disabled == b"\x01",
            _int(created_at),
            _text(kind),
            _int(version),
        )

    async def policy_version(self) -> int:
        row = await self._ask(b"version")
        return 0 if row is None else _int(row[0])

    async def _ask(self, statement: bytes, *values: str) -> Row | None:
        """Raises: DatabaseUnreachable after some seconds of trying; DatabaseBusy; DatabaseFailed.

        A character that UTF-8 does not have is in no name of ours, so its answer is no row.
        """
        try:
            encoded = [value.encode() for value in values]
        except UnicodeEncodeError:
            return None
        until = time.monotonic() + self._patience_s
        pause = 0.0
        while True:
            try:
                # Shielded: who goes away must not take it from the others.
                pipeline = self._best()
                if pipeline is None:
                    pipeline = await asyncio.shield(self._open())
                return await pipeline.ask(statement, encoded)
            except (ConnectionLost, psycopg.Error) as error:
                if time.monotonic() + pause > until:
                    reason = self._location.hide(str(error))[:300]
                    raise DatabaseUnreachable(str(self._location), reason) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause + 0.02, 0.5)

    def _best(self) -> Pipeline | None:
        """The connection with the fewest questions; None if there is no connection yet."""
        if self._loop is not asyncio.get_running_loop():
            return None
        best = None
        for pipeline in self._pipelines:
            if pipeline.is_open and (best is None or pipeline.waiting < best.waiting):
                best = pipeline
        if best is not None and best.waiting and len(self._pipelines) < _CONNECTIONS:
            self._grow()
        return best

    def _grow(self) -> None:
        """Try to have one more connection soon. The server may not give us any."""
        if time.monotonic() >= self._grow_after:
            self._grow_after = time.monotonic() + _GROW_S
            self._open().add_done_callback(lambda task: task.cancelled() or task.exception())

    def _open(self) -> asyncio.Task[Pipeline]:
        """One more connection, made in a thread; who asks meanwhile gets the same one."""
        if self._closed:
            raise RuntimeError("the metadata is closed")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._drop()
            self._loop, self._opening = loop, None
        if self._opening is None or self._opening.done():
            self._opening = loop.create_task(self._connect())
        return self._opening

    async def _connect(self) -> Pipeline:
        loop = asyncio.get_running_loop()
        pipeline = Pipeline(await loop.run_in_executor(self._opener, self._connect_here))
        self._pipelines = [*(each for each in self._pipelines if each.is_open), pipeline]
        return pipeline

    def _connect_here(self) -> psycopg.Connection[Any]:
        if self._closed:
            raise ConnectionLost("closed")
        connection = connect(self._location, STATEMENTS)
        # Noted here: the task that waits for it may not live to see it.
        self._connections = [*(each for each in self._connections if not each.closed), connection]
        return connection

    def close(self) -> None:
        """From any thread; waits for a connection that is being made."""
        self._closed = True
        self._opener.shutdown(cancel_futures=True)
        loop = self._loop
        if loop is None or not loop.is_running() or loop is _running_loop():
            self._drop()
            return
        dropped = threading.Event()

        def drop() -> None:
            self._drop()
            dropped.set()

        loop.call_soon_threadsafe(drop)
        dropped.wait(5)

    def _drop(self) -> None:
        for pipeline in self._pipelines:
            pipeline.close()
        self._pipelines.clear()
        for connection in self._connections:
            connection.close()
        self._connections.clear()


class _ManifestBytes:
    """The least recently used go first."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, digest: str) -> bytes | None:
        raw = self._held.get(digest)
        if raw is not None:
            self._held.move_to_end(digest)
        return raw

    def add(self, digest: str, raw: bytes) -> None:
        if len(raw) > _REMEMBERED_LARGEST or digest in self._held:
            return
        self._held[digest] = raw
        self._size += len(raw)
        while self._size > _REMEMBERED_BYTES:
            _, gone = self._held.popitem(last=False)
            self._size -= len(gone)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _int(column: bytes | None) -> int:
    assert column is not None
    return int.from_bytes(column, "big", signed=True)


def _text(column: bytes | None) -> str:
    assert column is not None
    return column.decode()


def _blob(digest: Digest, row: tuple[Any, ...]) -> BlobRecord:
    size, state, generation, store_key, unreferenced_since, lease_until = row
    return BlobRecord(
        digest,
        _int(size),
        state.decode(),
        _int(generation),
        store_key.decode(),
        None if unreferenced_since is None else _int(unreferenced_since),
        _int(lease_until),
    )
