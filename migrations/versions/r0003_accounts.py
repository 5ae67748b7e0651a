"""Tables of accounts: robots and plain users, groups, access tokens, policy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROLES = "role IN ('admin', 'writer', 'reader', 'user')"
_KINDS = "kind IN ('user', 'robot')"


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _text() -> sa.types.TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _texts(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, _text(), nullable=False) for name in names]


def _numbers(*names: str) -> list[sa.Column[object]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _kinds_on_sqlite() -> None:
    # SQLite cannot change a CHECK, and dropping a table deletes what refers to its rows: the rows
    # of both tables are set aside meanwhile. The counter goes on, so that no id is given twice.
    op.execute("CREATE TEMPORARY TABLE kept_account AS SELECT * FROM account")
    op.execute("CREATE TEMPORARY TABLE kept_refresh AS SELECT * FROM refresh_token")
    op.execute(
        "CREATE TEMPORARY TABLE kept_sequence AS "
        "SELECT seq FROM sqlite_sequence WHERE name = 'account'"
    )
    op.drop_table("account")
    op.create_table(
        "account",
        sa.Column("id", _id(), nullable=False),
        *_texts("name", "password_hash", "role"),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        *_numbers("created_at", "password_changed_at"),
        *_texts("kind"),
        sa.CheckConstraint(_ROLES, name="ck_account_role"),
        sa.CheckConstraint(_KINDS, name="ck_account_kind"),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("name", name="uq_account_name"),
        sqlite_autoincrement=True,
    )
    columns = "id, name, password_hash, role, disabled, created_at, password_changed_at"
    op.execute(f"INSERT INTO account ({columns}, kind) SELECT {columns}, 'user' FROM kept_account")
    op.execute("INSERT INTO refresh_token SELECT * FROM kept_refresh")
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'account'")
    op.execute("INSERT INTO sqlite_sequence (name, seq) SELECT 'account', seq FROM kept_sequence")
    for name in ("kept_account", "kept_refresh", "kept_sequence"):
        op.execute(f"DROP TABLE {name}")


def _kinds_on_postgresql() -> None:
    op.add_column("account", sa.Column("kind", _text(), nullable=False, server_default="user"))
    op.alter_column("account", "kind", server_default=None)
    op.execute("ALTER TABLE account DROP CONSTRAINT ck_account_role")
    op.execute(f"ALTER TABLE account ADD CONSTRAINT ck_account_role CHECK ({_ROLES})")
    op.execute(f"ALTER TABLE account ADD CONSTRAINT ck_account_kind CHECK ({_KINDS})")


def _account_key(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["account_id"], ["account.id"], name=f"fk_{table}_account_id", ondelete="CASCADE"
    )


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _kinds_on_sqlite()
    else:
        _kinds_on_postgresql()
    op.create_table(
        "account_group",
        sa.Column("id", _id(), nullable=False),
        *_texts("name"),
        *_numbers("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_account_group"),
        sa.UniqueConstraint("name", name="uq_account_group_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "group_member",
        sa.Column("group_id", _id(), autoincrement=False, nullable=False),
        sa.Column("account_id", _id(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"],
            ["account_group.id"],
            name="fk_group_member_group_id",
            ondelete="CASCADE",
        ),
        _account_key("group_member"),
        sa.PrimaryKeyConstraint("group_id", "account_id", name="pk_group_member"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_group_member_account_id", "group_member", ["account_id"])
    op.create_table(
        "access_token",
        sa.Column("id", _id(), nullable=False),
        sa.Column("account_id", _id(), nullable=False),
        *_texts("label", "token_hash", "actions", "repositories"),
        *_numbers("created_at"),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("last_used_at", sa.BigInteger()),
        _account_key("access_token"),
        sa.PrimaryKeyConstraint("id", name="pk_access_token"),
        sa.UniqueConstraint("token_hash", name="uq_access_token_token_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_access_token_account_id", "access_token", ["account_id"])
    op.create_table(
        "policy_rule",
        sa.Column("id", _id(), nullable=False),
        *_texts("repositories", "subject_kind", "subject_name", "actions", "effect"),
        *_numbers("created_at"),
        sa.CheckConstraint("effect IN ('allow', 'deny')", name="ck_policy_rule_effect"),
        sa.PrimaryKeyConstraint("id", name="pk_policy_rule"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "immutable_rule",
        sa.Column("id", _id(), nullable=False),
        *_texts("repositories", "tags"),
        sa.Column("may_expire", sa.Boolean(), nullable=False),
        *_numbers("created_at"),
        sa.PrimaryKeyConstraint("id", name="pk_immutable_rule"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "access_version",
        sa.Column("id", _id(), autoincrement=False, nullable=False),
        *_numbers("version"),
        sa.PrimaryKeyConstraint("id", name="pk_access_version"),
    )
    op.execute("INSERT INTO access_version (id, version) VALUES (1, 1)")


def downgrade() -> None:
    for table in (
        "access_version",
        "immutable_rule",
        "policy_rule",
        "access_token",
        "group_member",
        "account_group",
    ):
        op.drop_table(table)
    op.execute("DELETE FROM account WHERE role = 'user'")
