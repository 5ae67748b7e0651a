"""Blobs and memberships. Existence for a caller is a membership row of a live blob row."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import RowMapping, bindparam, delete, exists, select, update

from ocispec.digest import Digest
from registry.errors import BlobReferenced, BlobUnknown, StaleGeneration
from registry.metadata import events
from registry.metadata.base import DELETE, LIVE, PULL, PUSH, Access, BlobRecord
from registry.metadata.charges import charge
from registry.metadata.collection import lock_blobs, release_blobs, review_blobs
from registry.metadata.repositories import ensure_repository, find_repository
from registry.metadata.tables import (
    blob,
    doomed_object,
    manifest_blob,
    repository,
    repository_blob,
)
from registry.metadata.transaction import (
    Operations,
    Transaction,
    Upserting,
    bound,
    digest_of,
    reads,
    writes,
)

_COLUMNS = (
    blob.c.digest,
    blob.c.size,
    blob.c.state,
    blob.c.generation,
    blob.c.store_key,
    blob.c.unreferenced_since,
    blob.c.lease_until,
)

# Holders of a blob that an anonymous mount looks at. Base layers are held by very many.
_MAX_SOURCES = 1000

_digest = bindparam("key", type_=blob.c.digest.type)

_ADD = Upserting(
    blob,
    lambda insert: insert.values(
        **bound(
            blob, "digest", "size", "generation", "store_key",
            "created_at", "unreferenced_since", "lease_until",
        ),
        state=LIVE,
    )
    .on_conflict_do_nothing()
    .returning(*_COLUMNS),
)  # fmt: skip

_LOCK = select(*_COLUMNS).where(blob.c.digest == _digest).with_for_update()

_REVIVE = (
    update(blob)
    .where(blob.c.digest == _digest)
    .values(
        **bound(blob, "size", "store_key", "created_at", "unreferenced_since"),
        state=LIVE,
        verified_at=None,
    )
)

_LEASE = update(blob).where(blob.c.digest == _digest).values(**bound(blob, "lease_until"))

_LINK = Upserting(
    repository_blob,
    lambda insert: (
        insert.values(**bound(repository_blob, "repository_id", "digest", "linked_at"))
        .on_conflict_do_nothing()
        .returning(repository_blob.c.repository_id)
    ),
)


class SqlBlobs(Operations):
    """Implements `registry.metadata.base.Blobs`."""

    @writes
    def add(
        self,
        tx: Transaction,
        access: Access,
        digest: Digest,
        size: int,
        *,
        store_key: str,
        generation: int,
    ) -> BlobRecord:
        access.require(PUSH)
        return add_blob(tx, access, digest, size, store_key=store_key, generation=generation)

    @writes
    def mount(
        self, tx: Transaction, access: Access, digest: Digest, source: Access
    ) -> BlobRecord | None:
        access.require(PUSH)
        source.require(PULL)
        source_id = find_repository(tx, source)
        if source_id is None:
            return None
        query = (
            select(*_COLUMNS)
            .join(repository_blob, repository_blob.c.digest == blob.c.digest)
            .where(
                repository_blob.c.repository_id == source_id,
                blob.c.digest == str(digest),
                blob.c.state == LIVE,
            )
            .with_for_update(of=blob)
        )
        return _link(tx, access, tx.connection.execute(query).mappings().first())

    @writes
    def mount_from_any(
        self, tx: Transaction, access: Access, digest: Digest, may_read: Callable[[str], bool]
    ) -> BlobRecord | None:
        access.require(PUSH)
        holders = (
            select(repository.c.name)
            .join(repository_blob, repository_blob.c.repository_id == repository.c.id)
            .where(repository_blob.c.digest == str(digest))
            .limit(_MAX_SOURCES)
        )
        if not any(map(may_read, tx.connection.execute(holders).scalars())):
            return None
        query = (
            select(*_COLUMNS)
            .where(blob.c.digest == str(digest), blob.c.state == LIVE)
            .with_for_update()
        )
        return _link(tx, access, tx.connection.execute(query).mappings().first())

    @writes
    def extend_lease(self, tx: Transaction, access: Access, digest: Digest) -> bool:
        access.require(PULL)
        # On PostgreSQL a row that the collector has locked is waited for, and looked at again.
        held = (
            exists()
            .where(repository_blob.c.digest == blob.c.digest)
            .where(repository_blob.c.repository_id == repository.c.id)
            .where(repository.c.name == access.name.text)
        )
        its = select(blob.c.digest).where(blob.c.digest == str(digest), blob.c.state == LIVE, held)
        if tx.connection.execute(its.with_for_update(of=blob)).first() is None:
            return False
        tx.connection.execute(
            update(blob)
            .where(
                blob.c.digest == str(digest),
                blob.c.state == LIVE,
                blob.c.unreferenced_since.is_not(None),
                blob.c.lease_until < tx.now + tx.terms.lease_s,
            )
            .values(lease_until=tx.now + tx.terms.lease_s)
        )
        return True

    @writes
    def relocate(
        self, tx: Transaction, access: Access, digest: Digest, *, old: str, new: str
    ) -> None:
        access.require(PUSH)
        lock_blobs(tx, [str(digest)])
        # A key that is to be swept is never a live one again.
        doomed = exists().where(doomed_object.c.store_key == new)
        tx.connection.execute(
            update(blob)
            .where(
                blob.c.digest == str(digest),
                blob.c.state == LIVE,
                blob.c.store_key == old,
                ~doomed,
            )
            .values(store_key=new)
        )

    @writes
    def remove(self, tx: Transaction, access: Access, digest: Digest) -> None:
        access.require(DELETE)
        repository_id = find_repository(tx, access)
        if repository_id is None:
            raise BlobUnknown(access.name, digest)
        lock_blobs(tx, [str(digest)])
        used = select(1).where(
            manifest_blob.c.repository_id == repository_id, manifest_blob.c.digest == str(digest)
        )
        if tx.connection.execute(used.limit(1)).first():
            raise BlobReferenced(access.name, digest)
        removed = tx.connection.execute(
            delete(repository_blob).where(
                repository_blob.c.repository_id == repository_id,
                repository_blob.c.digest == str(digest),
            )
        )
        if not removed.rowcount:
            raise BlobUnknown(access.name, digest)
        charge(tx, repository_id, bytes=-_size(tx, digest))
        release_blobs(tx, [str(digest)], event="blob removed")
        events.record(tx, events.BLOB_REMOVED, access, digest=str(digest))

    @reads
    def find(self, tx: Transaction, digest: Digest) -> BlobRecord | None:
        """The blob's row in whatever state, for the collector and for inspection."""
        query = select(*_COLUMNS).where(blob.c.digest == str(digest))
        row = tx.connection.execute(query).mappings().first()
        return None if row is None else _record(row)


def add_blob(
    tx: Transaction,
    access: Access,
    digest: Digest,
    size: int,
    *,
    store_key: str,
    generation: int,
    repository_id: int | None = None,
) -> BlobRecord:
    """What `Blobs.add` says, inside a transaction; with the repository's id if it is known."""
    key = str(digest)
    values = {
        "size": size,
        "store_key": store_key,
        "created_at": tx.now,
        "unreferenced_since": tx.now,
    }
    added = {
        **values,
        "digest": key,
        "generation": generation,
        "lease_until": tx.now + tx.terms.lease_s,
    }
    row = tx.connection.execute(_ADD(tx), added).mappings().first()
    if row is None:
        row = tx.connection.execute(_LOCK, {"key": key}).mappings().one()
    if row["state"] != LIVE:
        # The bytes of an older generation may be swept at any moment; only new ones count.
        if generation != row["generation"]:
            raise StaleGeneration(digest, generation=row["generation"])
        tx.connection.execute(_REVIVE, {**values, "key": key})
        row = tx.connection.execute(_LOCK, {"key": key}).mappings().one()
    record = _link(tx, access, row, repository_id)
    assert record is not None
    return record


def _link(
    tx: Transaction, access: Access, row: RowMapping | None, repository_id: int | None = None
) -> BlobRecord | None:
    """Make the repository a holder of a live blob whose row is locked, and lease it."""
    if row is None:
        return None
    if repository_id is None:
        repository_id = ensure_repository(tx, access)
    digest = row["digest"]
    added = tx.connection.execute(
        _LINK(tx), {"repository_id": repository_id, "digest": digest, "linked_at": tx.now}
    )
    if added.first() is not None:
        charge(tx, repository_id, bytes=row["size"])
    lease_until = max(row["lease_until"], tx.now + tx.terms.lease_s)
    if lease_until > row["lease_until"]:
        tx.connection.execute(_LEASE, {"key": digest, "lease_until": lease_until})
    if row["unreferenced_since"] is not None:
        review_blobs(tx, [digest], due_at=lease_until, event="blob added")
    return _record(row, lease_until=lease_until)


def link_again(tx: Transaction, access: Access, repository_id: int, digest: str) -> None:
    """Make a repository a holder of a blob once more, if its bytes are still there."""
    row = tx.connection.execute(_LOCK, {"key": digest}).mappings().first()
    if row is not None and row["state"] == LIVE:
        _link(tx, access, row, repository_id)


def _size(tx: Transaction, digest: Digest) -> int:
    query = select(blob.c.size).where(blob.c.digest == str(digest))
    return int(tx.connection.execute(query).scalar_one())


def _record(row: RowMapping, **changes: int) -> BlobRecord:
    return BlobRecord(**{**row, "digest": digest_of(row["digest"]), **changes})
