"""Manifests: what they name must be there, and stays there as long as they do."""

from __future__ import annotations

import json

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    RowMapping,
    bindparam,
    case,
    delete,
    insert,
    select,
    update,
)

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import ManifestBlobUnknown, ManifestUnknown
from registry.metadata import events
from registry.metadata.base import DELETE, LIVE, PULL, PUSH, Access, NewManifest, Page, Referrer
from registry.metadata.charges import charge
from registry.metadata.collection import lock_blobs, release_blobs, review_manifests
from registry.metadata.repositories import ensure_repository, find_repository, repository_id
from registry.metadata.tables import blob, manifest, manifest_blob, manifest_child, repository_blob
from registry.metadata.tags import drop_tags, lock_tags_of, point_tags
from registry.metadata.transaction import (
    Operations,
    Transaction,
    Upserting,
    batches,
    bound,
    comparable,
    digest_of,
    reads,
    writes,
)
from registry.metadata.trash import bury, record_change

# What a referrers listing shows, and filters by.
_shown_type: ColumnElement[str] = case(
    (manifest.c.artifact_type != "", manifest.c.artifact_type),
    else_=manifest.c.config_media_type,
)

_repository = bindparam("repository", type_=manifest.c.repository_id.type)
_digests: BindParameter[str] = bindparam("digests", expanding=True)

_LOCK_BLOBS = (
    select(blob.c.digest)
    .join(repository_blob, repository_blob.c.digest == blob.c.digest)
    .where(
        repository_blob.c.repository_id == _repository,
        blob.c.digest.in_(_digests),
        blob.c.state == LIVE,
    )
    .order_by(blob.c.digest)
    .with_for_update(key_share=True, of=blob)
)

_LOCK_CHILDREN = (
    select(manifest.c.digest)
    .where(manifest.c.repository_id == _repository, manifest.c.digest.in_(_digests))
    .order_by(manifest.c.digest)
    .with_for_update(read=True)
)

_ADD = Upserting(
    manifest,
    lambda insert: insert.values(
        **bound(
            manifest, "repository_id", "digest", "media_type", "size", "raw", "subject_digest",
            "artifact_type", "config_media_type", "annotations", "actor", "pushed_at",
        )
    )
    .on_conflict_do_nothing()
    .returning(manifest.c.id),
)  # fmt: skip

# Locked, so that the collector does not take it away before this push is done.
_FIND = (
    select(manifest.c.id)
    .where(
        manifest.c.repository_id == _repository,
        manifest.c.digest == bindparam("key", type_=manifest.c.digest.type),
    )
    .with_for_update(read=True, key_share=True)
)

_USE_BLOB = insert(manifest_blob).values(
    **bound(manifest_blob, "manifest_id", "repository_id", "digest", "role")
)

_USE_CHILD = insert(manifest_child).values(
    **bound(manifest_child, "parent_id", "repository_id", "child_digest")
)

_REFERENCED = (
    update(blob)
    .where(blob.c.digest.in_(_digests), blob.c.unreferenced_since.is_not(None))
    .values(unreferenced_since=None)
)


class SqlManifests(Operations):
    """Implements `registry.metadata.base.Manifests`."""

    @writes
    def put(
        self,
        tx: Transaction,
        access: Access,
        manifest: NewManifest,
        *,
        tags: tuple[Tag, ...] = (),
        allow_sparse: bool = False,
    ) -> bool:
        return put_manifest(tx, access, manifest, tags=tags, allow_sparse=allow_sparse)

    @writes
    def remove(self, tx: Transaction, access: Access, digest: Digest) -> None:
        access.require(DELETE)
        repository = repository_id(tx, access)
        change = record_change(tx, "delete", access.subject)
        remove_manifest(tx, access, repository, str(digest), change_id=change)

    @reads
    def referrers(
        self,
        tx: Transaction,
        access: Access,
        subject: Digest,
        *,
        artifact_type: str = "",
        n: int,
        last: str = "",
    ) -> Page[Referrer]:
        access.require(PULL)
        repository = find_repository(tx, access)
        if n <= 0 or repository is None or not _is_plain(artifact_type):
            return Page((), False)
        query = (
            select(
                manifest.c.digest,
                manifest.c.media_type,
                manifest.c.size,
                _shown_type.label("artifact_type"),
                manifest.c.annotations,
            )
            .where(
                manifest.c.repository_id == repository,
                manifest.c.subject_digest == str(subject),
                manifest.c.digest > comparable(last),
            )
            .order_by(manifest.c.digest)
            .limit(n + 1)
        )
        if artifact_type:
            query = query.where(_shown_type == artifact_type)
        rows = tx.connection.execute(query).mappings().all()
        return Page(tuple(map(_referrer, rows[:n])), len(rows) > n)


def put_manifest(
    tx: Transaction,
    access: Access,
    new: NewManifest,
    *,
    tags: tuple[Tag, ...] = (),
    allow_sparse: bool = False,
    change_id: int | None = None,
) -> bool:
    """What `Manifests.put` says, inside a transaction."""
    access.require(PUSH)
    repository_id = ensure_repository(tx, access)
    held = _lock_blobs(tx, repository_id, new)
    missing = [b.digest for b in new.blobs if not b.may_be_absent and str(b.digest) not in held]
    # Those that are there are locked in any case: the collector must not take them meanwhile.
    absent = _missing_children(tx, repository_id, new)
    if not allow_sparse:
        missing += absent
    if missing:
        raise ManifestBlobUnknown(access.name, dict.fromkeys(missing))
    digest = str(new.digest)
    id, is_new = _insert(tx, access, repository_id, new)
    if is_new:
        _refer(tx, repository_id, id, new, held)
        events.record(tx, events.MANIFEST_PUSHED, access, digest=digest)
        if not tags:
            review_manifests(tx, repository_id, [digest], event="pushed untagged")
    elif not tags:
        review_manifests(tx, repository_id, [digest], event="pushed again")
    names = sorted({tag.text for tag in tags})
    if len(names) > 1 and change_id is None:
        change_id = record_change(tx, "push", access.subject)
    point_tags(tx, access, repository_id, names, id, digest, change_id=change_id)
    return is_new


def remove_manifest(
    tx: Transaction, access: Access, repository: int, digest: str, *, change_id: int
) -> list[str]:
    """Remove a manifest with its tags, of which it gives the names, into the trash.

    Raises: ManifestUnknown.
    """
    query = select(manifest.c.id).where(
        manifest.c.repository_id == repository, manifest.c.digest == digest
    )
    used = tx.connection.execute(
        select(manifest_blob.c.digest)
        .where(manifest_blob.c.manifest_id == query.scalar_subquery())
        .distinct()
    )
    blobs = list(used.scalars())
    lock_blobs(tx, blobs)
    found = tx.connection.execute(query.add_columns(manifest.c.size).with_for_update()).first()
    if found is None:
        raise ManifestUnknown(access.name, digest)
    id, size = found
    tags = lock_tags_of(tx, id)
    drop_tags(tx, access, repository, tags, digest, change_id=change_id)
    bury(tx, access, repository, id, change_id=change_id)
    loose = tx.connection.execute(
        select(manifest_child.c.child_digest).where(manifest_child.c.parent_id == id)
    )
    children = list(loose.scalars())
    referring = tx.connection.execute(
        select(manifest.c.digest).where(
            manifest.c.repository_id == repository, manifest.c.subject_digest == digest
        )
    )
    referrers = list(referring.scalars())
    tx.connection.execute(delete(manifest).where(manifest.c.id == id))
    charge(tx, repository, bytes=-size)
    release_blobs(tx, blobs, event="manifest removed")
    review_manifests(tx, repository, children, event="index removed")
    review_manifests(tx, repository, referrers, event="subject removed")
    events.record(tx, events.MANIFEST_REMOVED, access, digest=digest)
    return tags


def _is_plain(artifact_type: str) -> bool:
    """Whether it can be a media type; odd characters are not the database's business."""
    return artifact_type.isascii() and "\0" not in artifact_type


def _referrer(row: RowMapping) -> Referrer:
    return Referrer(
        digest=digest_of(row["digest"]),
        media_type=row["media_type"],
        size=row["size"],
        artifact_type=row["artifact_type"],
        annotations=json.loads(row["annotations"]),
    )


def _lock_blobs(tx: Transaction, repository_id: int, new: NewManifest) -> set[str]:
    """Digests of the named blobs that the repository holds; they stay live until the commit.

    The row locks conflict with the collector's, which wants the rows for itself before it dooms a
    blob. They are not shared, although most rows are only looked at: two pushes that both want to
    change a row they share would wait for each other for ever, and the locks last a moment only.
    """
    held: set[str] = set()
    for batch in batches(sorted({str(reference.digest) for reference in new.blobs})):
        wanted = {"repository": repository_id, "digests": batch}
        held.update(tx.connection.execute(_LOCK_BLOBS, wanted).scalars())
    return held


def _missing_children(tx: Transaction, repository_id: int, new: NewManifest) -> list[Digest]:
    there: set[str] = set()
    for batch in batches(sorted({str(child) for child in new.children})):
        wanted = {"repository": repository_id, "digests": batch}
        there.update(tx.connection.execute(_LOCK_CHILDREN, wanted).scalars())
    return [child for child in new.children if str(child) not in there]


def _insert(
    tx: Transaction, access: Access, repository_id: int, new: NewManifest
) -> tuple[int, bool]:
    """The manifest's id, and whether it is new. The same bytes again change nothing."""
    digest = str(new.digest)
    row = {
        "repository_id": repository_id,
        "digest": digest,
        "media_type": new.media_type,
        "size": len(new.raw),
        "raw": new.raw,
        "subject_digest": None if new.subject is None else str(new.subject),
        "artifact_type": new.artifact_type,
        "config_media_type": new.config_media_type,
        "annotations": json.dumps(dict(new.annotations), ensure_ascii=False),
        "actor": access.subject,
        "pushed_at": tx.now,
    }
    while True:  # others may remove it between the two
        inserted = tx.connection.execute(_ADD(tx), row).scalar()
        if inserted is not None:
            charge(tx, repository_id, bytes=len(new.raw))
            return int(inserted), True
        found = tx.connection.execute(_FIND, {"repository": repository_id, "key": digest}).scalar()
        if found is not None:
            return int(found), False


def _refer(tx: Transaction, repository_id: int, id: int, new: NewManifest, held: set[str]) -> None:
    """Record what the manifest uses, which keeps it."""
    uses = {(str(r.digest), r.role) for r in new.blobs if str(r.digest) in held}
    if uses:
        tx.connection.execute(
            _USE_BLOB,
            [
                {"manifest_id": id, "repository_id": repository_id, "digest": digest, "role": role}
                for digest, role in sorted(uses)
            ],
        )
    children = {str(child) for child in new.children}
    if children:
        tx.connection.execute(
            _USE_CHILD,
            [
                {"parent_id": id, "repository_id": repository_id, "child_digest": digest}
                for digest in sorted(children)
            ],
        )
    for batch in batches(sorted(held)):
        tx.connection.execute(_REFERENCED, {"digests": batch})
