"""Tables of accounts beside `account` itself: groups, access tokens, policy.

account ─┬─ access_token
         └─ group_member ── account_group
policy_rule, immutable_rule     by name: patterns, and subjects that end with their account
access_version                  one row, counted up by every change of all this
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Table,
    UniqueConstraint,
)

from registry.metadata.columns import id_type, schema, text_type, time_column

account_group = Table(
    "account_group",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("name", text_type(), nullable=False),
    time_column("created_at"),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

group_member = Table(
    "group_member",
    schema,
    Column(
        "group_id",
        id_type(),
        ForeignKey("account_group.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column(
        "account_id",
        id_type(),
        ForeignKey("account.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Index(None, "account_id"),
    sqlite_with_rowid=False,
)

access_token = Table(
    "access_token",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("account_id", id_type(), ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("label", text_type(), nullable=False),
    Column("token_hash", text_type(), nullable=False),
    # Separated by blanks; empty: no limit.
    Column("actions", text_type(), nullable=False),
    Column("repositories", text_type(), nullable=False),
    time_column("created_at"),
    time_column("expires_at", nullable=True),
    time_column("last_used_at", nullable=True),
    UniqueConstraint("token_hash"),
    Index(None, "account_id"),
    sqlite_autoincrement=True,
)

policy_rule = Table(
    "policy_rule",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("repositories", text_type(), nullable=False),
    Column("subject_kind", text_type(), nullable=False),
    Column("subject_name", text_type(), nullable=False),
    Column("actions", text_type(), nullable=False),
    Column("effect", text_type(), nullable=False),
    time_column("created_at"),
    CheckConstraint("effect IN ('allow', 'deny')", name="ck_policy_rule_effect"),
    sqlite_autoincrement=True,
)

immutable_rule = Table(
    "immutable_rule",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("repositories", text_type(), nullable=False),
    Column("tags", text_type(), nullable=False),
    # Whether retention may remove such tags.
    Column("may_expire", Boolean, nullable=False),
    time_column("created_at"),
    sqlite_autoincrement=True,
)

access_version = Table(
    "access_version",
    schema,
    Column("id", id_type(), primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
