"""The tables. `migrations/` builds the same ones step by step, and a test compares the two.

    account ─┬─ refresh_token          signing_key
             ┆ (by name, so that history outlives accounts)
    repository ─┬─ upload
                ├─ repository_blob ── blob          doomed_object   bytes to be swept
                ├─ manifest ─┬─ manifest_blob ── repository_blob
                │            ├─ manifest_child      gc_queue        what the collector looks at
                │            └─ tag                 event           outbox
                └─ tag_history

Text is compared bytewise everywhere, as tags and digests are: SQLite's default, and collation "C"
on PostgreSQL. Times are whole seconds since 1970 in UTC. Ids are never given twice.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
    text,
)

from registry.metadata.columns import id_type, repository_column, schema, text_type, time_column

repository = Table(
    "repository",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("name", text_type(), nullable=False),
    time_column("created_at"),
    # Of the namespace whose quota it counts for; a removal of the quota ends it.
    Column("quota_id", id_type()),
    UniqueConstraint("name"),
    Index(
        None,
        "quota_id",
        sqlite_where=text("quota_id IS NOT NULL"),
        postgresql_where=text("quota_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

# One row per digest, for ever: a doomed row remembers the generation to write next, so that a late
# removal of old bytes cannot hit bytes uploaded again.
blob = Table(
    "blob",
    schema,
    Column("digest", text_type(), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("state", text_type(), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("store_key", text_type(), nullable=False),
    time_column("created_at"),
    time_column("unreferenced_since", nullable=True),
    time_column("lease_until"),
    time_column("verified_at", nullable=True),
    CheckConstraint("state IN ('live', 'doomed')", name="ck_blob_state"),
    CheckConstraint("size >= 0", name="ck_blob_size"),
    # For the audit: these names do not tell the digest. Few on a disk, all in a bucket.
    Index(
        "ix_blob_uploaded_key",
        "store_key",
        sqlite_where=text("store_key LIKE 'blobs/upload/%'"),
        postgresql_where=text("store_key LIKE 'blobs/upload/%'"),
    ),
    sqlite_with_rowid=False,
)

repository_blob = Table(
    "repository_blob",
    schema,
    Column(
        "repository_id",
        id_type(),
        ForeignKey("repository.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("digest", text_type(), ForeignKey("blob.digest"), primary_key=True),
    time_column("linked_at"),
    Index(None, "digest"),
    sqlite_with_rowid=False,
)

manifest = Table(
    "manifest",
    schema,
    Column("id", id_type(), primary_key=True),
    repository_column(),
    Column("digest", text_type(), nullable=False),
    Column("media_type", text_type(), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("subject_digest", text_type()),
    Column("artifact_type", text_type(), nullable=False),
    Column("config_media_type", text_type(), nullable=False),
    Column("actor", text_type(), nullable=False),
    time_column("pushed_at"),
    time_column("pulled_at", nullable=True),
    # Late: SQLite reads a row from the left, and many questions end before the bytes.
    Column("raw", LargeBinary, nullable=False),
    # A JSON object of text to text, apart from `raw` because listings of referrers show it.
    Column("annotations", text_type(), nullable=False),
    UniqueConstraint("repository_id", "digest"),
    Index(None, "repository_id", "subject_digest", "digest"),
    sqlite_autoincrement=True,
)

# The foreign key on the membership makes the database itself refuse that a manifest's blob is
# taken out of its repository.
manifest_blob = Table(
    "manifest_blob",
    schema,
    Column(
        "manifest_id", id_type(), ForeignKey("manifest.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("digest", text_type(), primary_key=True),
    Column("role", text_type(), primary_key=True),
    Column("repository_id", id_type(), nullable=False),
    ForeignKeyConstraint(
        ["repository_id", "digest"], ["repository_blob.repository_id", "repository_blob.digest"]
    ),
    Index(None, "digest", "repository_id"),
    sqlite_with_rowid=False,
)

# Children by digest, not by id: where sparse indexes are allowed, a child may not be there.
manifest_child = Table(
    "manifest_child",
    schema,
    Column("parent_id", id_type(), ForeignKey("manifest.id", ondelete="CASCADE"), primary_key=True),
    Column("child_digest", text_type(), primary_key=True),
    Column("repository_id", id_type(), nullable=False),
    Index(None, "repository_id", "child_digest"),
    sqlite_with_rowid=False,
)

tag = Table(
    "tag",
    schema,
    Column(
        "repository_id",
        id_type(),
        ForeignKey("repository.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("name", text_type(), primary_key=True),
    Column("manifest_id", id_type(), ForeignKey("manifest.id"), nullable=False),
    time_column("updated_at"),
    Index(None, "manifest_id"),
    sqlite_with_rowid=False,
)

tag_history = Table(
    "tag_history",
    schema,
    Column("id", id_type(), primary_key=True),
    repository_column(),
    Column("name", text_type(), nullable=False),
    Column("old_digest", text_type()),
    Column("new_digest", text_type()),
    Column("actor", text_type(), nullable=False),
    time_column("at"),
    # Of a change set, if the change was part of one.
    Column("change_id", id_type()),
    Index(None, "repository_id", "name", "id"),
    Index(
        None,
        "change_id",
        sqlite_where=text("change_id IS NOT NULL"),
        postgresql_where=text("change_id IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

upload = Table(
    "upload",
    schema,
    Column("id", text_type(), primary_key=True),
    repository_column(),
    Column("subject", text_type(), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("algorithm", text_type(), nullable=False),
    Column("hash_state", LargeBinary, nullable=False),
    Column("store_state", text_type(), nullable=False),
    time_column("created_at"),
    time_column("expires_at"),
    # Bytes that count for the repository's quota; null where there is none.
    Column("reserved", BigInteger),
    Index(None, "expires_at"),
    Index(None, "repository_id"),
    sqlite_with_rowid=False,
)

account = Table(
    "account",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("name", text_type(), nullable=False),
    Column("password_hash", text_type(), nullable=False),
    Column("role", text_type(), nullable=False),
    Column("disabled", Boolean, nullable=False),
    time_column("created_at"),
    time_column("password_changed_at"),
    Column("kind", text_type(), nullable=False),
    UniqueConstraint("name"),
    CheckConstraint("role IN ('admin', 'writer', 'reader', 'user')", name="ck_account_role"),
    CheckConstraint("kind IN ('user', 'robot')", name="ck_account_kind"),
    sqlite_autoincrement=True,
)

refresh_token = Table(
    "refresh_token",
    schema,
    Column("token_hash", text_type(), primary_key=True),
    Column("account_id", id_type(), ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("client_id", text_type(), nullable=False),
    time_column("created_at"),
    time_column("expires_at"),
    # What the device called itself; nothing is known of those that came before this column.
    Column("user_agent", text_type()),
    time_column("last_used_at", nullable=True),
    Index(None, "account_id"),
    sqlite_with_rowid=False,
)

signing_key = Table(
    "signing_key",
    schema,
    Column("kid", text_type(), primary_key=True),
    Column("private_pem", text_type(), nullable=False),
    Column("state", text_type(), nullable=False),
    time_column("created_at"),
    # Since when it signs nothing any more.
    time_column("retired_at", nullable=True),
    CheckConstraint("state IN ('current', 'previous')", name="ck_signing_key_state"),
)

# `key` is a digest; `repository_id` is 0 for blobs, which belong to no one repository.
gc_queue = Table(
    "gc_queue",
    schema,
    Column("kind", text_type(), primary_key=True),
    Column("repository_id", id_type(), primary_key=True, autoincrement=False),
    Column("key", text_type(), primary_key=True),
    time_column("due_at"),
    Column("event", text_type(), nullable=False),
    Column("tries", Integer, nullable=False),
    CheckConstraint("kind IN ('blob', 'manifest')", name="ck_gc_queue_kind"),
    Index(None, "kind", "due_at"),
    sqlite_with_rowid=False,
)

doomed_object = Table(
    "doomed_object",
    schema,
    Column("store_key", text_type(), primary_key=True),
    Column("size", BigInteger, nullable=False),
    time_column("doomed_at"),
    Index(None, "doomed_at"),
)

event = Table(
    "event",
    schema,
    Column("id", id_type(), primary_key=True),
    Column("kind", text_type(), nullable=False),
    Column("repository", text_type(), nullable=False),
    Column("digest", text_type(), nullable=False),
    Column("tag", text_type(), nullable=False),
    Column("actor", text_type(), nullable=False),
    time_column("at"),
    sqlite_autoincrement=True,
)
