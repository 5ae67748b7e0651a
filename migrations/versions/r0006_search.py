"""Tables of search. What is there already is indexed by a rebuild, which the row asks for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "search_repository",
        sa.Column("repository_id", _id(), autoincrement=False, nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("text", _text(), nullable=False),
        sa.Column("description", _text(), nullable=False),
        sa.Column("described_by", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", name="pk_search_repository"),
    )
    op.create_index("ix_search_repository_name", "search_repository", ["name"])

    op.create_table(
        "search_manifest",
        sa.Column("repository_id", _id(), autoincrement=False, nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("manifest_id", sa.BigInteger(), nullable=False),
        sa.Column("terms", _text(), nullable=False),
        sa.Column("description", _text(), nullable=False),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_search_manifest"),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "search_term",
        sa.Column("kind", _text(), nullable=False),
        sa.Column("value", _text(), nullable=False),
        sa.Column("repository_id", _id(), autoincrement=False, nullable=False),
        sa.Column("manifest_id", _id(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint(
            "kind", "value", "repository_id", "manifest_id", name="pk_search_term"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_search_term_repository_id_kind", "search_term", ["repository_id", "kind"])

    position = op.create_table(
        "outbox_position",
        sa.Column("consumer", _text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("holder", _text(), nullable=False),
        sa.Column("held_until", sa.BigInteger(), nullable=False),
        sa.Column("rebuilding", _text(), nullable=False),
        sa.Column("rebuilt", _text(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", name="pk_outbox_position"),
        sqlite_with_rowid=False,
    )
    op.bulk_insert(
        position,
        [
            {
                "consumer": "search",
                "position": 0,
                "holder": "",
                "held_until": 0,
                "rebuilding": "manifests",
                "rebuilt": "",
            }
        ],
    )


def downgrade() -> None:
    for table in ("outbox_position", "search_term", "search_manifest", "search_repository"):
        op.drop_table(table)
