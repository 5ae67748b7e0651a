"""How many bytes a repository, a namespace or a tag takes, in three ways of counting.

logical     what its images are in sum, each with all it needs: what clients would pull
unique      each blob once: what is stored for it
exclusive   of these, what nothing else uses: what would be freed without it
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, func, or_, select, true

from registry.metadata.tables import (
    blob,
    manifest,
    manifest_blob,
    manifest_child,
    repository,
    tag,
)
from registry.metadata.transaction import Operations, Transaction, reads

_MOST = 1000


@dataclass(frozen=True, slots=True)
class Bytes:
    name: str
    #: Manifests of a repository or namespace, or all that a tag leads to.
    manifests: int
    logical: int
    unique: int
    exclusive: int


@dataclass(frozen=True, slots=True)
class Usage:
    total: Bytes
    #: Tags of the repository, or repositories of the namespace, by name.
    items: tuple[Bytes, ...]
    more: bool


class SqlUsage(Operations):
    """Implements `registry.metadata.base.Metadata.usage`. Changes nothing."""

    @reads
    def of(self, tx: Transaction, name: str = "", *, last: str = "") -> Usage:
        """Of a repository with its tags; else of all below this namespace (empty: everything),
        by repository, after `last`."""
        found = select(repository.c.id).where(repository.c.name == name)
        id = tx.connection.execute(found).scalar()
        if id is not None:
            tags = _tags(tx, id)
            items = [each for each in tags if each.name > last][: _MOST + 1]
            total = _sum(tx, name, repository.c.id == id)
        else:
            below = _below(name)
            rows = tx.connection.execute(
                select(repository.c.id, repository.c.name)
                .where(below, repository.c.name > last)
                .order_by(repository.c.name)
                .limit(_MOST + 1)
            ).all()
            items = [_sum(tx, row.name, repository.c.id == row.id) for row in rows]
            total = _sum(tx, name, below)
        return Usage(total, tuple(items[:_MOST]), len(items) > _MOST)


def _below(namespace: str) -> ColumnElement[bool]:
    if not namespace:
        return true()
    # "0" is the character behind "/".
    return and_(repository.c.name > f"{namespace}/", repository.c.name < f"{namespace}0")


def _sum(tx: Transaction, name: str, scope: ColumnElement[bool]) -> Bytes:
    uses = (
        select(manifest_blob.c.manifest_id, manifest_blob.c.digest)
        .join(manifest, manifest.c.id == manifest_blob.c.manifest_id)
        .join(repository, repository.c.id == manifest.c.repository_id)
        .where(scope)
        .distinct()
        .subquery()
    )
    times = select(uses.c.digest, func.count().label("times")).group_by(uses.c.digest).subquery()
    elsewhere = (
        select(1)
        .select_from(manifest_blob)
        .join(repository, repository.c.id == manifest_blob.c.repository_id)
        .where(manifest_blob.c.digest == times.c.digest, ~scope)
        .correlate(times)
        .exists()
    )
    logical, unique, exclusive = tx.connection.execute(
        select(
            func.coalesce(func.sum(blob.c.size * times.c.times), 0),
            func.coalesce(func.sum(blob.c.size), 0),
            func.coalesce(func.sum(case((elsewhere, 0), else_=blob.c.size)), 0),
        ).join_from(times, blob, blob.c.digest == times.c.digest)
    ).one()
    count, own = tx.connection.execute(
        select(func.count(), func.coalesce(func.sum(manifest.c.size), 0))
        .join(repository, repository.c.id == manifest.c.repository_id)
        .where(scope)
    ).one()
    own = int(own)
    return Bytes(name, int(count), int(logical) + own, int(unique) + own, int(exclusive) + own)


def _tags(tx: Transaction, repository_id: int) -> list[Bytes]:
    """One repository, in memory: what each tag leads to, and what only it leads to."""
    execute = tx.connection.execute
    rows = execute(
        select(manifest.c.id, manifest.c.digest, manifest.c.size, manifest.c.subject_digest).where(
            manifest.c.repository_id == repository_id
        )
    ).all()
    ids = {row.digest: row.id for row in rows}
    own = {row.id: row.size for row in rows}
    leads_to: dict[int, list[int]] = defaultdict(list)
    for row in rows:  # referrers live with their subject
        if row.subject_digest in ids:
            leads_to[ids[row.subject_digest]].append(row.id)
    for parent, child in execute(
        select(manifest_child.c.parent_id, manifest_child.c.child_digest).where(
            manifest_child.c.repository_id == repository_id
        )
    ):
        if child in ids:
            leads_to[parent].append(ids[child])
    uses: dict[int, set[str]] = defaultdict(set)
    sizes: dict[str, int] = {}
    for id, digest, size in execute(
        select(manifest_blob.c.manifest_id, blob.c.digest, blob.c.size)
        .join(manifest, manifest.c.id == manifest_blob.c.manifest_id)
        .join(blob, blob.c.digest == manifest_blob.c.digest)
        .where(manifest.c.repository_id == repository_id)
    ):
        uses[id].add(digest)
        sizes[digest] = size
    others = {
        row[0]
        for row in execute(
            select(manifest_blob.c.digest)
            .where(
                manifest_blob.c.digest.in_(
                    select(manifest_blob.c.digest)
                    .join(manifest, manifest.c.id == manifest_blob.c.manifest_id)
                    .where(manifest.c.repository_id == repository_id)
                ),
                or_(
                    manifest_blob.c.repository_id < repository_id,
                    manifest_blob.c.repository_id > repository_id,
                ),
            )
            .distinct()
        )
    }
    reached: dict[str, set[int]] = {}
    holders: dict[int, int] = defaultdict(int)
    for name, start in execute(
        select(tag.c.name, tag.c.manifest_id)
        .where(tag.c.repository_id == repository_id)
        .order_by(tag.c.name)
    ):
        seen, todo = set[int](), [start]
        while todo:
            if (id := todo.pop()) not in seen:
                seen.add(id)
                todo += leads_to.get(id, ())
        reached[name] = seen
        for id in seen:
            holders[id] += 1
    users: dict[str, int] = defaultdict(int)
    for digests in uses.values():
        for digest in digests:
            users[digest] += 1
    found = []
    for name, seen in reached.items():
        counts: dict[str, int] = defaultdict(int)
        mine: dict[str, int] = defaultdict(int)
        for id in seen:
            for digest in uses.get(id, ()):
                counts[digest] += 1
                mine[digest] += holders[id] == 1
        manifests = sum(own[id] for id in seen)
        found.append(
            Bytes(
                name,
                len(seen),
                manifests + sum(sizes[digest] * times for digest, times in counts.items()),
                manifests + sum(sizes[digest] for digest in counts),
                sum(own[id] for id in seen if holders[id] == 1)
                + sum(
                    sizes[digest]
                    for digest, times in mine.items()
                    if times == users[digest] and digest not in others
                ),
            )
        )
    return found
