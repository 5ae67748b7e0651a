"""The outbox: what happened, written with the change itself, for whoever tells others."""

from __future__ import annotations

from sqlalchemy import insert

from registry.metadata.base import Access
from registry.metadata.tables import event
from registry.metadata.transaction import Transaction, bound

MANIFEST_PUSHED = "manifest.pushed"
MANIFEST_REMOVED = "manifest.removed"
TAG_MOVED = "tag.moved"
TAG_REMOVED = "tag.removed"
BLOB_REMOVED = "blob.removed"


_RECORD = insert(event).values(**bound(event, "kind", "repository", "digest", "tag", "actor", "at"))


def record(tx: Transaction, kind: str, access: Access, *, digest: str = "", tag: str = "") -> None:
    tx.connection.execute(
        _RECORD,
        {
            "kind": kind,
            "repository": access.name.text,
            "digest": digest,
            "tag": tag,
            "actor": access.subject,
            "at": tx.now,
        },
    )
