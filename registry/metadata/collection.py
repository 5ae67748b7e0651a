"""Entries for the collector: every change that may end a use says so, in the same transaction.

Nothing is found by scanning. An entry names what to look at and when, and why; the collector asks
then whether it is really unused. A later event for the same thing moves the entry into the future.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import case, exists, select, update

from registry.metadata.tables import blob, gc_queue, manifest_blob
from registry.metadata.transaction import Transaction, batches, insert


def review_blobs(tx: Transaction, digests: Iterable[str], *, due_at: int, event: str) -> None:
    _review(tx, "blob", 0, digests, due_at=due_at, event=event)


def review_manifests(
    tx: Transaction, repository_id: int, digests: Iterable[str], *, event: str
) -> None:
    due_at = tx.now + tx.terms.untagged_s
    _review(tx, "manifest", repository_id, digests, due_at=due_at, event=event)


def lock_blobs(tx: Transaction, digests: Sequence[str]) -> None:
    """Wait for everybody who uses these blobs just now, and make others wait.

    Every transaction locks blobs first and in this order, so that two do not wait for each other.
    """
    for batch in batches(sorted(digests)):
        tx.connection.execute(
            select(blob.c.digest)
            .where(blob.c.digest.in_(batch))
            .order_by(blob.c.digest)
            .with_for_update(key_share=True)
        )


def release_blobs(tx: Transaction, digests: Sequence[str], *, event: str) -> None:
    """Some uses of these blobs ended: those without any left are unreferenced from now on.

    The caller has locked them before it looked at anything else.
    """
    for batch in batches(sorted(digests)):
        released = tx.connection.execute(
            update(blob)
            .where(
                blob.c.digest.in_(batch),
                ~exists(select(1).where(manifest_blob.c.digest == blob.c.digest)),
            )
            .values(
                unreferenced_since=case(
                    (blob.c.unreferenced_since.is_(None), tx.now),
                    else_=blob.c.unreferenced_since,
                )
            )
            .returning(blob.c.digest)
        )
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
            "tries": 0,
        }
        for key in sorted(set(keys))
    ]
    if not rows:
        return
    statement = insert(tx, gc_queue)
    tx.connection.execute(
        statement.on_conflict_do_update(
            index_elements=[gc_queue.c.kind, gc_queue.c.repository_id, gc_queue.c.key],
            set_={
                "due_at": statement.excluded.due_at,
                "event": statement.excluded.event,
                "tries": 0,
            },
        ),
        rows,
    )
