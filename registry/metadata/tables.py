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
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeEngine

schema = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)


def _text() -> TypeEngine[str]:
    return Text().with_variant(Text(collation="C"), "postgresql")


def _id() -> TypeEngine[int]:
    # SQLite numbers rows by itself only for a primary key of type INTEGER.
    return BigInteger().with_variant(Integer(), "sqlite")


def _time(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _repository() -> Column[int]:
    return Column(
        "repository_id", _id(), ForeignKey("repository.id", ondelete="CASCADE"), nullable=False
    )


repository = Table(
    "repository",
    schema,
    Column("id", _id(), primary_key=True),
    Column("name", _text(), nullable=False),
    _time("created_at"),
    UniqueConstraint("name"),
    sqlite_autoincrement=True,
)

# One row per digest, for ever: a doomed row remembers the generation to write next, so that a late
# removal of old bytes cannot hit bytes uploaded again.
blob = Table(
    "blob",
    schema,
    Column("digest", _text(), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("state", _text(), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("store_key", _text(), nullable=False),
    _time("created_at"),
    _time("unreferenced_since", nullable=True),
    _time("lease_until"),
    _time("verified_at", nullable=True),
    CheckConstraint("state IN ('live', 'doomed')", name="ck_blob_state"),
    CheckConstraint("size >= 0", name="ck_blob_size"),
    sqlite_with_rowid=False,
)

repository_blob = Table(
    "repository_blob",
    schema,
    Column(
        "repository_id", _id(), ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("digest", _text(), ForeignKey("blob.digest"), primary_key=True),
    _time("linked_at"),
    Index(None, "digest"),
    sqlite_with_rowid=False,
)

manifest = Table(
    "manifest",
    schema,
    Column("id", _id(), primary_key=True),
    _repository(),
    Column("digest", _text(), nullable=False),
    Column("media_type", _text(), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("subject_digest", _text()),
    Column("artifact_type", _text(), nullable=False),
    Column("config_media_type", _text(), nullable=False),
    Column("actor", _text(), nullable=False),
    _time("pushed_at"),
    _time("pulled_at", nullable=True),
    # Late: SQLite reads a row from the left, and many questions end before the bytes.
    Column("raw", LargeBinary, nullable=False),
    # A JSON object of text to text, apart from `raw` because listings of referrers show it.
    Column("annotations", _text(), nullable=False),
    UniqueConstraint("repository_id", "digest"),
    Index(None, "repository_id", "subject_digest", "digest"),
    sqlite_autoincrement=True,
)

# The foreign key on the membership makes the database itself refuse that a manifest's blob is
# taken out of its repository.
manifest_blob = Table(
    "manifest_blob",
    schema,
    Column("manifest_id", _id(), ForeignKey("manifest.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", _text(), primary_key=True),
    Column("role", _text(), primary_key=True),
    Column("repository_id", _id(), nullable=False),
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
    Column("parent_id", _id(), ForeignKey("manifest.id", ondelete="CASCADE"), primary_key=True),
    Column("child_digest", _text(), primary_key=True),
    Column("repository_id", _id(), nullable=False),
    Index(None, "repository_id", "child_digest"),
    sqlite_with_rowid=False,
)

tag = Table(
    "tag",
    schema,
    Column(
        "repository_id", _id(), ForeignKey("repository.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("name", _text(), primary_key=True),
    Column("manifest_id", _id(), ForeignKey("manifest.id"), nullable=False),
    _time("updated_at"),
    Index(None, "manifest_id"),
    sqlite_with_rowid=False,
)

tag_history = Table(
    "tag_history",
    schema,
    Column("id", _id(), primary_key=True),
    _repository(),
    Column("name", _text(), nullable=False),
    Column("old_digest", _text()),
    Column("new_digest", _text()),
    Column("actor", _text(), nullable=False),
    _time("at"),
    Index(None, "repository_id", "name", "id"),
    sqlite_autoincrement=True,
)

upload = Table(
    "upload",
    schema,
    Column("id", _text(), primary_key=True),
    _repository(),
    Column("subject", _text(), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("algorithm", _text(), nullable=False),
    Column("hash_state", LargeBinary, nullable=False),
    Column("store_state", _text(), nullable=False),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "expires_at"),
    Index(None, "repository_id"),
    sqlite_with_rowid=False,
)

account = Table(
    "account",
    schema,
    Column("id", _id(), primary_key=True),
    Column("name", _text(), nullable=False),
    Column("password_hash", _text(), nullable=False),
    Column("role", _text(), nullable=False),
    Column("disabled", Boolean, nullable=False),
    _time("created_at"),
    _time("password_changed_at"),
    UniqueConstraint("name"),
    CheckConstraint("role IN ('admin', 'writer', 'reader')", name="ck_account_role"),
    sqlite_autoincrement=True,
)

refresh_token = Table(
    "refresh_token",
    schema,
    Column("token_hash", _text(), primary_key=True),
    Column("account_id", _id(), ForeignKey("account.id", ondelete="CASCADE"), nullable=False),
    Column("client_id", _text(), nullable=False),
    _time("created_at"),
    _time("expires_at"),
    Index(None, "account_id"),
    sqlite_with_rowid=False,
)

signing_key = Table(
    "signing_key",
    schema,
    Column("kid", _text(), primary_key=True),
    Column("private_pem", _text(), nullable=False),
    Column("state", _text(), nullable=False),
    _time("created_at"),
    CheckConstraint("state IN ('current', 'previous')", name="ck_signing_key_state"),
)

# `key` is a digest; `repository_id` is 0 for blobs, which belong to no one repository.
gc_queue = Table(
    "gc_queue",
    schema,
    Column("kind", _text(), primary_key=True),
    Column("repository_id", _id(), primary_key=True, autoincrement=False),
    Column("key", _text(), primary_key=True),
    _time("due_at"),
    Column("event", _text(), nullable=False),
    Column("tries", Integer, nullable=False),
    CheckConstraint("kind IN ('blob', 'manifest')", name="ck_gc_queue_kind"),
    Index(None, "due_at"),
    sqlite_with_rowid=False,
)

doomed_object = Table(
    "doomed_object",
    schema,
    Column("store_key", _text(), primary_key=True),
    Column("size", BigInteger, nullable=False),
    _time("doomed_at"),
    Index(None, "doomed_at"),
)

event = Table(
    "event",
    schema,
    Column("id", _id(), primary_key=True),
    Column("kind", _text(), nullable=False),
    Column("repository", _text(), nullable=False),
    Column("digest", _text(), nullable=False),
    Column("tag", _text(), nullable=False),
    Column("actor", _text(), nullable=False),
    _time("at"),
    sqlite_autoincrement=True,
)
