"""Tags, and the history of each."""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from ocispec.distribution.name import Tag
from registry.errors import ManifestUnknown
from registry.metadata import events
from registry.metadata.base import DELETE, PULL, Access, Page, TagChange
from registry.metadata.collection import review_manifests
from registry.metadata.repositories import find_repository, repository_id
from registry.metadata.tables import manifest, tag, tag_history
from registry.metadata.transaction import (
    Operations,
    Transaction,
    comparable,
    optional_digest,
    reads,
    writes,
)
from registry.metadata.transaction import insert as upsert


class SqlTags(Operations):
    """Implements `registry.metadata.base.Tags`."""

    @reads
    def page(self, tx: Transaction, access: Access, *, n: int, last: str = "") -> Page[Tag]:
        access.require(PULL)
        id = repository_id(tx, access)
        if n <= 0:
            return Page((), False)
        query = (
            select(tag.c.name)
            .where(tag.c.repository_id == id, tag.c.name > comparable(last))
            .order_by(tag.c.name)
            .limit(n + 1)
        )
        names = tx.connection.execute(query).scalars().all()
        return Page(tuple(map(Tag, names[:n])), len(names) > n)

    @writes
    def remove(self, tx: Transaction, access: Access, name: Tag) -> None:
        access.require(DELETE)
        id = repository_id(tx, access)
        query = (
            select(manifest.c.digest)
            .join(tag, tag.c.manifest_id == manifest.c.id)
            .where(tag.c.repository_id == id, tag.c.name == name.text)
        )
        digest = tx.connection.execute(query).scalar()
        if digest is None:
            raise ManifestUnknown(access.name, name)
        drop_tags(tx, access, id, [name.text], digest)
        review_manifests(tx, id, [digest], event="tag removed")

    @reads
    def history(
        self, tx: Transaction, access: Access, name: Tag, *, n: int = 100
    ) -> tuple[TagChange, ...]:
        access.require(PULL)
        id = find_repository(tx, access)
        query = (
            select(tag_history)
            .where(tag_history.c.repository_id == id, tag_history.c.name == name.text)
            .order_by(tag_history.c.id.desc())
            .limit(n)
        )
        return tuple(
            TagChange(
                name=name,
                old=optional_digest(row.old_digest),
                new=optional_digest(row.new_digest),
                actor=row.actor,
                at=row.at,
            )
            for row in tx.connection.execute(query)
        )


def point_tags(
    tx: Transaction, access: Access, repository_id: int, names: list[str], manifest_id: int
) -> None:
    """Create tags or move them to a manifest. One that points there already stays untouched."""
    query = select(manifest.c.digest).where(manifest.c.id == manifest_id)
    digest: str = tx.connection.execute(query).scalar_one()
    for name in names:
        current = tx.connection.execute(
            select(manifest.c.digest)
            .join(tag, tag.c.manifest_id == manifest.c.id)
            .where(tag.c.repository_id == repository_id, tag.c.name == name)
            .with_for_update(of=tag)
        ).scalar()
        if current == digest:
            continue
        moved = {"manifest_id": manifest_id, "updated_at": tx.now}
        tx.connection.execute(
            upsert(tx, tag)
            .values(repository_id=repository_id, name=name, **moved)
            .on_conflict_do_update(index_elements=[tag.c.repository_id, tag.c.name], set_=moved)
        )
        if current is not None:
            review_manifests(tx, repository_id, [current], event="tag moved")
        _remember(tx, access, repository_id, name, old=current, new=digest)
        events.record(tx, events.TAG_MOVED, access, digest=digest, tag=name)


def drop_tags(
    tx: Transaction, access: Access, repository_id: int, names: list[str], digest: str
) -> None:
    """Remove tags that all point at `digest`."""
    for name in names:
        tx.connection.execute(
            delete(tag).where(tag.c.repository_id == repository_id, tag.c.name == name)
        )
        _remember(tx, access, repository_id, name, old=digest, new=None)
        events.record(tx, events.TAG_REMOVED, access, digest=digest, tag=name)


def _remember(
    tx: Transaction,
    access: Access,
    repository_id: int,
    name: str,
    *,
    old: str | None,
    new: str | None,
) -> None:
    tx.connection.execute(
        insert(tag_history).values(
            repository_id=repository_id,
            name=name,
            old_digest=old,
            new_digest=new,
            actor=access.subject,
            at=tx.now,
        )
    )
