"""Tables of logins that begin elsewhere, or on another device.

account ─┬─ trust_rule      whose external tokens a robot logs in with
         └─ device_login    a program that waits for a person to confirm it
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Table, UniqueConstraint

from registry.metadata.columns import id_type, schema, text_type, time_column

trust_rule = Table(
    "trust_rule",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("account_id", id_type(), ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("issuer", text_type(), nullable=False),
    Column("audience", text_type(), nullable=False),
    # A JSON object: patterns by the name of the claim.
    Column("claims", text_type(), nullable=False),
    time_column("created_at"),
    Index(None, "account_id"),
    Index(None, "issuer"),
    sqlite_autoincrement=True,
)

device_login = Table(
    "device_login",
    schema,
    Column("device_hash", text_type(), primary_key=True),
    Column("user_hash", text_type(), nullable=False),
    # What asks, as it calls itself, and from where.
    Column("client", text_type(), nullable=False),
    Column("address", text_type(), nullable=False),
    Column("state", text_type(), nullable=False),
    Column("account_id", id_type(), ForeignKey("account.id", ondelete="CASCADE")),
    Column("interval_s", BigInteger, nullable=False),
    time_column("created_at"),
    time_column("polled_at", nullable=True),
    time_column("expires_at"),
    UniqueConstraint("user_hash"),
    Index(None, "account_id"),
    Index(None, "expires_at"),
    sqlite_with_rowid=False,
)
