"""What a person asks about a repository: how much is in it, and since when. Reads only."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from registry.metadata.base import PULL, Access, Page
from registry.metadata.repositories import repository_id
from registry.metadata.tables import blob, manifest, repository, repository_blob, tag
from registry.metadata.transaction import Operations, Transaction, comparable, reads


@dataclass(frozen=True, slots=True)
class RepositorySummary:
    name: str
    tags: int
    manifests: int
    blobs: int
    #: Of all blobs it holds, each counted once; other repositories may hold them too.
    bytes: int
    created_at: int
    #: Of the newest manifest; None if it holds none.
    pushed_at: int | None
    #: Of the manifest that was pulled last, to about a minute; None if none was.
    pulled_at: int | None


@dataclass(frozen=True, slots=True)
class TagSummary:
    name: str
    digest: str
    media_type: str
    #: When the tag was last made to point here.
    updated_at: int
    pushed_at: int
    pulled_at: int | None


class SqlOverview(Operations):
    """Implements `registry.metadata.base.Overview`."""

    @reads
    def repository(self, tx: Transaction, access: Access) -> RepositorySummary:
        access.require(PULL)
        id = repository_id(tx, access)
        run = tx.connection.execute
        created = run(select(repository.c.created_at).where(repository.c.id == id)).scalar_one()
        manifests, pushed, pulled = run(
            select(
                func.count(), func.max(manifest.c.pushed_at), func.max(manifest.c.pulled_at)
            ).where(manifest.c.repository_id == id)
        ).one()
        tags = run(
            select(func.count()).select_from(tag).where(tag.c.repository_id == id)
        ).scalar_one()
        blobs, size = run(
            select(func.count(), func.coalesce(func.sum(blob.c.size), 0))
            .select_from(repository_blob.join(blob, blob.c.digest == repository_blob.c.digest))
            .where(repository_blob.c.repository_id == id, blob.c.state == "live")
        ).one()
        return RepositorySummary(
            name=access.name.text,
            tags=tags,
            manifests=manifests,
            blobs=blobs,
            bytes=int(size),
            created_at=created,
            pushed_at=pushed,
            pulled_at=pulled,
        )

    @reads
    def tags(self, tx: Transaction, access: Access, *, n: int, last: str = "") -> Page[TagSummary]:
        access.require(PULL)
        id = repository_id(tx, access)
        rows = tx.connection.execute(
            select(
                tag.c.name,
                manifest.c.digest,
                manifest.c.media_type,
                tag.c.updated_at,
                manifest.c.pushed_at,
                manifest.c.pulled_at,
            )
            .join(manifest, manifest.c.id == tag.c.manifest_id)
            .where(tag.c.repository_id == id, tag.c.name > comparable(last))
            .order_by(tag.c.name)
            .limit(n + 1)
        ).all()
        return Page(tuple(TagSummary(*row) for row in rows[:n]), len(rows) > n)
