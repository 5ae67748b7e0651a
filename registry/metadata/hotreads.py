"""`ImmediateReads` on SQLite: the standard sqlite3 module on one held connection.

A prepared statement on a held connection takes microseconds, less than any hop to a thread, so the
event loop asks it directly. In WAL mode readers wait for nobody. Each statement is a transaction of
its own and therefore sees everything committed before it; nothing is remembered between two calls.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.metadata.base import (
    PULL,
    PUSH,
    Access,
    Account,
    BlobRecord,
    ImmediateReads,
    ManifestRecord,
    Placement,
    Repository,
    UploadRecord,
)
from registry.metadata.transaction import digest_of, is_upload_id, optional_digest

_REPOSITORY = "SELECT id, created_at FROM repository WHERE name = ?"

_MANIFEST = """
    SELECT m.digest, m.media_type, m.raw, m.subject_digest, m.pushed_at
    FROM repository r {join} WHERE r.name = ? AND {match} = ?
"""
_MANIFEST_BY_TAG = _MANIFEST.format(
    join="JOIN tag t ON t.repository_id = r.id JOIN manifest m ON m.id = t.manifest_id",
    match="t.name",
)
_MANIFEST_BY_DIGEST = _MANIFEST.format(
    join="JOIN manifest m ON m.repository_id = r.id", match="m.digest"
)

_BLOB_COLUMNS = "b.size, b.state, b.generation, b.store_key, b.unreferenced_since, b.lease_until"
_BLOB = f"""
    SELECT {_BLOB_COLUMNS}
    FROM repository r
    JOIN repository_blob l ON l.repository_id = r.id
    JOIN blob b ON b.digest = l.digest
    WHERE r.name = ? AND l.digest = ? AND b.state = 'live'
"""
_PLACEMENT = f"SELECT {_BLOB_COLUMNS} FROM blob b WHERE b.digest = ?"

_UPLOAD = """
    SELECT u.id, u."offset", u.algorithm, u.hash_state, u.store_state, u.created_at, u.expires_at,
           u.reserved
    FROM upload u JOIN repository r ON r.id = u.repository_id
    WHERE u.id = ? AND r.name = ? AND u.subject = ? AND u.expires_at > ?
"""

_VERSION = "SELECT version FROM access_version WHERE id = 1"
_ACCOUNT = f"""
    SELECT name, password_hash, role, disabled, created_at, kind, ({_VERSION})
    FROM account WHERE name = ?
"""

# Readers wait only while another process repairs the file after a crash.
_BUSY_S = 1.0


class SqliteHotReads:
    """Not for two threads at once. The file must exist and have the current schema."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        self._connection.execute("PRAGMA query_only = ON")
        self._execute = self._connection.cursor().execute

    def repository(self, access: Access) -> Repository | None:
        row = self._execute(_REPOSITORY, (access.name.text,)).fetchone()
        return None if row is None else Repository(row[0], access.name, row[1])

    def manifest_by_tag(self, access: Access, tag: Tag) -> ManifestRecord | None:
        return self._manifest(_MANIFEST_BY_TAG, access, tag.text)

    def manifest_by_digest(self, access: Access, digest: Digest) -> ManifestRecord | None:
        return self._manifest(_MANIFEST_BY_DIGEST, access, str(digest))

    def _manifest(self, query: str, access: Access, reference: str) -> ManifestRecord | None:
        access.require(PULL)
        row = self._execute(query, (access.name.text, reference)).fetchone()
        if row is None:
            return None
        digest, media_type, raw, subject, pushed_at = row
        return ManifestRecord(
            digest_of(digest), media_type, raw, optional_digest(subject), pushed_at
        )

    def blob(self, access: Access, digest: Digest) -> BlobRecord | None:
        access.require(PULL)
        row = self._execute(_BLOB, (access.name.text, str(digest))).fetchone()
        return None if row is None else BlobRecord(digest, *row)

    def placement(self, access: Access, digest: Digest) -> Placement:
        access.require(PUSH)
        row = self._execute(_PLACEMENT, (str(digest),)).fetchone()
        return placement_of(digest, None if row is None else BlobRecord(digest, *row))

    def upload(self, access: Access, upload: str) -> UploadRecord | None:
        access.require(PUSH)
        if not is_upload_id(upload):
            return None
        row = self._execute(
            _UPLOAD, (upload, access.name.text, access.subject, int(self._clock()))
        ).fetchone()
        return None if row is None else UploadRecord(*row)

    def account(self, name: str) -> Account | None:
        row = self._execute(_ACCOUNT, (name,)).fetchone()
        if row is None:
            return None
        name, password_hash, role, disabled, created_at, kind, version = row
        return Account(name, password_hash, role, bool(disabled), created_at, kind, version)

    def policy_version(self) -> int:
        row = self._execute(_VERSION).fetchone()
        return 0 if row is None else int(row[0])

    def close(self) -> None:
        self._connection.close()


class AtOnce:
    """`HotReads` on `ImmediateReads`: coroutines that never wait."""

    def __init__(self, immediate: ImmediateReads) -> None:
        self._immediate = immediate

    async def repository(self, access: Access) -> Repository | None:
        return self._immediate.repository(access)

    async def manifest_by_tag(self, access: Access, tag: Tag) -> ManifestRecord | None:
        return self._immediate.manifest_by_tag(access, tag)

    async def manifest_by_digest(self, access: Access, digest: Digest) -> ManifestRecord | None:
        return self._immediate.manifest_by_digest(access, digest)

    async def blob(self, access: Access, digest: Digest) -> BlobRecord | None:
        return self._immediate.blob(access, digest)

    async def placement(self, access: Access, digest: Digest) -> Placement:
        return self._immediate.placement(access, digest)

    async def upload(self, access: Access, upload: str) -> UploadRecord | None:
        return self._immediate.upload(access, upload)

    async def account(self, name: str) -> Account | None:
        return self._immediate.account(name)

    async def policy_version(self) -> int:
        return self._immediate.policy_version()

    def close(self) -> None:
        self._immediate.close()


def placement_of(digest: Digest, record: BlobRecord | None) -> Placement:
    """Where bytes go, given the blob's row: nowhere new while live, else its next generation."""
    if record is None:
        return Placement(digest, 0, None)
    return Placement(digest, record.generation, record if record.state == "live" else None)
