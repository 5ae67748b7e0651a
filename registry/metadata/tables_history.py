"""Tables of history: change sets, the trash and retention rules.

change_set ┄ tag_history.change_id     several changes that were one act, undone together
trash                                  deleted manifests, whole, for as long as history reaches
retention_rule ┄ retention_state       which tags may stay; one row says what was acknowledged
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)

from registry.metadata.columns import id_type, repository_column, schema, text_type, time_column

# `kind` is one of push, delete, release, undo, restore, retention.
change_set = Table(
    "change_set",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("kind", text_type(), nullable=False),
    Column("note", text_type(), nullable=False),
    Column("actor", text_type(), nullable=False),
    time_column("at"),
    sqlite_autoincrement=True,
)

# What a manifest was, so that putting it back needs nothing else. `uses` is a JSON list of
# [digest, role]; `children` an object: digests of "all" that it names and of those "there".
trash = Table(
    "trash",
    schema,
    Column("id", id_type(), primary_key=True),
    repository_column(),
    Column("digest", text_type(), nullable=False),
    Column("media_type", text_type(), nullable=False),
    Column("subject_digest", text_type()),
    Column("artifact_type", text_type(), nullable=False),
    Column("config_media_type", text_type(), nullable=False),
    Column("annotations", text_type(), nullable=False),
    Column("uses", text_type(), nullable=False),
    Column("children", text_type(), nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("pushed_by", text_type(), nullable=False),
    time_column("pushed_at"),
    Column("change_id", id_type(), nullable=False),
    Column("deleted_by", text_type(), nullable=False),
    time_column("deleted_at"),
    time_column("expires_at"),
    UniqueConstraint("repository_id", "digest"),
    Index(None, "expires_at"),
    Index(None, "change_id"),
    sqlite_autoincrement=True,
)

# `tags` is a JSON list of globs. Zero keeps nothing by that measure.
retention_rule = Table(
    "retention_rule",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("repositories", text_type(), nullable=False),
    Column("tags", text_type(), nullable=False),
    Column("keep_last", Integer, nullable=False),
    Column("younger_s", BigInteger, nullable=False),
    Column("pulled_s", BigInteger, nullable=False),
    time_column("created_at"),
    sqlite_autoincrement=True,
)

# One row, whose id is 1. The rules run only while their hash is the acknowledged one.
retention_state = Table(
    "retention_state",
    schema,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("acknowledged", text_type(), nullable=False),
    Column("acknowledged_by", text_type(), nullable=False),
    time_column("acknowledged_at"),
    time_column("lease_until"),
    time_column("ran_at"),
    Column("deleted", Integer, nullable=False),
)
