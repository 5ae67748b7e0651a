"""Tags, and the history of each."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

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
    Upserting,
    bound,
    comparable,
    optional_digest,
    reads,
    writes,
)

_repository = bindparam("repository", type_=tag.c.repository_id.type)
_name = bindparam("key", type_=tag.c.name.type)

_PAGE = (
    select(tag.c.name)
    .where(tag.c.repository_id == _repository, tag.c.name > bindparam("last"))
    .order_by(tag.c.name)
    .limit(bindparam("limit"))
)

_TARGET = (
    select(manifest.c.digest)
    .join(tag, tag.c.manifest_id == manifest.c.id)
    .where(tag.c.repository_id == _repository, tag.c.name == _name)
)

_LOCK_TARGET = _TARGET.with_for_update(of=tag)

_POINT = Upserting(
    tag,
    lambda insert: insert.values(
        **bound(tag, "repository_id", "name", "manifest_id", "updated_at")
    ).on_conflict_do_update(
        index_elements=[tag.c.repository_id, tag.c.name],
        set_={
            "manifest_id": insert.excluded.manifest_id,
            "updated_at": insert.excluded.updated_at,
        },
    ),
)

_DROP = delete(tag).where(tag.c.repository_id == _repository, tag.c.name == _name)

_REMEMBER = insert(tag_history).values(
    **bound(tag_history, "repository_id", "name", "old_digest", "new_digest", "actor", "at")
)


class SqlTags(Operations):
    """Implements `registry.metadata.base.Tags`."""

    @reads
    def page(self, tx: Transaction, access: Access, *, n: int, last: str = "") -> Page[Tag]:
        access.require(PULL)
        id = repository_id(tx, access)
        if n <= 0:
            return Page((), False)
        wanted = {"repository": id, "last": comparable(last), "limit": n + 1}
        names = tx.connection.execute(_PAGE, wanted).scalars().all()
        return Page(tuple(map(Tag, names[:n])), len(names) > n)

    @writes
    def remove(self, tx: Transaction, access: Access, name: Tag) -> None:
        access.require(DELETE)
        id = repository_id(tx, access)
        digest = tx.connection.execute(_TARGET, {"repository": id, "key": name.text}).scalar()
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
    tx: Transaction,
    access: Access,
    repository_id: int,
    names: list[str],
    manifest_id: int,
    digest: str,
) -> None:
    """Create tags or move them to a manifest. One that points there already stays untouched."""
    for name in names:
        key = {"repository": repository_id, "key": name}
        current = tx.connection.execute(_LOCK_TARGET, key).scalar()
        if current == digest:
            continue
        tx.connection.execute(
            _POINT(tx),
            {
                "repository_id": repository_id,
                "name": name,
                "manifest_id": manifest_id,
                "updated_at": tx.now,
            },
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
        tx.connection.execute(_DROP, {"repository": repository_id, "key": name})
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
        _REMEMBER,
        {
            "repository_id": repository_id,
            "name": name,
            "old_digest": old,
            "new_digest": new,
            "actor": access.subject,
            "at": tx.now,
        },
    )
