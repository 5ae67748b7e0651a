"""Devices of refresh tokens, and since when a signing key is retired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("refresh_token", sa.Column("user_agent", _text()))
    op.add_column("refresh_token", sa.Column("last_used_at", sa.BigInteger()))
    op.add_column("signing_key", sa.Column("retired_at", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("signing_key", "retired_at")
    op.drop_column("refresh_token", "last_used_at")
    op.drop_column("refresh_token", "user_agent")
