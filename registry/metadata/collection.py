"""Entries for the collector: every change that may end a use says so, in the same transaction.

Nothing is found by scanning. An entry names what to look at and when, and why; the collector asks
then whether it is really unused. A later event for the same thing moves the entry into the future,
never nearer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import bindparam, case, exists, select, update

from registry.metadata.tables import blob, gc_queue, manifest_blob
from registry.metadata.transaction import Transaction, Upserting, batches, bound

# Where untagged manifests stay for ever, they are looked at again this often: it may be changed.
FOR_EVER_S = 30 * 24 * 3600

_LOCK = (
    select(blob.c.digest)
    .where(blob.c.digest.in_(bindparam("digests", expanding=True)))
    .order_by(blob.c.digest)
    .with_for_update(key_share=True)
)

_RELEASE = (
    update(blob)
    .where(
        blob.c.digest.in_(bindparam("digests", expanding=True)),
        ~exists(select(1).where(manifest_blob.c.digest == blob.c.digest)),
    )
    .values(
        unreferenced_since=case(
            (blob.c.unreferenced_since.is_(None), bindparam("now", type_=blob.c.created_at.type)),
            else_=blob.c.unreferenced_since,
        )
    )
    .returning(blob.c.digest)
)

_REVIEW = Upserting(
    gc_queue,
    lambda insert: insert.values(
        **bound(gc_queue, "kind", "repository_id", "key", "due_at", "event"), tries=0
    ).on_conflict_do_update(
        index_elements=[gc_queue.c.kind, gc_queue.c.repository_id, gc_queue.c.key],
        set_={
            "due_at": case(
                (insert.excluded.due_at > gc_queue.c.due_at, insert.excluded.due_at),
                else_=gc_queue.c.due_at,
            ),
            "event": insert.excluded.event,
            "tries": insert.excluded.tries,
        },
    ),
)


def review_blobs(tx: Transaction, digests: Iterable[str], *, due_at: int, event: str) -> None:
    _review(tx, "blob", 0, digests, due_at=due_at, event=event)


def review_manifests(
    tx: Transaction,
    repository_id: int,
    digests: Iterable[str],
    *,
    event: str,
    due_at: int | None = None,
) -> None:
    if due_at is None:
        due_at = tx.now + (tx.terms.untagged_s or FOR_EVER_S)
    _review(tx, "manifest", repository_id, digests, due_at=due_at, event=event)


def lock_blobs(tx: Transaction, digests: Sequence[str]) -> None:
    """Wait for everybody who uses these blobs just now, and make others wait.

    Every transaction locks blobs first and in this order, so that two do not wait for each other.
    """
    for batch in batches(sorted(digests)):
        tx.connection.execute(_LOCK, {"digests": batch})


def release_blobs(tx: Transaction, digests: Sequence[str], *, event: str) -> None:
    """Some uses of these blobs ended: those without any left are unreferenced from now on.

    The caller has locked them before it looked at anything else.
    """
    for batch in batches(sorted(digests)):
        released = tx.connection.execute(_RELEASE, {"digests": batch, "now": tx.now})
        review_blobs(tx, released.scalars().all(), due_at=tx.now + tx.terms.lease_s, event=event)


def _review(
    tx: Transaction,
    kind: str,
    repository_id: int,
    keys: Iterable[str],
    *,
    due_at: int,
    event: str,
) -> None:
    rows = [
        {
            "kind": kind,
            "repository_id": repository_id,
            "key": key,
            "due_at": due_at,
            "event": event,
        }
        for key in sorted(set(keys))
    ]
    if rows:
        tx.connection.execute(_REVIEW(tx), rows)
