"""The collector's steps, each one transaction: what the queue names is looked at and decided.

On PostgreSQL any number of replicas work at once. A step locks queue entries first, and then blobs
and manifests, all with SKIP LOCKED: it never waits for a row that a push holds. What somebody
else has in hands is looked at again a little later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import (
    BindParameter,
    Row,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    insert,
    select,
    text,
    update,
)

from registry.metadata import events
from registry.metadata.base import DOOMED, LIVE
from registry.metadata.charges import charge, release_memberships
from registry.metadata.collection import FOR_EVER_S, release_blobs, review_manifests
from registry.metadata.liveness import BlobFacts, ManifestFacts, blob_verdict, manifest_verdict
from registry.metadata.tables import (
    blob,
    doomed_object,
    event,
    gc_queue,
    manifest,
    manifest_blob,
    manifest_child,
    repository,
    repository_blob,
    tag,
)
from registry.metadata.tables_collection import gc_counter, lost_blob
from registry.metadata.transaction import (
    Operations,
    Transaction,
    Upserting,
    batches,
    bound,
    reads,
    writes,
)

#: Who removed what nobody asked to remove; no account has such a name.
COLLECTOR = "(gc)"

#: Rows that somebody else has locked, or that failed, are looked at again after this time.
BUSY_AGAIN_S = 60
_MOST_BACK_OFF_S = 24 * 3600

_due = bindparam("now", type_=gc_queue.c.due_at.type)
_limit: BindParameter[int] = bindparam("limit")

_PICK_MANIFESTS = (
    select(gc_queue.c.repository_id, gc_queue.c.key, gc_queue.c.event, manifest.c.id)
    .select_from(
        gc_queue.outerjoin(
            manifest,
            and_(
                manifest.c.repository_id == gc_queue.c.repository_id,
                manifest.c.digest == gc_queue.c.key,
            ),
        )
    )
    .where(gc_queue.c.kind == "manifest", gc_queue.c.due_at <= _due)
    .order_by(gc_queue.c.due_at)
    .limit(_limit)
    .with_for_update(skip_locked=True, of=gc_queue)
)

_parent = manifest_child.alias("parent")
_subject = manifest.alias("subject")

FACTS_OF_MANIFEST = (
    exists().where(tag.c.manifest_id == manifest.c.id).label("tagged"),
    exists()
    .where(
        _parent.c.repository_id == manifest.c.repository_id,
        _parent.c.child_digest == manifest.c.digest,
    )
    .label("in_index"),
    exists()
    .where(
        _subject.c.repository_id == manifest.c.repository_id,
        _subject.c.digest == manifest.c.subject_digest,
    )
    .label("has_subject"),
    manifest.c.pushed_at,
    manifest.c.pulled_at,
)

_MANIFESTS = select(
    manifest.c.id,
    manifest.c.repository_id,
    manifest.c.digest,
    manifest.c.subject_digest,
    *FACTS_OF_MANIFEST,
).where(manifest.c.id.in_(bindparam("ids", expanding=True)))

_LOCK_MANIFESTS = (
    select(manifest.c.id)
    .where(manifest.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(manifest.c.digest, manifest.c.id)
    .with_for_update(skip_locked=True)
)

_BLOBS_OF = select(manifest_blob.c.manifest_id, manifest_blob.c.digest).where(
    manifest_blob.c.manifest_id.in_(bindparam("ids", expanding=True))
)

_LOCK_BLOBS = (
    select(
        blob.c.digest,
        blob.c.size,
        blob.c.state,
        blob.c.generation,
        blob.c.store_key,
        blob.c.unreferenced_since,
        blob.c.lease_until,
    )
    .where(blob.c.digest.in_(bindparam("digests", expanding=True)))
    .order_by(blob.c.digest)
    .with_for_update(skip_locked=True)
)

_CHILDREN = select(manifest_child.c.repository_id, manifest_child.c.child_digest).where(
    manifest_child.c.parent_id.in_(bindparam("ids", expanding=True))
)

_REFERRERS = (
    select(manifest.c.repository_id, manifest.c.digest)
    .join(
        _subject,
        and_(
            _subject.c.repository_id == manifest.c.repository_id,
            _subject.c.digest == manifest.c.subject_digest,
        ),
    )
    .where(_subject.c.id.in_(bindparam("ids", expanding=True)))
)

_DELETE_MANIFESTS = delete(manifest).where(manifest.c.id.in_(bindparam("ids", expanding=True)))

_PICK_BLOBS = (
    select(gc_queue.c.key, gc_queue.c.event)
    .where(gc_queue.c.kind == "blob", gc_queue.c.due_at <= _due)
    .order_by(gc_queue.c.due_at)
    .limit(_limit)
    .with_for_update(skip_locked=True)
)

_USED = (
    select(manifest_blob.c.digest)
    .where(manifest_blob.c.digest.in_(bindparam("digests", expanding=True)))
    .distinct()
)

_DONE = delete(gc_queue).where(
    gc_queue.c.kind == bindparam("its_kind"),
    gc_queue.c.repository_id == bindparam("its_repository"),
    gc_queue.c.key == bindparam("its_key"),
)

_LATER = (
    update(gc_queue)
    .where(
        gc_queue.c.kind == bindparam("its_kind"),
        gc_queue.c.repository_id == bindparam("its_repository"),
        gc_queue.c.key == bindparam("its_key"),
    )
    .values(due_at=bindparam("again_at"))
)

DOOM_OBJECT = Upserting(
    doomed_object,
    lambda insert: insert.values(
        **bound(doomed_object, "store_key", "size", "doomed_at")
    ).on_conflict_do_nothing(),
)

COUNT = Upserting(
    gc_counter,
    lambda insert: insert.values(**bound(gc_counter, "name", "value")).on_conflict_do_update(
        index_elements=[gc_counter.c.name],
        set_={"value": gc_counter.c.value + insert.excluded.value},
    ),
)


@dataclass(slots=True)
class Reviewed:
    """What one step did."""

    #: Entries that were looked at; fewer than asked for means that no more were due.
    looked: int = 0
    #: How many of them were removed.
    removed: int = 0
    #: Bytes that nobody needs any more, to be swept.
    bytes: int = 0
    #: Why each entry was in the queue, counted.
    events: Counter[str] = field(default_factory=Counter)
    #: What was decided, counted by reason.
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class DoomedObject:
    store_key: str
    size: int


class SqlCollection(Operations):
    """Implements `registry.metadata.base.Collection`, the part that changes content."""

    @writes
    def review_manifests(self, tx: Transaction, *, limit: int = 100) -> Reviewed:
        picked = tx.connection.execute(_PICK_MANIFESTS, {"now": tx.now, "limit": limit}).all()
        done = Reviewed(looked=len(picked))
        if not picked:
            return done
        done.events.update(row.event for row in picked)
        entries = {row.id: (row.repository_id, row.key) for row in picked if row.id is not None}
        gone = [(row.repository_id, row.key) for row in picked if row.id is None]
        done.reasons["gone"] += len(gone)
        finished, later = gone, list[tuple[tuple[int, str], int]]()
        doubtful = self._manifests_to_remove(tx, list(entries), entries, done, finished, later)
        blobs = _blobs_of(tx, doubtful)
        free = {row.digest for row in _lock_blobs(tx, {d for each in blobs.values() for d in each})}
        ids = [id for id in doubtful if free.issuperset(blobs.get(id, ()))]
        locked = set(tx.connection.execute(_LOCK_MANIFESTS, {"ids": ids}).scalars())
        for id in doubtful:
            if id not in locked:
                later.append((entries[id], tx.now + BUSY_AGAIN_S))
                done.reasons["in use just now"] += 1
        # Once more, now that nobody can begin to use them.
        again = Reviewed()
        remove = self._manifests_to_remove(tx, sorted(locked), entries, again, finished, later)
        done.reasons.update(again.reasons)
        done.reasons["untagged"] += len(remove)
        finished += [entries[id] for id in remove]
        # Before the removal, which may enter children again that an index here still kept.
        _settle(tx, "manifest", finished, later)
        _remove_manifests(tx, remove, {d for id in remove for d in blobs.get(id, ())})
        done.removed = len(remove)
        _count(tx, done, "manifests")
        return done

    def _manifests_to_remove(
        self,
        tx: Transaction,
        ids: Sequence[int],
        entries: dict[int, tuple[int, str]],
        done: Reviewed,
        finished: list[tuple[int, str]],
        later: list[tuple[tuple[int, str], int]],
    ) -> list[int]:
        """Those of them that nothing keeps; the others' entries are finished or due later."""
        remove: list[int] = []
        for row in tx.connection.execute(_MANIFESTS, {"ids": list(ids)}) if ids else ():
            facts = ManifestFacts(
                row.tagged, row.in_index, row.has_subject, row.pushed_at, row.pulled_at
            )
            verdict = manifest_verdict(
                facts, now=tx.now, untagged_s=tx.terms.untagged_s, for_ever_s=FOR_EVER_S
            )
            if verdict.remove:
                remove.append(row.id)
                continue
            done.reasons[verdict.reason] += 1
            if verdict.again_at is None:
                finished.append(entries[row.id])
            else:
                later.append((entries[row.id], verdict.again_at))
        return remove

    @writes
    def review_blobs(self, tx: Transaction, *, limit: int = 100) -> Reviewed:
        picked = tx.connection.execute(_PICK_BLOBS, {"now": tx.now, "limit": limit}).all()
        done = Reviewed(looked=len(picked))
        if not picked:
            return done
        done.events.update(row.event for row in picked)
        keys = [row.key for row in picked]
        rows = {row.digest: row for row in _lock_blobs(tx, set(keys))}
        used = set(tx.connection.execute(_USED, {"digests": keys}).scalars())
        finished: list[tuple[int, str]] = []
        later: list[tuple[tuple[int, str], int]] = []
        doomed: list[str] = []
        for key in keys:
            row = rows.get(key)
            if row is None:  # somebody has locked it
                later.append(((0, key), tx.now + BUSY_AGAIN_S))
                done.reasons["in use just now"] += 1
                continue
            facts = BlobFacts(
                row.state == LIVE, key in used, row.unreferenced_since, row.lease_until
            )
            verdict = blob_verdict(facts, now=tx.now, lease_s=tx.terms.lease_s)
            done.reasons[verdict.reason] += 1
            if verdict.again_at is not None:
                later.append(((0, key), verdict.again_at))
                continue
            finished.append((0, key))
            if verdict.remove:
                doomed.append(key)
                done.bytes += row.size
        _mark(tx, rows, used)
        doom(tx, [rows[key] for key in doomed])
        gone = [key for key, row in rows.items() if row.state == DOOMED and key not in used]
        _leave(tx, gone)
        done.removed = len(doomed)
        _settle(tx, "blob", finished, later)
        _count(tx, done, "blobs")
        return done

    @writes
    def postpone(self, tx: Transaction, kind: str) -> None:
        """Put off the entry that is due first, because looking at it failed."""
        first = tx.connection.execute(
            select(gc_queue.c.repository_id, gc_queue.c.key, gc_queue.c.tries)
            .where(gc_queue.c.kind == kind, gc_queue.c.due_at <= tx.now)
            .order_by(gc_queue.c.due_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).first()
        if first is None:
            return
        wait = min(BUSY_AGAIN_S << min(first.tries, 20), _MOST_BACK_OFF_S)
        tx.connection.execute(
            update(gc_queue)
            .where(
                gc_queue.c.kind == kind,
                gc_queue.c.repository_id == first.repository_id,
                gc_queue.c.key == first.key,
            )
            .values(due_at=tx.now + wait, tries=first.tries + 1)
        )

    @reads
    def objects_to_sweep(
        self, tx: Transaction, *, delay_s: int, limit: int = 1000
    ) -> tuple[DoomedObject, ...]:
        """Objects doomed long enough ago that no request reads them, oldest first."""
        query = (
            select(doomed_object.c.store_key, doomed_object.c.size)
            .where(doomed_object.c.doomed_at <= tx.now - delay_s)
            .order_by(doomed_object.c.doomed_at)
            .limit(limit)
        )
        return tuple(DoomedObject(*row) for row in tx.connection.execute(query))

    @reads
    def live_keys(self, tx: Transaction, keys: Sequence[str]) -> frozenset[str]:
        """Which of these store keys a live blob has."""
        return live_keys(tx, keys)

    @writes
    def swept(self, tx: Transaction, objects: Sequence[DoomedObject]) -> int:
        """Forget objects whose bytes are removed; how many bytes they were that nobody counted."""
        freed = removed = 0
        for batch in batches(objects):
            gone = tx.connection.execute(
                delete(doomed_object)
                .where(doomed_object.c.store_key.in_([each.store_key for each in batch]))
                .returning(doomed_object.c.size)
            )
            for size in gone.scalars():
                removed += 1
                freed += size
        add_to_counters(tx, {"objects swept": removed, "bytes freed": freed})
        return freed

    @writes
    def prune_events(self, tx: Transaction, *, older_than_s: int, limit: int = 1000) -> int:
        """Forget the oldest events of the outbox; those that nobody has read yet stay."""
        from registry.metadata.tables_search import outbox_position

        read = tx.connection.execute(select(outbox_position.c.position)).scalars().all()
        return _prune_oldest(tx, event, tx.now - older_than_s, limit, min(read, default=None))

    @writes
    def prune_history(self, tx: Transaction, *, limit: int = 1000) -> int:
        """Forget the oldest changes of tags, a day after history stops telling of them."""
        if not tx.terms.history_s:
            return 0
        older_than_s = tx.terms.history_s + 24 * 3600
        from registry.metadata.tables import tag_history

        return _prune_oldest(tx, tag_history, tx.now - older_than_s, limit, None)


def doom(tx: Transaction, rows: Sequence[Row[Any]]) -> None:
    """From the commit on these blobs, locked and unused, are not there; their bytes are swept."""
    if not rows:
        return
    digests = [row.digest for row in rows]
    tx.connection.execute(
        DOOM_OBJECT(tx),
        [{"store_key": row.store_key, "size": row.size, "doomed_at": tx.now} for row in rows],
    )
    _leave(tx, digests)
    tx.connection.execute(
        update(blob)
        .where(blob.c.digest.in_(digests), blob.c.state == LIVE)
        .values(state=DOOMED, generation=blob.c.generation + 1)
    )


def live_keys(tx: Transaction, keys: Sequence[str]) -> frozenset[str]:
    if not keys:
        return frozenset()
    # By digest where the key tells one: there is no index on keys.
    digests = {digest for key in keys if (digest := digest_in(key)) is not None}
    by_digest = select(blob.c.store_key).where(blob.c.digest.in_(digests), blob.c.state == LIVE)
    found = set(tx.connection.execute(by_digest).scalars()) if digests else set()
    uploaded = [key for key in keys if digest_in(key) is None]
    if uploaded:
        found |= set(
            tx.connection.execute(
                select(blob.c.store_key).where(
                    blob.c.store_key.in_(uploaded),
                    text("store_key LIKE 'blobs/upload/%'"),
                    blob.c.state == LIVE,
                )
            ).scalars()
        )
    return frozenset(found & set(keys))


def digest_in(key: str) -> str | None:
    """The digest that a store key is made of; None if it is named by an upload."""
    parts = key.split("/")
    if len(parts) != 4 or parts[1] == "upload":
        return None
    return f"{parts[1]}:{parts[3].partition('.')[0]}"


def add_to_counters(tx: Transaction, counts: dict[str, int]) -> None:
    rows = [{"name": name, "value": count} for name, count in sorted(counts.items()) if count]
    if rows:
        tx.connection.execute(COUNT(tx), rows)


def _blobs_of(tx: Transaction, ids: Sequence[int]) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in tx.connection.execute(_BLOBS_OF, {"ids": list(ids)}) if ids else ():
        found.setdefault(row.manifest_id, set()).add(row.digest)
    return found


def _lock_blobs(tx: Transaction, digests: Iterable[str]) -> list[Any]:
    """Rows of those that nobody holds just now; ours until the commit."""
    wanted = sorted(digests)
    found: list[Any] = []
    for start in range(0, len(wanted), 500):
        found += tx.connection.execute(_LOCK_BLOBS, {"digests": wanted[start : start + 500]}).all()
    return found


def _remove_manifests(tx: Transaction, ids: list[int], blobs: set[str]) -> None:
    """Remove manifests that are locked, with their blobs, and say so as if somebody had."""
    if not ids:
        return
    names = tx.connection.execute(
        select(repository.c.name, manifest.c.digest, repository.c.id, manifest.c.size)
        .join(repository, repository.c.id == manifest.c.repository_id)
        .where(manifest.c.id.in_(ids))
    ).all()
    children = tx.connection.execute(_CHILDREN, {"ids": ids}).all()
    referrers = tx.connection.execute(_REFERRERS, {"ids": ids}).all()
    tx.connection.execute(_DELETE_MANIFESTS, {"ids": ids})
    for _, _, repository_id, size in names:
        charge(tx, repository_id, bytes=-size)
    release_blobs(tx, sorted(blobs), event="manifest collected")
    # These had their time while the one that kept them had its: they are looked at right away.
    for rows, why in ((children, "index collected"), (referrers, "subject collected")):
        by_repository: dict[int, set[str]] = {}
        for repository_id, digest in rows:
            by_repository.setdefault(repository_id, set()).add(digest)
        for repository_id, digests in sorted(by_repository.items()):
            review_manifests(tx, repository_id, digests, event=why, due_at=tx.now)
    tx.connection.execute(
        insert(event),
        [
            {
                "kind": events.MANIFEST_REMOVED,
                "repository": name,
                "digest": digest,
                "tag": "",
                "actor": COLLECTOR,
                "at": tx.now,
            }
            for name, digest, *_ in names
        ],
    )


def _mark(tx: Transaction, rows: dict[str, Row[Any]], used: set[str]) -> None:
    """Make `unreferenced_since` say what is so, where it did not."""
    wrong = [key for key, row in rows.items() if (row.unreferenced_since is None) != (key in used)]
    if wrong:
        tx.connection.execute(
            update(blob)
            .where(blob.c.digest.in_(wrong))
            .values(unreferenced_since=case((blob.c.digest.in_([*used, ""]), None), else_=tx.now))
        )


def _leave(tx: Transaction, digests: Sequence[str]) -> None:
    """End what is left of memberships of blobs that are gone and that no manifest uses."""
    if digests:
        release_memberships(tx, digests)
        tx.connection.execute(delete(repository_blob).where(repository_blob.c.digest.in_(digests)))
        tx.connection.execute(delete(lost_blob).where(lost_blob.c.digest.in_(digests)))


def _settle(
    tx: Transaction,
    kind: str,
    finished: Sequence[tuple[int, str]],
    later: Sequence[tuple[tuple[int, str], int]],
) -> None:
    if finished:
        tx.connection.execute(
            _DONE, [{"its_kind": kind, "its_repository": r, "its_key": k} for r, k in finished]
        )
    if later:
        tx.connection.execute(
            _LATER,
            [
                {"its_kind": kind, "its_repository": r, "its_key": k, "again_at": at}
                for (r, k), at in later
            ],
        )


def _count(tx: Transaction, done: Reviewed, noun: str) -> None:
    counts = {f"{noun} collected": done.removed, f"{noun} reviewed": done.looked}
    counts.update({f"event: {name}": count for name, count in done.events.items()})
    add_to_counters(tx, counts)


def _prune_oldest(tx: Transaction, table: Table, before: int, limit: int, up_to: int | None) -> int:
    """Ids grow with time, so what is old is in front; one piece of it goes."""
    oldest = select(table.c.id, table.c.at).order_by(table.c.id).limit(limit)
    if up_to is not None:
        oldest = oldest.where(table.c.id <= up_to)
    ids: list[int] = []
    for id, at in tx.connection.execute(oldest):
        if at >= before:
            break
        ids.append(id)
    if ids:
        tx.connection.execute(delete(table).where(table.c.id <= ids[-1], table.c.id >= ids[0]))
    return len(ids)
