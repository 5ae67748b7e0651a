"""What is searched: an index beside the tables that count, filled from the outbox.

    search_repository   a row for each repository: what words are looked for in
    search_manifest     a manifest in the index, with its terms, so that they can be taken out
    search_term         (kind, value) → repository; tags, labels, platforms and the like
    outbox_position     how far somebody has read `event`

No foreign keys: removing content must not wait for the index. Ids are never given twice, so a row
that is left over finds nothing, and the indexer takes it out.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table

from registry.metadata.columns import id_type, schema, text_type, time_column

search_repository = Table(
    "search_repository",
    schema,
    Column("repository_id", id_type(), primary_key=True, autoincrement=False),
    Column("name", text_type(), nullable=False),
    #: "/" + the name, a line end, and the description in lower case.
    Column("text", text_type(), nullable=False),
    Column("description", text_type(), nullable=False),
    #: The manifest that the description is from; 0 if there is none.
    Column("described_by", BigInteger, nullable=False),
    time_column("updated_at"),
    Index(None, "name"),
)

search_manifest = Table(
    "search_manifest",
    schema,
    Column("repository_id", id_type(), primary_key=True, autoincrement=False),
    Column("digest", text_type(), primary_key=True),
    Column("manifest_id", BigInteger, nullable=False),
    #: JSON: a list of [kind, value].
    Column("terms", text_type(), nullable=False),
    Column("description", text_type(), nullable=False),
    sqlite_with_rowid=False,
)

# `manifest_id` is 0 for tags, which move.
search_term = Table(
    "search_term",
    schema,
    Column("kind", text_type(), primary_key=True),
    Column("value", text_type(), primary_key=True),
    Column("repository_id", id_type(), primary_key=True, autoincrement=False),
    Column("manifest_id", id_type(), primary_key=True, autoincrement=False),
    Index(None, "repository_id", "kind"),
    sqlite_with_rowid=False,
)

# Rows of `event` up to `position` are not needed by `consumer` any more.
outbox_position = Table(
    "outbox_position",
    schema,
    Column("consumer", text_type(), primary_key=True),
    Column("position", BigInteger, nullable=False),
    #: Who reads just now, and until when nobody else does; empty and 0 for nobody.
    Column("holder", text_type(), nullable=False),
    time_column("held_until"),
    #: What of a rebuild is under way ("" for none), and how far it is.
    Column("rebuilding", text_type(), nullable=False),
    Column("rebuilt", text_type(), nullable=False),
    sqlite_with_rowid=False,
)
