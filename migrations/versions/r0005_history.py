"""Tables of history: change sets, the trash and retention rules."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _texts(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, _text(), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def upgrade() -> None:
    op.add_column("tag_history", sa.Column("change_id", _id()))
    op.create_index(
        "ix_tag_history_change_id",
        "tag_history",
        ["change_id"],
        sqlite_where=sa.text("change_id IS NOT NULL"),
        postgresql_where=sa.text("change_id IS NOT NULL"),
    )
    op.create_table(
        "change_set",
        sa.Column("id", _id(), nullable=False),
        *_texts("kind", "note", "actor"),
        *_numbers("at"),
        sa.PrimaryKeyConstraint("id", name="pk_change_set"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "trash",
        sa.Column("id", _id(), nullable=False),
        sa.Column("repository_id", _id(), nullable=False),
        *_texts("digest", "media_type"),
        sa.Column("subject_digest", _text()),
        *_texts("artifact_type", "config_media_type", "annotations", "uses", "children"),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        *_texts("pushed_by"),
        *_numbers("pushed_at"),
        sa.Column("change_id", _id(), nullable=False),
        *_texts("deleted_by"),
        *_numbers("deleted_at", "expires_at"),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_trash_repository_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_trash"),
        sa.UniqueConstraint("repository_id", "digest", name="uq_trash_repository_id_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_trash_expires_at", "trash", ["expires_at"])
    op.create_index("ix_trash_change_id", "trash", ["change_id"])
    op.create_table(
        "retention_rule",
        sa.Column("id", _id(), nullable=False),
        *_texts("repositories", "tags"),
        sa.Column("keep_last", sa.Integer(), nullable=False),
        *_numbers("younger_s", "pulled_s"),
        *_numbers("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_retention_rule"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "retention_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        *_texts("acknowledged", "acknowledged_by"),
        *_numbers("acknowledged_at", "lease_until", "ran_at"),
        sa.Column("deleted", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_retention_state"),
    )


def downgrade() -> None:
    for table in ("retention_state", "retention_rule", "trash", "change_set"):
        op.drop_table(table)
    op.drop_index("ix_tag_history_change_id", "tag_history")
    op.drop_column("tag_history", "change_id")
