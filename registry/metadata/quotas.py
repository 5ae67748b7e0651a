"""Quotas: limits of bytes and tags for namespaces, and what is used of them.

A namespace is the first components of names: `team` is `team` and everything below `team/`. Of
several that a repository is in, the longest counts, and only that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    RowMapping,
    Select,
    and_,
    cast,
    delete,
    func,
    or_,
    select,
    text,
    update,
)

from ocispec.distribution.name import RepositoryName
from registry.errors import QuotaUnknown
from registry.metadata.base import PUSH, Access
from registry.metadata.charges import check
from registry.metadata.repositories import quota_for
from registry.metadata.tables import blob, manifest, repository, repository_blob, tag, upload
from registry.metadata.tables_quotas import quota
from registry.metadata.transaction import Operations, Transaction, lock_table, reads, writes


@dataclass(frozen=True, slots=True)
class Quota:
    """One namespace; bytes in bytes. A limit that is None is none."""

    namespace: str
    bytes_limit: int | None
    tags_limit: int | None
    bytes_used: int
    #: By uploads that have begun.
    bytes_reserved: int
    tags_used: int
    #: Repositories that count for it.
    repositories: int


class SqlQuotas(Operations):
    """Setting a quota takes two transactions: from the first on everything is counted, and the
    second counts what was there before. Between them, and after a crash there, too little is
    counted, never too much; `recount` puts that right."""

    @reads
    def all(self, tx: Transaction) -> tuple[Quota, ...]:
        rows = tx.connection.execute(_shown().order_by(quota.c.namespace)).mappings()
        return tuple(map(_quota, rows))

    @reads
    def find(self, tx: Transaction, namespace: str) -> Quota:
        """Raises: QuotaUnknown."""
        return _find(tx, namespace)

    async def set(
        self, namespace: RepositoryName, *, bytes_limit: int | None, tags_limit: int | None
    ) -> Quota:
        """Limit a namespace, or change its limits. What is beyond them stays, and nothing more
        comes."""
        if await self._assign(namespace, bytes_limit, tags_limit):
            return await self.recount(namespace.text)
        return await self.find(namespace.text)

    @writes
    def _assign(
        self,
        tx: Transaction,
        namespace: RepositoryName,
        bytes_limit: int | None,
        tags_limit: int | None,
    ) -> bool:
        """Whether repositories count for it now that did not."""
        limits = {"bytes_limit": bytes_limit, "tags_limit": tags_limit}
        done = tx.connection.execute(
            update(quota).where(quota.c.namespace == namespace.text).values(**limits)
        )
        if done.rowcount:
            return False
        _lock_repositories(tx)
        lock_table(tx, quota)
        none = {"bytes_used": 0, "bytes_reserved": 0, "tags_used": 0, "created_at": tx.now}
        id = tx.connection.execute(
            quota.insert().values(namespace=namespace.text, **limits, **none).returning(quota.c.id)
        ).scalar_one()
        inside = _inside(namespace.text)
        for name, old in tx.connection.execute(
            select(repository.c.name, quota.c.namespace)
            .outerjoin(quota, quota.c.id == repository.c.quota_id)
            .where(inside)
        ).all():
            if old is None or len(old) < len(namespace.text):
                _move(tx, repository.c.name == name, id)
        return True

    @writes
    def remove(self, tx: Transaction, namespace: str) -> None:
        """Let a namespace grow; a shorter one that holds it counts its repositories from now on.

        Raises: QuotaUnknown.
        """
        _lock_repositories(tx)
        _lock_content(tx)
        found = tx.connection.execute(select(quota.c.id).where(quota.c.namespace == namespace))
        id = found.scalar()
        if id is None:
            raise QuotaUnknown(namespace)
        tx.connection.execute(delete(quota).where(quota.c.id == id))
        # Every other namespace above the repositories is above this one, too.
        above = quota_for(tx, namespace)
        _move(tx, repository.c.quota_id == id, above)
        if above is not None:
            _recount(tx, above)

    @writes
    def recount(self, tx: Transaction, namespace: str) -> Quota:
        """Count anew what a namespace, and those that it was taken from, hold.

        Raises: QuotaUnknown.
        """
        _lock_content(tx)
        for id, name in tx.connection.execute(select(quota.c.id, quota.c.namespace)).all():
            if name == namespace or namespace.startswith(f"{name}/"):
                _recount(tx, id)
        return _find(tx, namespace)

    @reads
    def check(self, tx: Transaction, access: Access, size: int) -> None:
        """Raises: QuotaExceeded if so many bytes more are not possible now."""
        access.require(PUSH)
        id = quota_for(tx, access.name.text)
        if id is not None:
            check(tx, id, bytes=size)


def _lock_repositories(tx: Transaction) -> None:
    """Wait for all who may have read that a repository has no quota."""
    if tx.connection.dialect.name == "postgresql":
        tx.connection.execute(text("LOCK TABLE repository IN ACCESS EXCLUSIVE MODE"))


def _lock_content(tx: Transaction) -> None:
    """Wait for all who change what repositories hold; nobody who reads has to."""
    for table in (repository_blob, manifest, tag, upload, quota):
        lock_table(tx, table)


def _inside(namespace: str) -> ColumnElement[bool]:
    """Names in the namespace; `0` is the character behind the slash."""
    name = repository.c.name
    return or_(name == namespace, and_(name > f"{namespace}/", name < f"{namespace}0"))


def _move(tx: Transaction, which: ColumnElement[bool], quota_id: int | None) -> None:
    """Let repositories count for another quota; uploads there reserve something, or do not."""
    ids = select(repository.c.id).where(which)
    reserved = 0 if quota_id is not None else None
    others = upload.c.reserved.is_(None) if quota_id is not None else upload.c.reserved.is_not(None)
    tx.connection.execute(
        update(upload).where(upload.c.repository_id.in_(ids), others).values(reserved=reserved)
    )
    tx.connection.execute(update(repository).where(which).values(quota_id=quota_id))


def _recount(tx: Transaction, id: int) -> None:
    mine = select(repository.c.id).where(repository.c.quota_id == id)
    asked = (
        select(func.sum(blob.c.size))
        .join(repository_blob, repository_blob.c.digest == blob.c.digest)
        .where(repository_blob.c.repository_id.in_(mine)),
        select(func.sum(manifest.c.size)).where(manifest.c.repository_id.in_(mine)),
        select(func.sum(upload.c.reserved)).where(upload.c.repository_id.in_(mine)),
        select(func.count()).select_from(tag).where(tag.c.repository_id.in_(mine)),
    )
    blobs, manifests, reserved, tags = (
        int(tx.connection.execute(query).scalar() or 0) for query in asked
    )
    tx.connection.execute(
        update(quota)
        .where(quota.c.id == id)
        .values(bytes_used=blobs + manifests, bytes_reserved=reserved, tags_used=tags)
    )


def _shown() -> Select[Any]:
    count = (
        select(cast(func.count(), BigInteger))
        .where(repository.c.quota_id == quota.c.id)
        .correlate(quota)
        .scalar_subquery()
        .label("repositories")
    )
    return select(
        quota.c.namespace,
        quota.c.bytes_limit,
        quota.c.tags_limit,
        quota.c.bytes_used,
        quota.c.bytes_reserved,
        quota.c.tags_used,
        count,
    )


def _find(tx: Transaction, namespace: str) -> Quota:
    row = tx.connection.execute(_shown().where(quota.c.namespace == namespace)).mappings().first()
    if row is None:
        raise QuotaUnknown(namespace)
    return _quota(row)


def _quota(row: RowMapping) -> Quota:
    return Quota(**row)
