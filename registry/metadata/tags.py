"""Tags, and the history of each."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select, update

from ocispec.distribution.name import Tag
from registry.errors import Denied, ManifestUnknown
from registry.metadata import events
from registry.metadata.base import DELETE, PULL, Access, Page, TagChange
from registry.metadata.charges import charge
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

# The tag's row alone: PostgreSQL looks at a locked row again after it had to wait for it, but not
# at rows joined to it.
_LOCK = (
    select(tag.c.manifest_id)
    .where(tag.c.repository_id == _repository, tag.c.name == _name)
    .with_for_update()
)

_DIGEST = select(manifest.c.digest).where(manifest.c.id == bindparam("id"))

_CREATE = Upserting(
    tag,
    lambda insert: (
        insert.values(**bound(tag, "repository_id", "name", "manifest_id", "updated_at"))
        .on_conflict_do_nothing()
        .returning(tag.c.manifest_id)
    ),
)

_MOVE = (
    update(tag)
    .where(tag.c.repository_id == _repository, tag.c.name == _name)
    .values(manifest_id=bindparam("to"), updated_at=bindparam("now"))
)

_DROP = delete(tag).where(tag.c.repository_id == _repository, tag.c.name == _name)

_REMEMBER = insert(tag_history).values(
    **bound(
        tag_history, "repository_id", "name", "old_digest", "new_digest", "actor", "at", "change_id"
    )
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
        target = tx.connection.execute(_LOCK, {"repository": id, "key": name.text}).scalar()
        if target is None:
            raise ManifestUnknown(access.name, name)
        digest = _digest(tx, target)
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
                id=row.id,
                change=row.change_id,
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
    *,
    change_id: int | None = None,
) -> None:
    """Create tags or move them to a manifest. One that points there already stays untouched.

    Raises: Denied if the caller may not create, or overwrite, one of them.

    `change_id` is the change set that this belongs to, if any.
    """
    for name in names:
        key: dict[str, int | str] = {"repository": repository_id, "key": name}
        current = _lock_or_create(tx, key, manifest_id)
        if current == manifest_id:
            continue
        _check_change(access, name, is_new=current is None)
        old = None
        if current is None:
            charge(tx, repository_id, tags=1)
        else:
            tx.connection.execute(_MOVE, {**key, "to": manifest_id, "now": tx.now})
            old = _digest(tx, current)
            review_manifests(tx, repository_id, [old], event="tag moved")
        _remember(tx, access, repository_id, name, old=old, new=digest, change_id=change_id)
        events.record(tx, events.TAG_MOVED, access, digest=digest, tag=name)


def _check_change(access: Access, name: str, *, is_new: bool) -> None:
    """Asked with the tag's row locked, so that of two who create it one overwrites it."""
    if is_new:
        if not access.tags.may_create:
            raise Denied("create", f"{access.name}:{name}")
    elif access.tags.is_immutable(name):
        raise _immutable(access, name, "overwrite")
    elif not access.tags.may_overwrite:
        raise Denied("overwrite", f"{access.name}:{name}")


def _immutable(access: Access, name: str, action: str) -> Denied:
    where = f"{access.name}:{name}"
    return Denied(action, where, message=f"the tag {where} is immutable: {action} is denied")


def _lock_or_create(tx: Transaction, key: dict[str, int | str], manifest_id: int) -> int | None:
    """The manifest that a tag points at, the tag being ours until the commit; None: it is new and
    points at `manifest_id` now. Others may make and remove the same one meanwhile."""
    while True:
        current = tx.connection.execute(_LOCK, key).scalar()
        if current is not None:
            return int(current)
        created = tx.connection.execute(
            _CREATE(tx),
            {
                "repository_id": key["repository"],
                "name": key["key"],
                "manifest_id": manifest_id,
                "updated_at": tx.now,
            },
        )
        if created.first() is not None:
            return None


def _digest(tx: Transaction, manifest_id: int) -> str:
    digest: str = tx.connection.execute(_DIGEST, {"id": manifest_id}).scalar_one()
    return digest


def lock_tag(tx: Transaction, repository_id: int, name: str) -> str | None:
    """The digest that a tag names, the tag being ours until the commit; None if there is none."""
    current = tx.connection.execute(_LOCK, {"repository": repository_id, "key": name}).scalar()
    return None if current is None else _digest(tx, current)


def lock_tags_of(tx: Transaction, manifest_id: int) -> list[str]:
    """The tags that point at a manifest, which stay there until the commit."""
    query = (
        select(tag.c.name)
        .where(tag.c.manifest_id == manifest_id)
        .order_by(tag.c.name)
        .with_for_update()
    )
    return list(tx.connection.execute(query).scalars())


def drop_tags(
    tx: Transaction,
    access: Access,
    repository_id: int,
    names: list[str],
    digest: str,
    *,
    change_id: int | None = None,
) -> None:
    """Remove tags that all point at `digest`. Raises: Denied if one is immutable."""
    for name in names:
        if access.tags.is_immutable(name):
            raise _immutable(access, name, DELETE)
        tx.connection.execute(_DROP, {"repository": repository_id, "key": name})
        charge(tx, repository_id, tags=-1)
        _remember(tx, access, repository_id, name, old=digest, new=None, change_id=change_id)
        events.record(tx, events.TAG_REMOVED, access, digest=digest, tag=name)


def _remember(
    tx: Transaction,
    access: Access,
    repository_id: int,
    name: str,
    *,
    old: str | None,
    new: str | None,
    change_id: int | None,
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
            "change_id": change_id,
        },
    )
