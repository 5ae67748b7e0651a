"""What an operator asks about collection: how it is going, what would go, why something stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, case, func, select

from registry.metadata.base import LIVE
from registry.metadata.collecting import FACTS_OF_MANIFEST
from registry.metadata.collection import FOR_EVER_S
from registry.metadata.liveness import BlobFacts, ManifestFacts, blob_verdict, manifest_verdict
from registry.metadata.tables import (
    blob,
    doomed_object,
    gc_queue,
    manifest,
    manifest_blob,
    manifest_child,
    repository,
    repository_blob,
    tag,
)
from registry.metadata.tables_collection import gc_counter, gc_task, lost_blob
from registry.metadata.transaction import Operations, Transaction, batches, reads
from registry.metadata.upkeep import Pause

# Rows of one kind that are shown of something that may have very many.
_MOST = 100
# What is counted exactly; beyond it, "at least".
_MOST_COUNTED = 1_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    kind: str
    event: str
    entries: int
    #: Of them, how many are due.
    due: int
    oldest_due_at: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A blob that manifests use and whose bytes are gone or rotten."""

    digest: str
    reason: str
    found_at: int
    #: Manifests that use it, the first of them: repository@digest.
    used_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    now: int
    paused: Pause | None
    queues: tuple[Queue, ...]
    #: Objects that wait to be swept, their bytes, and the oldest of them (0 if there are none).
    doomed_objects: int
    doomed_bytes: int
    doomed_oldest_at: int
    #: Since the database was made: "bytes freed", "blobs collected", "event: tag moved", …
    counters: dict[str, int]
    lost: tuple[Lost, ...]


@dataclass(frozen=True, slots=True)
class Depth:
    """A few numbers for metrics."""

    manifests: int
    blobs: int
    oldest_due_at: int
    doomed_objects: int
    doomed_bytes: int
    counters: dict[str, int]


@dataclass(frozen=True, slots=True)
class Going:
    kind: str
    repository: str
    digest: str
    size: int
    event: str


@dataclass(frozen=True, slots=True)
class Simulation:
    #: The moment it is about.
    at: int
    manifests: int
    #: Blobs that would be doomed, and their bytes.
    blobs: int
    bytes: int
    #: Blobs that nothing would use any more, once their time is over.
    later_blobs: int
    later_bytes: int
    #: The first of them.
    items: tuple[Going, ...]
    #: Whether more entries were due than were looked at.
    more: bool


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that keeps something: tag, index, subject, manifest, lease, time."""

    kind: str
    repository: str
    what: str
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Why:
    digest: str
    #: "blob" or "manifest".
    kind: str
    #: live or doomed; manifests are live.
    state: str
    size: int
    #: Repositories that hold it, the first of them.
    repositories: tuple[str, ...]
    reasons: tuple[Reason, ...]
    #: When the collector looks at it next; None: when something happens to it.
    review_at: int | None
    #: What put it into the queue; empty if it is not there.
    event: str


class SqlCollectionReport(Operations):
    """Implements `registry.metadata.base.CollectionReport`. Changes nothing."""

    @reads
    def due(self, tx: Transaction, *, sweep_delay_s: int) -> bool:
        """Whether there is anything to do now."""
        for kind in ("manifest", "blob"):
            if _first_due(tx, kind) <= tx.now:
                return True
        oldest = tx.connection.execute(select(func.min(doomed_object.c.doomed_at))).scalar()
        return oldest is not None and oldest <= tx.now - sweep_delay_s

    @reads
    def depth(self, tx: Transaction) -> Depth:
        counts = []
        for kind in ("manifest", "blob"):
            piece = select(1).where(gc_queue.c.kind == kind).limit(_MOST_COUNTED).subquery()
            counts.append(tx.connection.execute(select(func.count()).select_from(piece)).scalar())
        objects, size, _ = _doomed(tx)
        oldest = min(_first_due(tx, "manifest"), _first_due(tx, "blob"))
        return Depth(
            manifests=counts[0] or 0,
            blobs=counts[1] or 0,
            oldest_due_at=0 if oldest == _NEVER else oldest,
            doomed_objects=objects,
            doomed_bytes=size,
            counters=_counters(tx),
        )

    @reads
    def status(self, tx: Transaction) -> Status:
        due = func.sum(case((gc_queue.c.due_at <= tx.now, 1), else_=0))
        rows = tx.connection.execute(
            select(
                gc_queue.c.kind, gc_queue.c.event, func.count(), due, func.min(gc_queue.c.due_at)
            )
            .group_by(gc_queue.c.kind, gc_queue.c.event)
            .order_by(gc_queue.c.kind, gc_queue.c.event)
        )
        pause = tx.connection.execute(select(gc_task).where(gc_task.c.name == "pause")).first()
        objects, size, oldest = _doomed(tx)
        lost = tx.connection.execute(
            select(lost_blob)
            .join(blob, and_(blob.c.digest == lost_blob.c.digest, blob.c.state != LIVE))
            .order_by(lost_blob.c.digest)
            .limit(_MOST)
        ).all()
        return Status(
            now=tx.now,
            paused=(
                Pause(pause.holder, pause.held_until)
                if pause is not None and pause.held_until > tx.now
                else None
            ),
            queues=tuple(Queue(k, e, int(n), int(d or 0), int(o)) for k, e, n, d, o in rows),
            doomed_objects=objects,
            doomed_bytes=size,
            doomed_oldest_at=oldest,
            counters=_counters(tx),
            lost=tuple(
                Lost(row.digest, row.reason, row.found_at, tuple(_users(tx, row.digest)))
                for row in lost
            ),
        )

    @reads
    def why(self, tx: Transaction, digest: str, *, name: str = "") -> tuple[Why, ...]:
        """What keeps a blob or the manifests of this digest, or when they go. Empty: unknown."""
        found: list[Why] = []
        row = tx.connection.execute(select(blob).where(blob.c.digest == digest)).first()
        if row is not None:
            used = tx.connection.execute(
                select(repository.c.name, manifest.c.digest, manifest_blob.c.role)
                .select_from(manifest_blob)
                .join(manifest, manifest.c.id == manifest_blob.c.manifest_id)
                .join(repository, repository.c.id == manifest.c.repository_id)
                .where(manifest_blob.c.digest == digest)
                .limit(_MOST)
            ).all()
            reasons = [Reason("manifest", each[0], f"{each[1]} ({each[2]})") for each in used]
            facts = BlobFacts(
                row.state == LIVE, bool(used), row.unreferenced_since, row.lease_until
            )
            verdict = blob_verdict(facts, now=tx.now, lease_s=tx.terms.lease_s)
            if not used and verdict.again_at is not None:
                reasons.append(Reason("lease", "", verdict.reason, verdict.again_at))
            holders = tx.connection.execute(
                select(repository.c.name)
                .join(repository_blob, repository_blob.c.repository_id == repository.c.id)
                .where(repository_blob.c.digest == digest)
                .limit(_MOST)
            )
            due_at, event = _queued(tx, "blob", 0, digest)
            found.append(
                Why(
                    digest, "blob", row.state, row.size, tuple(sorted(holders.scalars())),
                    tuple(reasons), due_at, event,
                )
            )  # fmt: skip
        # Along the repositories: there is no index on digests of manifests alone.
        query = (
            select(
                manifest.c.id,
                manifest.c.repository_id,
                manifest.c.subject_digest,
                manifest.c.size,
                repository.c.name,
                *FACTS_OF_MANIFEST,
            )
            .select_from(repository)
            .join(manifest, manifest.c.repository_id == repository.c.id)
            .where(manifest.c.digest == digest)
            .order_by(repository.c.name)
            .limit(_MOST)
        )
        if name:
            query = query.where(repository.c.name == name)
        for each in tx.connection.execute(query).all():
            due_at, event = _queued(tx, "manifest", each.repository_id, digest)
            reasons = _reasons(tx, each, digest)
            facts_of = ManifestFacts(
                each.tagged, each.in_index, each.has_subject, each.pushed_at, each.pulled_at
            )
            verdict = manifest_verdict(
                facts_of,
                now=max(tx.now, due_at or 0),
                untagged_s=tx.terms.untagged_s,
                for_ever_s=FOR_EVER_S,
            )
            if not reasons:
                until = verdict.again_at or due_at
                why = verdict.reason if verdict.again_at else "untagged"
                if until is not None and until > tx.now:
                    reasons.append(Reason("time", each.name, why, until))
            found.append(
                Why(
                    digest, "manifest", LIVE, each.size, (each.name,), tuple(reasons), due_at, event
                )
            )
        return tuple(found)

    @reads
    def simulate(
        self, tx: Transaction, *, at: int | None = None, limit: int = 10_000
    ) -> Simulation:
        """What the collector would remove at a moment if nothing else happened until then."""
        return _Simulator(tx, tx.now if at is None else at, limit).run()


class _Simulator:
    def __init__(self, tx: Transaction, at: int, limit: int) -> None:
        self._tx = tx
        self._at = at
        self._limit = limit
        self._removed: dict[int, Going] = {}

    def run(self) -> Simulation:
        entries = self._due("manifest")
        frontier = {(r, key): event for r, key, event in entries}
        while frontier and len(self._removed) < self._limit:
            frontier = self._step(frontier)
        blobs = {key: event for _, key, event in self._due("blob")}
        freed = self._blobs_of_removed()
        now, later = list[Going](), list[Going]()
        for digest in sorted({*blobs, *freed}):
            going = self._blob(digest, blobs.get(digest))
            if going is not None:
                (now if digest in blobs and digest not in freed else later).append(going)
        manifests = list(self._removed.values())
        return Simulation(
            at=self._at,
            manifests=len(manifests),
            blobs=len(now),
            bytes=sum(each.size for each in now),
            later_blobs=len(later),
            later_bytes=sum(each.size for each in later),
            items=tuple([*manifests, *now, *later][:_MOST]),
            more=len(entries) >= self._limit or len(blobs) >= self._limit,
        )

    def _due(self, kind: str) -> list[tuple[int, str, str]]:
        rows = self._tx.connection.execute(
            select(gc_queue.c.repository_id, gc_queue.c.key, gc_queue.c.event)
            .where(gc_queue.c.kind == kind, gc_queue.c.due_at <= self._at)
            .order_by(gc_queue.c.due_at)
            .limit(self._limit)
        )
        return [(row[0], row[1], row[2]) for row in rows]

    def _step(self, wanted: dict[tuple[int, str], str]) -> dict[tuple[int, str], str]:
        """Remove those that nothing keeps; what comes next because of that."""
        next: dict[tuple[int, str], str] = {}
        by_repository: dict[int, list[str]] = {}
        for id, digest in wanted:
            by_repository.setdefault(id, []).append(digest)
        for id, digests in by_repository.items():
            for batch in batches(digests):
                rows = self._tx.connection.execute(
                    select(
                        manifest.c.id,
                        manifest.c.digest,
                        manifest.c.size,
                        manifest.c.subject_digest,
                        repository.c.name,
                        *FACTS_OF_MANIFEST,
                    )
                    .join(repository, repository.c.id == manifest.c.repository_id)
                    .where(manifest.c.repository_id == id, manifest.c.digest.in_(batch))
                ).all()
                for row in rows:
                    if row.id in self._removed or not self._goes(id, row):
                        continue
                    event = wanted[id, row.digest]
                    self._removed[row.id] = Going("manifest", row.name, row.digest, row.size, event)
                    for digest in self._loose(id, row.id, row.digest):
                        next[id, digest] = "index or subject collected"
        return next

    def _goes(self, repository_id: int, each: Any) -> bool:
        in_index, has_subject = each.in_index, each.has_subject
        if in_index and self._removed:
            parents = self._tx.connection.execute(
                select(manifest_child.c.parent_id).where(
                    manifest_child.c.repository_id == repository_id,
                    manifest_child.c.child_digest == each.digest,
                )
            ).scalars()
            in_index = any(parent not in self._removed for parent in parents)
        if has_subject and self._removed:
            subject = self._tx.connection.execute(
                select(manifest.c.id).where(
                    manifest.c.repository_id == repository_id,
                    manifest.c.digest == each.subject_digest,
                )
            ).scalar()
            has_subject = subject not in self._removed
        facts = ManifestFacts(each.tagged, in_index, has_subject, each.pushed_at, each.pulled_at)
        return manifest_verdict(
            facts, now=self._at, untagged_s=self._tx.terms.untagged_s, for_ever_s=FOR_EVER_S
        ).remove

    def _loose(self, repository_id: int, id: int, digest: str) -> Iterable[str]:
        children = self._tx.connection.execute(
            select(manifest_child.c.child_digest).where(manifest_child.c.parent_id == id)
        )
        referrers = self._tx.connection.execute(
            select(manifest.c.digest).where(
                manifest.c.repository_id == repository_id, manifest.c.subject_digest == digest
            )
        )
        return [*children.scalars(), *referrers.scalars()]

    def _blobs_of_removed(self) -> set[str]:
        found: set[str] = set()
        for batch in batches(list(self._removed)):
            found.update(
                self._tx.connection.execute(
                    select(manifest_blob.c.digest).where(manifest_blob.c.manifest_id.in_(batch))
                ).scalars()
            )
        return found

    def _blob(self, digest: str, event: str | None) -> Going | None:
        """The blob if nothing would use it any more."""
        users = self._tx.connection.execute(
            select(manifest_blob.c.manifest_id).where(manifest_blob.c.digest == digest)
        ).scalars()
        if any(user not in self._removed for user in users):
            return None
        row = self._tx.connection.execute(select(blob).where(blob.c.digest == digest)).first()
        if row is None or row.state != LIVE:
            return None
        if event is not None:
            facts = BlobFacts(True, False, row.unreferenced_since or 0, row.lease_until)
            if not blob_verdict(facts, now=self._at, lease_s=self._tx.terms.lease_s).remove:
                return None
        return Going("blob", "", digest, row.size, event or "manifest collected")


_NEVER = 1 << 60


def _first_due(tx: Transaction, kind: str) -> int:
    due = select(gc_queue.c.due_at).where(gc_queue.c.kind == kind)
    found = tx.connection.execute(due.order_by(gc_queue.c.due_at).limit(1)).scalar()
    return _NEVER if found is None else int(found)


def _doomed(tx: Transaction) -> tuple[int, int, int]:
    row = tx.connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(doomed_object.c.size), 0),
            func.coalesce(func.min(doomed_object.c.doomed_at), 0),
        )
    ).one()
    return int(row[0]), int(row[1]), int(row[2])


def _counters(tx: Transaction) -> dict[str, int]:
    rows = tx.connection.execute(select(gc_counter).order_by(gc_counter.c.name))
    return {row.name: row.value for row in rows}


def _users(tx: Transaction, digest: str) -> list[str]:
    rows = tx.connection.execute(
        select(repository.c.name, manifest.c.digest)
        .select_from(manifest_blob)
        .join(manifest, manifest.c.id == manifest_blob.c.manifest_id)
        .join(repository, repository.c.id == manifest.c.repository_id)
        .where(manifest_blob.c.digest == digest)
        .limit(10)
    )
    return [f"{name}@{used}" for name, used in rows]


def _queued(tx: Transaction, kind: str, repository_id: int, key: str) -> tuple[int | None, str]:
    row = tx.connection.execute(
        select(gc_queue.c.due_at, gc_queue.c.event).where(
            gc_queue.c.kind == kind,
            gc_queue.c.repository_id == repository_id,
            gc_queue.c.key == key,
        )
    ).first()
    return (None, "") if row is None else (row.due_at, row.event)


def _reasons(tx: Transaction, row: Any, digest: str) -> list[Reason]:
    """Tags, indexes and the subject that keep a manifest."""
    tags = select(tag.c.name).where(tag.c.manifest_id == row.id).order_by(tag.c.name).limit(_MOST)
    indexes = (
        select(manifest.c.digest)
        .join(manifest_child, manifest_child.c.parent_id == manifest.c.id)
        .where(
            manifest_child.c.repository_id == row.repository_id,
            manifest_child.c.child_digest == digest,
        )
        .limit(_MOST)
    )
    reasons = [Reason("tag", row.name, each) for each in tx.connection.execute(tags).scalars()]
    for each in tx.connection.execute(indexes).scalars():
        reasons.append(Reason("index", row.name, each))
    if row.has_subject:
        reasons.append(Reason("subject", row.name, row.subject_digest))
    return reasons
