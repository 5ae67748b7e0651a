"""The table of quotas: one row for each namespace that has limits, with what is used of them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Table, UniqueConstraint

from registry.metadata.columns import id_type, schema, text_type, time_column

# Which repositories count for it is in `repository.quota_id`. A limit that is null is none.
quota = Table(
    "quota",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("namespace", text_type(), nullable=False),
    Column("bytes_limit", BigInteger),
    Column("tags_limit", BigInteger),
    Column("bytes_used", BigInteger, nullable=False),
    # Of uploads that have begun: counted as if they were used.
    Column("bytes_reserved", BigInteger, nullable=False),
    Column("tags_used", BigInteger, nullable=False),
    time_column("created_at"),
    UniqueConstraint("namespace"),
    sqlite_autoincrement=True,
)
