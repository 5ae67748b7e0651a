"""The trash: deleted manifests, whole, until the end of the time that history reaches back.

A manifest goes there in the transaction that removes it, and its blobs' leases are raised to the
end of its time: so the collector keeps the bytes, and nobody else needs to know about the trash. It
comes back through the same door as a push, with the same locks and checks.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import BindParameter, bindparam, delete, exists, insert, or_, select, update

from registry.errors import ManifestUnknown
from registry.metadata.base import PUSH, Access, BlobReference, NewManifest, Page
from registry.metadata.repositories import find_repository
from registry.metadata.tables import blob, manifest, manifest_blob, manifest_child
from registry.metadata.tables_history import change_set, trash
from registry.metadata.transaction import (
    Operations,
    Transaction,
    batches,
    bound,
    digest_of,
    optional_digest,
    reads,
    writes,
)

_digests: BindParameter[str] = bindparam("digests", expanding=True)

_SET = insert(change_set).values(**bound(change_set, "kind", "note", "actor", "at"))

_RAISE = (
    update(blob)
    .where(blob.c.digest.in_(_digests), blob.c.lease_until < bindparam("until"))
    .values(lease_until=bindparam("until"))
)


@dataclass(frozen=True, slots=True)
class Trashed:
    """One deleted manifest. Times are seconds since 1970; it is gone for good at `expires_at`."""

    repository: str
    digest: str
    media_type: str
    size: int
    deleted_by: str
    deleted_at: int
    expires_at: int


class SqlTrash(Operations):
    """Listing and emptying; restoring is `registry.metadata.history`'s."""

    @reads
    def page(
        self, tx: Transaction, access: Access, *, n: int = 100, last: str = ""
    ) -> Page[Trashed]:
        """What of a repository can be restored, by digest."""
        access.require(PUSH)
        rows = tx.connection.execute(
            select(trash)
            .where(
                trash.c.repository_id == find_repository(tx, access),
                trash.c.digest > last,
                trash.c.expires_at > tx.now,
            )
            .order_by(trash.c.digest)
            .limit(n + 1)
        ).all()
        items = tuple(
            Trashed(
                access.name.text,
                row.digest,
                row.media_type,
                len(row.raw),
                row.deleted_by,
                row.deleted_at,
                row.expires_at,
            )
            for row in rows[:n]
        )
        return Page(items, len(rows) > n)

    @writes
    def expire(self, tx: Transaction, *, limit: int = 500) -> int:
        """Forget what is past its time; how many. The collector calls it until it gives less."""
        return expire_trash(tx, limit=limit)


def record_change(tx: Transaction, kind: str, actor: str, note: str = "") -> int:
    """A new change set; its id goes with each change of a tag that belongs to it."""
    values = {"kind": kind, "note": note, "actor": actor, "at": tx.now}
    return int(tx.connection.execute(_SET.returning(change_set.c.id), values).scalar_one())


def bury(
    tx: Transaction,
    access: Access,
    repository_id: int,
    manifest_id: int,
    *,
    change_id: int,
) -> None:
    """Copy a manifest that is about to be removed into the trash and keep its blobs.

    Its row and its blobs' rows are locked by the caller.
    """
    if tx.terms.history_s <= 0:
        return
    row = tx.connection.execute(select(manifest).where(manifest.c.id == manifest_id)).one()
    uses = tx.connection.execute(
        select(manifest_blob.c.digest, manifest_blob.c.role)
        .where(manifest_blob.c.manifest_id == manifest_id)
        .order_by(manifest_blob.c.digest, manifest_blob.c.role)
    ).all()
    children = (
        tx.connection.execute(
            select(manifest_child.c.child_digest)
            .where(
                manifest_child.c.parent_id == manifest_id,
                # A child that was never there is not asked for when this comes back.
                or_(
                    exists()
                    .where(manifest.c.repository_id == repository_id)
                    .where(manifest.c.digest == manifest_child.c.child_digest),
                    exists()
                    .where(trash.c.repository_id == repository_id)
                    .where(trash.c.digest == manifest_child.c.child_digest)
                    .where(trash.c.change_id == change_id),
                ),
            )
            .order_by(manifest_child.c.child_digest)
        )
        .scalars()
        .all()
    )
    everything = (
        tx.connection.execute(
            select(manifest_child.c.child_digest).where(manifest_child.c.parent_id == manifest_id)
        )
        .scalars()
        .all()
    )
    until = tx.now + tx.terms.history_s
    tx.connection.execute(
        delete(trash).where(trash.c.repository_id == repository_id, trash.c.digest == row.digest)
    )
    tx.connection.execute(
        insert(trash).values(
            repository_id=repository_id,
            digest=row.digest,
            media_type=row.media_type,
            subject_digest=row.subject_digest,
            artifact_type=row.artifact_type,
            config_media_type=row.config_media_type,
            annotations=row.annotations,
            uses=json.dumps([[use.digest, use.role] for use in uses]),
            children=json.dumps({"there": list(children), "all": list(everything)}),
            raw=row.raw,
            pushed_by=row.actor,
            pushed_at=row.pushed_at,
            change_id=change_id,
            deleted_by=access.subject,
            deleted_at=tx.now,
            expires_at=until,
        )
    )
    for batch in batches(sorted({use.digest for use in uses})):
        tx.connection.execute(_RAISE, {"digests": batch, "until": until})


def expire_trash(tx: Transaction, *, limit: int = 500) -> int:
    """Forget at most `limit` manifests whose time is over. Their blobs' leases end with them."""
    old = (
        select(trash.c.id)
        .where(trash.c.expires_at <= tx.now)
        .order_by(trash.c.expires_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = tx.connection.execute(old).scalars().all()
    for batch in batches(ids):
        tx.connection.execute(delete(trash).where(trash.c.id.in_(batch)))
    return len(ids)


@dataclass(frozen=True, slots=True)
class Buried:
    """A manifest in the trash as it would be pushed."""

    new: NewManifest
    pushed_by: str
    pushed_at: int
    #: Children that were there when it was deleted.
    children: tuple[str, ...]


def dig_up(tx: Transaction, access: Access, repository_id: int, digest: str) -> Buried:
    """The manifest, its row in the trash being ours until the commit.

    Raises: ManifestUnknown if it is not there, or past its time.
    """
    row = (
        tx.connection.execute(
            select(trash)
            .where(
                trash.c.repository_id == repository_id,
                trash.c.digest == digest,
                trash.c.expires_at > tx.now,
            )
            .with_for_update()
        )
        .mappings()
        .first()
    )
    if row is None:
        raise ManifestUnknown(access.name, digest)
    children = json.loads(row["children"])
    new = NewManifest(
        digest=digest_of(row["digest"]),
        media_type=row["media_type"],
        raw=row["raw"],
        blobs=tuple(BlobReference(digest_of(d), role) for d, role in json.loads(row["uses"])),
        children=tuple(map(digest_of, children["all"])),
        subject=optional_digest(row["subject_digest"]),
        artifact_type=row["artifact_type"],
        config_media_type=row["config_media_type"],
        annotations=json.loads(row["annotations"]),
    )
    return Buried(new, row["pushed_by"], row["pushed_at"], tuple(children["there"]))


def leave(tx: Transaction, repository_id: int, digest: str) -> None:
    """A manifest is back: the trash has it no more."""
    tx.connection.execute(
        delete(trash).where(trash.c.repository_id == repository_id, trash.c.digest == digest)
    )


def holds(tx: Transaction, repository_id: int, digest: str) -> bool:
    found = select(trash.c.id).where(
        trash.c.repository_id == repository_id,
        trash.c.digest == digest,
        trash.c.expires_at > tx.now,
    )
    return tx.connection.execute(found).first() is not None
