"""Uploads in progress, so that any process can continue what another began."""

from __future__ import annotations

import os
import uuid
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, delete, insert, select, update

from ocispec.digest import Digest
from registry.errors import RangeMismatch, UploadContended, UploadUnknown
from registry.metadata.base import PUSH, Access, BlobRecord, ExpiredUpload, UploadRecord
from registry.metadata.blobs import add_blob
from registry.metadata.repositories import ensure_repository
from registry.metadata.tables import repository, upload
from registry.metadata.transaction import Operations, Transaction, is_upload_id, writes

_COLUMNS = (
    upload.c.id,
    upload.c.offset,
    upload.c.algorithm,
    upload.c.hash_state,
    upload.c.store_state,
    upload.c.created_at,
    upload.c.expires_at,
)


class SqlUploads(Operations):
    """Implements `registry.metadata.base.Uploads`."""

    @writes
    def begin(
        self,
        tx: Transaction,
        access: Access,
        *,
        algorithm: str = "sha256",
        store_state: str = "",
        upload: str = "",
    ) -> UploadRecord:
        access.require(PUSH)
        record = UploadRecord(
            id=upload or new_upload_id(),
            offset=0,
            algorithm=algorithm,
            hash_state=b"",
            store_state=store_state,
            created_at=tx.now,
            expires_at=tx.now + tx.terms.upload_expiry_s,
        )
        _insert(tx, ensure_repository(tx, access), access.subject, record)
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
        _update(tx, upload, changed)
        return UploadRecord(**{**current, **changed})

    @writes
    def swap_state(
        self, tx: Transaction, access: Access, upload: str, *, old: str, new: str
    ) -> None:
        access.require(PUSH)
        if _lock(tx, access, upload)["store_state"] != old:
            raise UploadContended(upload)
        _update(tx, upload, {"store_state": new})

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
        _lock(tx, access, upload)
        record = add_blob(tx, access, digest, size, store_key=store_key, generation=generation)
        _delete(tx, [upload])
        return record

    @writes
    def cancel(self, tx: Transaction, access: Access, upload: str) -> UploadRecord:
        access.require(PUSH)
        current = _lock(tx, access, upload)
        _delete(tx, [upload])
        return UploadRecord(**current)

    @writes
    def reap(self, tx: Transaction, *, limit: int = 100) -> tuple[ExpiredUpload, ...]:
        query = (
            select(upload.c.id, upload.c.store_state)
            .where(upload.c.expires_at <= tx.now)
            .order_by(upload.c.expires_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        expired = tuple(ExpiredUpload(*row) for row in tx.connection.execute(query))
        _delete(tx, [each.id for each in expired])
        return expired


def new_upload_id() -> str:
    """128 random bits: nobody guesses the id of somebody else's upload."""
    return str(uuid.UUID(bytes=os.urandom(16)))


def _lock(tx: Transaction, access: Access, id: str) -> RowMapping:
    """The row if it is this subject's, in this repository, and has not expired."""
    if not is_upload_id(id):
        raise UploadUnknown(id)
    query = (
        select(*_COLUMNS)
        .join(repository, repository.c.id == upload.c.repository_id)
        .where(_belongs(access, id, tx.now))
        .with_for_update(of=upload)
    )
    row = tx.connection.execute(query).mappings().first()
    if row is None:
        raise UploadUnknown(id)
    return row


def _belongs(access: Access, id: str, now: int) -> ColumnElement[bool]:
    return and_(
        upload.c.id == id,
        upload.c.subject == access.subject,
        upload.c.expires_at > now,
        repository.c.name == access.name.text,
    )


def _insert(tx: Transaction, repository_id: int, subject: str, record: UploadRecord) -> None:
    tx.connection.execute(
        insert(upload).values(
            id=record.id,
            repository_id=repository_id,
            subject=subject,
            offset=record.offset,
            algorithm=record.algorithm,
            hash_state=record.hash_state,
            store_state=record.store_state,
            created_at=record.created_at,
            expires_at=record.expires_at,
        )
    )


def _update(tx: Transaction, id: str, changed: dict[str, Any]) -> None:
    tx.connection.execute(update(upload).where(upload.c.id == id).values(**changed))


def _delete(tx: Transaction, ids: list[str]) -> None:
    if ids:
        tx.connection.execute(delete(upload).where(upload.c.id.in_(ids)))
