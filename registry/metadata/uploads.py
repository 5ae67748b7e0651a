"""Uploads in progress, so that any process can continue what another began."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import RowMapping, and_, bindparam, delete, func, insert, select, update

from ocispec.digest import Digest
from registry.errors import RangeMismatch, UploadContended, UploadUnknown
from registry.metadata.base import PUSH, Access, BlobRecord, ExpiredUpload, UploadRecord
from registry.metadata.blobs import add_blob
from registry.metadata.charges import charge, check
from registry.metadata.repositories import ensure_with_quota, repository_id
from registry.metadata.tables import repository, upload
from registry.metadata.transaction import (
    NO_QUOTA,
    Operations,
    Transaction,
    bound,
    is_upload_id,
    reads,
    writes,
    writes_unflushed,
)

_COLUMNS = (
    upload.c.id,
    upload.c.offset,
    upload.c.algorithm,
    upload.c.hash_state,
    upload.c.store_state,
    upload.c.created_at,
    upload.c.expires_at,
    upload.c.reserved,
)

# The row if it is this subject's, in this repository, and has not expired.
_ITS = and_(
    upload.c.id == bindparam("key", type_=upload.c.id.type),
    upload.c.subject == bindparam("holder", type_=upload.c.subject.type),
    upload.c.expires_at > bindparam("now", type_=upload.c.expires_at.type),
    upload.c.repository_id
    == select(repository.c.id).where(repository.c.name == bindparam("name")).scalar_subquery(),
)

_LOCK = select(*_COLUMNS).where(_ITS).with_for_update(of=upload)

_END = delete(upload).where(_ITS).returning(upload.c.repository_id, upload.c.reserved)

_BEGIN = insert(upload).values(
    **bound(
        upload, "id", "repository_id", "subject", "offset", "algorithm", "hash_state",
        "store_state", "created_at", "expires_at", "reserved",
    )
)  # fmt: skip

_ADVANCE = (
    update(upload)
    .where(upload.c.id == bindparam("key", type_=upload.c.id.type))
    .values(**bound(upload, "offset", "hash_state", "store_state", "expires_at"))
)

_SWAP = (
    update(upload)
    .where(upload.c.id == bindparam("key", type_=upload.c.id.type))
    .values(**bound(upload, "store_state"))
)

_RESERVE = (
    update(upload)
    .where(upload.c.id == bindparam("key", type_=upload.c.id.type))
    .values(**bound(upload, "reserved"))
)

_EXPIRED = (
    select(upload.c.id, upload.c.store_state, upload.c.repository_id, upload.c.reserved)
    .where(upload.c.expires_at <= bindparam("now", type_=upload.c.expires_at.type))
    .order_by(upload.c.expires_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)

_COUNT = select(func.count()).select_from(upload)

_REMOVE = delete(upload).where(upload.c.id.in_(bindparam("ids", expanding=True)))


class SqlUploads(Operations):
    """Implements `registry.metadata.base.Uploads`."""

    @writes_unflushed
    def begin(
        self,
        tx: Transaction,
        access: Access,
        *,
        algorithm: str = "sha256",
        store_state: str = "",
        upload: str = "",
        make: Callable[[], None] | None = None,
    ) -> UploadRecord:
        access.require(PUSH)
        repository_id, quota_id = ensure_with_quota(tx, access)
        if quota_id is not None:
            check(tx, quota_id, bytes=1)  # who has no room at all need not begin
        record = UploadRecord(
            id=upload or new_upload_id(),
            offset=0,
            algorithm=algorithm,
            hash_state=b"",
            store_state=store_state,
            created_at=tx.now,
            expires_at=tx.now + tx.terms.upload_expiry_s,
            reserved=None if quota_id is None else 0,
        )
        _insert(tx, repository_id, access.subject, record)
        if make is not None:
            make()
        return record

    @writes
    def advance(
        self,
        tx: Transaction,
        access: Access,
        upload: str,
        *,
        start: int,
        offset: int,
        hash_state: bytes = b"",
        store_state: str | None = None,
        expected_state: str | None = None,
    ) -> UploadRecord:
        access.require(PUSH)
        current = _lock(tx, access, upload)
        if current["offset"] != start:
            raise RangeMismatch(expected=current["offset"], found=start)
        if expected_state is not None and current["store_state"] != expected_state:
            raise UploadContended(upload)
        changed = {
            "offset": offset,
            "hash_state": hash_state,
            "store_state": current["store_state"] if store_state is None else store_state,
            "expires_at": tx.now + tx.terms.upload_expiry_s,
        }
        tx.connection.execute(_ADVANCE, {**changed, "key": upload})
        return UploadRecord(**{**current, **changed})

    @writes
    def reserve(self, tx: Transaction, access: Access, upload: str, size: int) -> None:
        access.require(PUSH)
        reserved = _lock(tx, access, upload)["reserved"]
        if reserved is None or size <= reserved:
            return
        charge(tx, repository_id(tx, access), reserved=size - reserved)
        tx.connection.execute(_RESERVE, {"key": upload, "reserved": size})

    @writes
    def swap_state(
        self, tx: Transaction, access: Access, upload: str, *, old: str, new: str
    ) -> None:
        access.require(PUSH)
        if _lock(tx, access, upload)["store_state"] != old:
            raise UploadContended(upload)
        tx.connection.execute(_SWAP, {"key": upload, "store_state": new})

    @writes
    def finish(
        self,
        tx: Transaction,
        access: Access,
        upload: str,
        digest: Digest,
        size: int,
        *,
        store_key: str,
        generation: int,
    ) -> BlobRecord:
        access.require(PUSH)
        # First: it locks the row, and comes back with everything else if the rest fails.
        repository_id = _end(tx, access, upload)
        return add_blob(
            tx,
            access,
            digest,
            size,
            store_key=store_key,
            generation=generation,
            repository_id=repository_id,
        )

    @writes
    def cancel(self, tx: Transaction, access: Access, upload: str) -> UploadRecord:
        access.require(PUSH)
        current = _lock(tx, access, upload)
        if current["reserved"]:
            charge(tx, repository_id(tx, access), reserved=-current["reserved"])
        _delete(tx, [upload])
        return UploadRecord(**current)

    @writes
    def reap(self, tx: Transaction, *, limit: int = 100) -> tuple[ExpiredUpload, ...]:
        rows = tx.connection.execute(_EXPIRED, {"now": tx.now, "limit": limit}).all()
        expired = tuple(ExpiredUpload(row.id, row.store_state) for row in rows)
        for row in rows:
            if row.reserved:
                charge(tx, row.repository_id, reserved=-row.reserved)
        _delete(tx, [each.id for each in expired])
        return expired

    @reads
    def count(self, tx: Transaction) -> int:
        return int(tx.connection.execute(_COUNT).scalar_one())


def new_upload_id() -> str:
    """128 random bits: nobody guesses the id of somebody else's upload."""
    return str(uuid.UUID(bytes=os.urandom(16)))


def _lock(tx: Transaction, access: Access, id: str) -> RowMapping:
    """The row if it is this subject's, in this repository, and has not expired."""
    row = tx.connection.execute(_LOCK, _key(tx, access, id)).mappings().first()
    if row is None:
        raise UploadUnknown(id)
    return row


def _end(tx: Transaction, access: Access, id: str) -> int:
    """Remove the row that `_lock` would find; the id of its repository."""
    found = tx.connection.execute(_END, _key(tx, access, id)).first()
    if found is None:
        raise UploadUnknown(id)
    if found.reserved is None:
        tx.charges[found.repository_id] = NO_QUOTA
    else:
        charge(tx, found.repository_id, reserved=-found.reserved)
    return int(found.repository_id)


def _key(tx: Transaction, access: Access, id: str) -> dict[str, Any]:
    if not is_upload_id(id):
        raise UploadUnknown(id)
    return {"key": id, "holder": access.subject, "now": tx.now, "name": access.name.text}


def _insert(tx: Transaction, repository_id: int, subject: str, record: UploadRecord) -> None:
    tx.connection.execute(
        _BEGIN,
        {
            "id": record.id,
            "repository_id": repository_id,
            "subject": subject,
            "offset": record.offset,
            "algorithm": record.algorithm,
            "hash_state": record.hash_state,
            "store_state": record.store_state,
            "created_at": record.created_at,
            "expires_at": record.expires_at,
            "reserved": record.reserved,
        },
    )


def _delete(tx: Transaction, ids: list[str]) -> None:
    if ids:
        tx.connection.execute(_REMOVE, {"ids": ids})
