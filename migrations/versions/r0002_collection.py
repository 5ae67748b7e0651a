"""Tables of collection, and indexes along which its queue and the audit are read."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "gc_task",
        sa.Column("name", _text(), nullable=False),
        sa.Column("holder", _text(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("cursor", _text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_gc_task"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "gc_counter",
        sa.Column("name", _text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_gc_counter"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lost_blob",
        sa.Column("digest", _text(), nullable=False),
        sa.Column("reason", _text(), nullable=False),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("reason IN ('missing', 'rotten')", name="ck_lost_blob_reason"),
        sa.ForeignKeyConstraint(["digest"], ["blob.digest"], name="fk_lost_blob_digest"),
        sa.PrimaryKeyConstraint("digest", name="pk_lost_blob"),
        sqlite_with_rowid=False,
    )
    op.drop_index("ix_gc_queue_due_at", "gc_queue")
    op.create_index("ix_gc_queue_kind_due_at", "gc_queue", ["kind", "due_at"])
    uploaded = sa.text("store_key LIKE 'blobs/upload/%'")
    op.create_index(
        "ix_blob_uploaded_key",
        "blob",
        ["store_key"],
        sqlite_where=uploaded,
        postgresql_where=uploaded,
    )


def downgrade() -> None:
    op.drop_index("ix_blob_uploaded_key", "blob")
    op.drop_index("ix_gc_queue_kind_due_at", "gc_queue")
    op.create_index("ix_gc_queue_due_at", "gc_queue", ["due_at"])
    for table in ("lost_blob", "gc_counter", "gc_task"):
        op.drop_table(table)
