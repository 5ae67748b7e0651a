"""What the collector does beside the queue: tasks of one process at a time, audit, scrub, pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from sqlalchemy import ColumnElement, delete, exists, insert, select, update

from registry.metadata.base import DOOMED, LIVE
from registry.metadata.charges import release_memberships
from registry.metadata.collecting import DOOM_OBJECT, add_to_counters, digest_in, live_keys
from registry.metadata.collection import review_blobs
from registry.metadata.schema import schema
from registry.metadata.tables import (
    blob,
    doomed_object,
    manifest_blob,
    repository,
    repository_blob,
    upload,
)
from registry.metadata.tables_collection import gc_task, lost_blob
from registry.metadata.transaction import (
    Operations,
    Transaction,
    Upserting,
    bound,
    reads,
    writes,
)

#: Paused for ever, until somebody resumes.
FOR_EVER = 1 << 50
_PAUSE = "pause"

_TASK = Upserting(
    gc_task,
    lambda insert: insert.values(
        **bound(gc_task, "name", "holder", "held_until", "due_at", "cursor")
    ).on_conflict_do_nothing(),
)

_UNKNOWN = Upserting(
    blob,
    lambda insert: insert.values(
        **bound(
            blob, "digest", "size", "state", "generation", "store_key", "created_at",
            "unreferenced_since", "lease_until",
        )
    ).on_conflict_do_nothing(),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Bytes that a store has, as its listing names them."""

    store_key: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A live blob as the audit and the scrub see it."""

    digest: str
    size: int
    store_key: str
    generation: int
    verified_at: int | None


@dataclass(frozen=True, slots=True)
class Pause:
    by: str
    #: Seconds since 1970; FOR_EVER until somebody resumes.
    until: int


class SqlUpkeep(Operations):
    """Implements `registry.metadata.base.Upkeep`."""

    @writes
    def claim(
        self, tx: Transaction, task: str, holder: str, *, for_s: int, first_in_s: int = 0
    ) -> str | None:
        """Be the one who does a task, if it is due and nobody else is: how far it is, or None.

        One that nobody has ever asked for is due in `first_in_s`.
        """
        new = {"name": task, "holder": "", "held_until": 0, "cursor": ""}
        tx.connection.execute(_TASK(tx), {**new, "due_at": tx.now + first_in_s})
        row = tx.connection.execute(
            select(gc_task).where(gc_task.c.name == task).with_for_update()
        ).one()
        if row.due_at > tx.now or (row.holder != holder and row.held_until > tx.now):
            return None
        self._change(tx, task, holder=holder, held_until=tx.now + for_s)
        return str(row.cursor)

    @writes
    def progress(self, tx: Transaction, task: str, holder: str, cursor: str, *, for_s: int) -> bool:
        """Note how far a claimed task is; False if somebody else has it by now."""
        row = tx.connection.execute(
            select(gc_task).where(gc_task.c.name == task).with_for_update()
        ).first()
        if row is None or row.holder != holder:
            return False
        self._change(tx, task, cursor=cursor, held_until=tx.now + for_s)
        return True

    @writes
    def finish(self, tx: Transaction, task: str, holder: str, *, again_in_s: int) -> None:
        """A claimed task is done, and due again after some time."""
        tx.connection.execute(
            update(gc_task)
            .where(gc_task.c.name == task, gc_task.c.holder == holder)
            .values(holder="", held_until=0, cursor="", due_at=tx.now + again_in_s)
        )

    @writes
    def pause(self, tx: Transaction, *, by: str, until: int = FOR_EVER) -> None:
        """Let no replica collect anything until then."""
        row = {"name": _PAUSE, "holder": by, "held_until": until, "due_at": 0, "cursor": ""}
        tx.connection.execute(_TASK(tx), row)
        self._change(tx, _PAUSE, holder=by, held_until=until)

    @writes
    def resume(self, tx: Transaction) -> None:
        self._change(tx, _PAUSE, holder="", held_until=0)

    @reads
    def paused(self, tx: Transaction) -> Pause | None:
        row = tx.connection.execute(select(gc_task).where(gc_task.c.name == _PAUSE)).first()
        if row is None or row.held_until <= tx.now:
            return None
        return Pause(row.holder, row.held_until)

    def _change(self, tx: Transaction, task: str, **values: int | str) -> None:
        tx.connection.execute(update(gc_task).where(gc_task.c.name == task).values(**values))

    @writes
    def doom_unknown(self, tx: Transaction, objects: Sequence[StoredObject]) -> int:
        """Have bytes swept that no live row names; how many there are. They are old already.

        The digest's generation is moved beyond theirs, so that no late request can still make
        these very bytes a blob.
        """
        keys = {each.store_key: each for each in objects}
        uploads = {key.rpartition("/")[2] for key in keys if digest_in(key) is None}
        # Whoever still has the upload may finish it.
        running = (
            set(
                tx.connection.execute(select(upload.c.id).where(upload.c.id.in_(uploads))).scalars()
            )
            if uploads
            else set[str]()
        )
        digests = sorted({digest for key in keys if (digest := digest_in(key)) is not None})
        rows = {
            row.digest: row
            for row in tx.connection.execute(
                select(blob.c.digest, blob.c.state, blob.c.generation)
                .where(blob.c.digest.in_(digests))
                .order_by(blob.c.digest)
                .with_for_update()
            )
        }
        # After the locks: a push may have made one of them a blob just now.
        live = live_keys(tx, list(keys))
        waiting = set(
            tx.connection.execute(
                select(doomed_object.c.store_key).where(doomed_object.c.store_key.in_(list(keys)))
            ).scalars()
        )
        doomed = 0
        for key, each in sorted(keys.items()):
            if key in live or key in waiting or key.rpartition("/")[2] in running:
                continue
            digest = digest_in(key)
            if digest is not None:
                generation = _generation_in(key)
                row = rows.get(digest)
                if row is None:
                    _remember_generation(tx, digest, each, generation + 1)
                elif row.state == DOOMED and row.generation <= generation:
                    tx.connection.execute(
                        update(blob)
                        .where(blob.c.digest == digest, blob.c.state == DOOMED)
                        .values(generation=generation + 1)
                    )
            tx.connection.execute(
                DOOM_OBJECT(tx), {"store_key": key, "size": each.size, "doomed_at": tx.now}
            )
            doomed += 1
        add_to_counters(tx, {"unknown objects found": doomed})
        return doomed

    @reads
    def live_rows(self, tx: Transaction, *, after: str, limit: int) -> tuple[StoredRow, ...]:
        """Live blobs by digest, for who compares them with their bytes. `limit` rows are looked
        at."""
        query = (
            select(
                blob.c.digest, blob.c.size, blob.c.store_key, blob.c.generation, blob.c.verified_at
            )
            .where(blob.c.digest > after, blob.c.state == LIVE)
            .order_by(blob.c.digest)
            .limit(limit)
        )
        return tuple(StoredRow(*row) for row in tx.connection.execute(query))

    @writes
    def verified(self, tx: Transaction, digests: Sequence[str]) -> None:
        """These blobs' bytes were read and are right."""
        tx.connection.execute(
            update(blob)
            .where(blob.c.digest.in_(list(digests)), blob.c.state == LIVE)
            .values(verified_at=tx.now)
        )

    @writes
    def lose(self, tx: Transaction, row: StoredRow, *, reason: str) -> bool:
        """A blob's bytes are `missing` or `rotten`: it is not there any more, and the next push
        of it counts. False if it changed meanwhile."""
        locked = tx.connection.execute(
            select(blob.c.digest)
            .where(
                blob.c.digest == row.digest,
                blob.c.state == LIVE,
                blob.c.generation == row.generation,
                blob.c.store_key == row.store_key,
            )
            .with_for_update()
        ).first()
        if locked is None:
            return False
        used = tx.connection.execute(
            select(1).where(manifest_blob.c.digest == row.digest).limit(1)
        ).first()
        if not used:
            release_memberships(tx, [row.digest])
            tx.connection.execute(
                delete(repository_blob).where(repository_blob.c.digest == row.digest)
            )
        else:
            tx.connection.execute(delete(lost_blob).where(lost_blob.c.digest == row.digest))
            tx.connection.execute(
                insert(lost_blob).values(digest=row.digest, reason=reason, found_at=tx.now)
            )
        tx.connection.execute(
            update(blob)
            .where(blob.c.digest == row.digest)
            .values(state=DOOMED, generation=row.generation + 1)
        )
        if reason != "missing":  # what is not there needs no sweep, and might come back
            tx.connection.execute(
                DOOM_OBJECT(tx),
                {"store_key": row.store_key, "size": row.size, "doomed_at": tx.now},
            )
        add_to_counters(tx, {f"blobs found {reason}": 1})
        return True

    @writes
    def review_old(self, tx: Transaction, *, after: str, limit: int) -> str:
        """Enter live blobs that no manifest uses and that nothing will look at, a page of digests
        at a time; where the next page begins, empty at the end."""
        rows = tx.connection.execute(
            select(
                blob.c.digest,
                exists().where(manifest_blob.c.digest == blob.c.digest).label("used"),
            )
            .where(blob.c.digest > after, blob.c.state == LIVE)
            .order_by(blob.c.digest)
            .limit(limit)
        ).all()
        loose = [row.digest for row in rows if not row.used]
        review_blobs(tx, loose, due_at=tx.now, event="audit")
        return rows[-1].digest if len(rows) == limit else ""

    @writes
    def prune_repositories(
        self, tx: Transaction, *, after: int, older_than_s: int, limit: int = 1000
    ) -> tuple[int, int]:
        """Remove repositories that hold nothing, a page of ids at a time: how many, and where the
        next page begins (0 at the end)."""
        rows = tx.connection.execute(
            select(repository.c.id, repository.c.created_at, *_holdings())
            .where(repository.c.id > after)
            .order_by(repository.c.id)
            .limit(limit)
        ).all()
        before = tx.now - older_than_s
        empty = [row.id for row in rows if row.created_at <= before and not any(row[2:])]
        # Whoever begins something there holds the row; after the lock nobody can, and it is asked
        # again.
        mine = select(repository.c.id).where(repository.c.id.in_(empty))
        mine = mine.order_by(repository.c.id).with_for_update(skip_locked=True)
        locked = list(tx.connection.execute(mine).scalars()) if empty else []
        removed = 0
        for row in tx.connection.execute(
            select(repository.c.id, *_holdings()).where(repository.c.id.in_(locked))
        ).all():
            if not any(row[1:]):
                tx.connection.execute(delete(repository).where(repository.c.id == row.id))
                removed += 1
        add_to_counters(tx, {"repositories pruned": removed})
        return removed, rows[-1].id if len(rows) == limit else 0


@cache
def _holdings() -> tuple[ColumnElement[bool], ...]:
    """Whether a repository has rows in each of the tables that belong to repositories; history
    counts, as what it tells must stay true."""
    return tuple(
        exists().where(table.c.repository_id == repository.c.id).label(f"has_{table.name}")
        for table in schema.sorted_tables
        if any(key.column is repository.c.id for key in table.foreign_keys)
    )


def _generation_in(key: str) -> int:
    return int(key.rpartition("/")[2].partition(".")[2] or 0)


def _remember_generation(tx: Transaction, digest: str, found: StoredObject, next: int) -> None:
    tx.connection.execute(
        _UNKNOWN(tx),
        {
            "digest": digest,
            "size": found.size,
            "state": DOOMED,
            "generation": next,
            "store_key": found.store_key,
            "created_at": tx.now,
            "unreferenced_since": tx.now,
            "lease_until": tx.now,
        },
    )
