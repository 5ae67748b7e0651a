"""The first schema.

Revision history starts here; later revisions change it, this file never changes again.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text() -> TypeEngine[str]:
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "account",
        sa.Column("id", _id(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("password_hash", _text(), nullable=False),
        sa.Column("role", _text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("password_changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("role IN ('admin', 'writer', 'reader')", name="ck_account_role"),
        sa.PrimaryKeyConstraint("id", name="pk_account"),
        sa.UniqueConstraint("name", name="uq_account_name"),
        sqlite_autoincrement=True,
    )

    op.create_table(
        "blob",
        sa.Column("digest", _text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("state", _text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("store_key", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("unreferenced_since", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=False),
        sa.Column("verified_at", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("state IN ('live', 'doomed')", name="ck_blob_state"),
        sa.CheckConstraint("size >= 0", name="ck_blob_size"),
        sa.PrimaryKeyConstraint("digest", name="pk_blob"),
        sqlite_with_rowid=False,
    )

    op.create_table(
        "doomed_object",
        sa.Column("store_key", _text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("doomed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("store_key", name="pk_doomed_object"),
    )
    op.create_index("ix_doomed_object_doomed_at", "doomed_object", ["doomed_at"])

    op.create_table(
        "event",
        sa.Column("id", _id(), nullable=False),
        sa.Column("kind", _text(), nullable=False),
        sa.Column("repository", _text(), nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("tag", _text(), nullable=False),
        sa.Column("actor", _text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
        sqlite_autoincrement=True,
    )

    op.create_table(
        "gc_queue",
        sa.Column("kind", _text(), nullable=False),
        sa.Column("repository_id", _id(), autoincrement=False, nullable=False),
        sa.Column("key", _text(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("event", _text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.CheckConstraint("kind IN ('blob', 'manifest')", name="ck_gc_queue_kind"),
        sa.PrimaryKeyConstraint("kind", "repository_id", "key", name="pk_gc_queue"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_gc_queue_due_at", "gc_queue", ["due_at"])

    op.create_table(
        "repository",
        sa.Column("id", _id(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_repository"),
        sa.UniqueConstraint("name", name="uq_repository_name"),
        sqlite_autoincrement=True,
    )

    op.create_table(
        "signing_key",
        sa.Column("kid", _text(), nullable=False),
        sa.Column("private_pem", _text(), nullable=False),
        sa.Column("state", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('current', 'previous')", name="ck_signing_key_state"),
        sa.PrimaryKeyConstraint("kid", name="pk_signing_key"),
    )

    op.create_table(
        "manifest",
        sa.Column("id", _id(), nullable=False),
        sa.Column("repository_id", _id(), nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("media_type", _text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("subject_digest", _text(), nullable=True),
        sa.Column("artifact_type", _text(), nullable=False),
        sa.Column("config_media_type", _text(), nullable=False),
        sa.Column("actor", _text(), nullable=False),
        sa.Column("pushed_at", sa.BigInteger(), nullable=False),
        sa.Column("pulled_at", sa.BigInteger(), nullable=True),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("annotations", _text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_manifest_repository_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_manifest"),
        sa.UniqueConstraint("repository_id", "digest", name="uq_manifest_repository_id_digest"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_manifest_repository_id_subject_digest_digest",
        "manifest",
        ["repository_id", "subject_digest", "digest"],
    )

    op.create_table(
        "refresh_token",
        sa.Column("token_hash", _text(), nullable=False),
        sa.Column("account_id", _id(), nullable=False),
        sa.Column("client_id", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["account_id"], ["account.id"], name="fk_refresh_token_account_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_refresh_token"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_refresh_token_account_id", "refresh_token", ["account_id"])

    op.create_table(
        "repository_blob",
        sa.Column("repository_id", _id(), nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("linked_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["digest"], ["blob.digest"], name="fk_repository_blob_digest"),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_repository_blob_repository_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "digest", name="pk_repository_blob"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_repository_blob_digest", "repository_blob", ["digest"])

    op.create_table(
        "tag_history",
        sa.Column("id", _id(), nullable=False),
        sa.Column("repository_id", _id(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("old_digest", _text(), nullable=True),
        sa.Column("new_digest", _text(), nullable=True),
        sa.Column("actor", _text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repository.id"],
            name="fk_tag_history_repository_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_tag_history"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_tag_history_repository_id_name_id", "tag_history", ["repository_id", "name", "id"]
    )

    op.create_table(
        "upload",
        sa.Column("id", _text(), nullable=False),
        sa.Column("repository_id", _id(), nullable=False),
        sa.Column("subject", _text(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("algorithm", _text(), nullable=False),
        sa.Column("hash_state", sa.LargeBinary(), nullable=False),
        sa.Column("store_state", _text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_upload_repository_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_upload"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_upload_expires_at", "upload", ["expires_at"])
    op.create_index("ix_upload_repository_id", "upload", ["repository_id"])

    op.create_table(
        "manifest_blob",
        sa.Column("manifest_id", _id(), nullable=False),
        sa.Column("digest", _text(), nullable=False),
        sa.Column("role", _text(), nullable=False),
        sa.Column("repository_id", _id(), nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifest.id"],
            name="fk_manifest_blob_manifest_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id", "digest"],
            ["repository_blob.repository_id", "repository_blob.digest"],
            name="fk_manifest_blob_repository_id_digest",
        ),
        sa.PrimaryKeyConstraint("manifest_id", "digest", "role", name="pk_manifest_blob"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_manifest_blob_digest_repository_id", "manifest_blob", ["digest", "repository_id"]
    )

    op.create_table(
        "manifest_child",
        sa.Column("parent_id", _id(), nullable=False),
        sa.Column("child_digest", _text(), nullable=False),
        sa.Column("repository_id", _id(), nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["manifest.id"], name="fk_manifest_child_parent_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("parent_id", "child_digest", name="pk_manifest_child"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_manifest_child_repository_id_child_digest",
        "manifest_child",
        ["repository_id", "child_digest"],
    )

    op.create_table(
        "tag",
        sa.Column("repository_id", _id(), nullable=False),
        sa.Column("name", _text(), nullable=False),
        sa.Column("manifest_id", _id(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifest.id"], name="fk_tag_manifest_id"),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repository.id"], name="fk_tag_repository_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name="pk_tag"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_tag_manifest_id", "tag", ["manifest_id"])


def downgrade() -> None:
    for table in (
        "tag",
        "manifest_child",
        "manifest_blob",
        "upload",
        "tag_history",
        "repository_blob",
        "refresh_token",
        "manifest",
        "signing_key",
        "repository",
        "gc_queue",
        "event",
        "doomed_object",
        "blob",
        "account",
    ):
        op.drop_table(table)
