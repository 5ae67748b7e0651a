"""What the collector remembers between its steps.

gc_task       something done by one process at a time: who does it, until when, how far it is
gc_counter    sums that outlive processes: bytes freed, and what was reviewed by event
lost_blob     blobs that manifests use and whose bytes are gone or rotten
"""

from __future__ import annotations

from sqlalchemy import BigInteger, CheckConstraint, Column, ForeignKey, Table

from registry.metadata.columns import schema, text_type, time_column

# The row "pause" has who paused collection as its holder, and until when in held_until.
gc_task = Table(
    "gc_task",
    schema,
    Column("name", text_type(), primary_key=True),
    Column("holder", text_type(), nullable=False),
    time_column("held_until"),
    time_column("due_at"),
    Column("cursor", text_type(), nullable=False),
    sqlite_with_rowid=False,
)

gc_counter = Table(
    "gc_counter",
    schema,
    Column("name", text_type(), primary_key=True),
    Column("value", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Such a blob is doomed but keeps its memberships, because manifests use them: it is 404 at once,
# and the next push brings it back everywhere under the next generation.
lost_blob = Table(
    "lost_blob",
    schema,
    Column("digest", text_type(), ForeignKey("blob.digest"), primary_key=True),
    Column("reason", text_type(), nullable=False),
    time_column("found_at"),
    CheckConstraint("reason IN ('missing', 'rotten')", name="ck_lost_blob_reason"),
    sqlite_with_rowid=False,
)
