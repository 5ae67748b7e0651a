"""Devices of refresh tokens, since when a signing key is retired; logins that begin elsewhere."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _texts(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, _text(), nullable=False) for name in names]


def _account_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["account_id"], ["account.id"], name=f"fk_{table}_account_id", ondelete="CASCADE"
    )


def upgrade() -> None:
    op.add_column("refresh_token", sa.Column("user_agent", _text()))
    op.add_column("refresh_token", sa.Column("last_used_at", sa.BigInteger()))
    op.add_column("signing_key", sa.Column("retired_at", sa.BigInteger()))
    op.create_table(
        "trust_rule",
        sa.Column("id", _id(), nullable=False),
        sa.Column("account_id", _id(), nullable=False),
        *_texts("issuer", "audience", "claims"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        _account_key("trust_rule"),
        sa.PrimaryKeyConstraint("id", name="pk_trust_rule"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_trust_rule_account_id", "trust_rule", ["account_id"])
    op.create_index("ix_trust_rule_issuer", "trust_rule", ["issuer"])
    op.create_table(
        "device_login",
        *_texts("device_hash", "user_hash", "client", "address", "state"),
        sa.Column("account_id", _id()),
        sa.Column("interval_s", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("polled_at", sa.BigInteger()),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        _account_key("device_login"),
        sa.PrimaryKeyConstraint("device_hash", name="pk_device_login"),
        sa.UniqueConstraint("user_hash", name="uq_device_login_user_hash"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_device_login_account_id", "device_login", ["account_id"])
    op.create_index("ix_device_login_expires_at", "device_login", ["expires_at"])


def downgrade() -> None:
    op.drop_table("device_login")
    op.drop_table("trust_rule")
    op.drop_column("signing_key", "retired_at")
    op.drop_column("refresh_token", "last_used_at")
    op.drop_column("refresh_token", "user_agent")
