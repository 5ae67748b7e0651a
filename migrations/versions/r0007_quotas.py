"""Quotas of namespaces. Which one a repository counts for, and what an upload reserved there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "quota",
        sa.Column("id", _id(), nullable=False),
        sa.Column("namespace", _text(), nullable=False),
        sa.Column("bytes_limit", sa.BigInteger(), nullable=True),
        sa.Column("tags_limit", sa.BigInteger(), nullable=True),
        sa.Column("bytes_used", sa.BigInteger(), nullable=False),
        sa.Column("bytes_reserved", sa.BigInteger(), nullable=False),
        sa.Column("tags_used", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_quota"),
        sa.UniqueConstraint("namespace", name="uq_quota_namespace"),
        sqlite_autoincrement=True,
    )
    op.add_column("repository", sa.Column("quota_id", _id(), nullable=True))
    op.add_column("upload", sa.Column("reserved", sa.BigInteger(), nullable=True))
    limited = sa.text("quota_id IS NOT NULL")
    op.create_index(
        "ix_repository_quota_id",
        "repository",
        ["quota_id"],
        sqlite_where=limited,
        postgresql_where=limited,
    )


def downgrade() -> None:
    op.drop_index("ix_repository_quota_id", "repository")
    op.drop_column("upload", "reserved")
    op.drop_column("repository", "quota_id")
    op.drop_table("quota")
