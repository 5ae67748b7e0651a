"""`ImmediateReads` through SQLAlchemy, for databases that are not a local file.

The same questions in portable SQL, on one held connection in autocommit: every statement sees what
was committed before it. It also keeps the SQLite fast path honest: one contract suite runs on both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, Select, bindparam, select

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.metadata.base import (
    LIVE,
    PULL,
    PUSH,
    Access,
    Account,
    BlobRecord,
    ManifestRecord,
    Placement,
    Repository,
    UploadRecord,
)
from registry.metadata.hotreads import placement_of
from registry.metadata.tables import (
    account,
    blob,
    manifest,
    repository,
    repository_blob,
    tag,
    upload,
)
from registry.metadata.transaction import digest_of, is_upload_id, optional_digest

_named = repository.c.name == bindparam("name")

_REPOSITORY = select(repository.c.id, repository.c.created_at).where(_named)

_MANIFEST = (
    select(
        manifest.c.digest,
        manifest.c.media_type,
        manifest.c.raw,
        manifest.c.subject_digest,
        manifest.c.pushed_at,
    )
    .join(repository, repository.c.id == manifest.c.repository_id)
    .where(_named)
)
_MANIFEST_BY_TAG = _MANIFEST.join(tag, tag.c.manifest_id == manifest.c.id).where(
    tag.c.repository_id == repository.c.id, tag.c.name == bindparam("reference")
)
_MANIFEST_BY_DIGEST = _MANIFEST.where(manifest.c.digest == bindparam("reference"))

_PLACEMENT = select(
    blob.c.size,
    blob.c.state,
    blob.c.generation,
    blob.c.store_key,
    blob.c.unreferenced_since,
    blob.c.lease_until,
).where(blob.c.digest == bindparam("digest"))
_BLOB = (
    _PLACEMENT.join(repository_blob, repository_blob.c.digest == blob.c.digest)
    .join(repository, repository.c.id == repository_blob.c.repository_id)
    .where(_named, blob.c.state == LIVE)
)

_UPLOAD = (
    select(
        upload.c.id,
        upload.c.offset,
        upload.c.algorithm,
        upload.c.hash_state,
        upload.c.store_state,
        upload.c.created_at,
        upload.c.expires_at,
    )
    .join(repository, repository.c.id == upload.c.repository_id)
    .where(
        _named,
        upload.c.id == bindparam("id"),
        upload.c.subject == bindparam("subject"),
        upload.c.expires_at > bindparam("now"),
    )
)

_ACCOUNT = select(
    account.c.name,
    account.c.password_hash,
    account.c.role,
    account.c.disabled,
    account.c.created_at,
).where(account.c.name == bindparam("name"))


class SqlHotReads:
    """Not for two threads at once."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")

    def _row(self, query: Select[Any], **values: object) -> tuple[Any, ...] | None:
        with self._connection.begin():
            row = self._connection.execute(query, values).first()
        return None if row is None else tuple(row)

    def repository(self, access: Access) -> Repository | None:
        row = self._row(_REPOSITORY, name=access.name.text)
        return None if row is None else Repository(row[0], access.name, row[1])

    def manifest_by_tag(self, access: Access, tag: Tag) -> ManifestRecord | None:
        return self._manifest(_MANIFEST_BY_TAG, access, tag.text)

    def manifest_by_digest(self, access: Access, digest: Digest) -> ManifestRecord | None:
        return self._manifest(_MANIFEST_BY_DIGEST, access, str(digest))

    def _manifest(
        self, query: Select[Any], access: Access, reference: str
    ) -> ManifestRecord | None:
        access.require(PULL)
        row = self._row(query, name=access.name.text, reference=reference)
        if row is None:
            return None
        digest, media_type, raw, subject, pushed_at = row
        return ManifestRecord(
            digest_of(digest), media_type, raw, optional_digest(subject), pushed_at
        )

    def blob(self, access: Access, digest: Digest) -> BlobRecord | None:
        access.require(PULL)
        row = self._row(_BLOB, name=access.name.text, digest=str(digest))
        return None if row is None else BlobRecord(digest, *row)

    def placement(self, access: Access, digest: Digest) -> Placement:
        access.require(PUSH)
        row = self._row(_PLACEMENT, digest=str(digest))
        return placement_of(digest, None if row is None else BlobRecord(digest, *row))

    def upload(self, access: Access, upload: str) -> UploadRecord | None:
        access.require(PUSH)
        if not is_upload_id(upload):
            return None
        row = self._row(
            _UPLOAD,
            id=upload,
            name=access.name.text,
            subject=access.subject,
            now=int(self._clock()),
        )
        return None if row is None else UploadRecord(*row)

    def account(self, name: str) -> Account | None:
        row = self._row(_ACCOUNT, name=name)
        return None if row is None else Account(*row)

    def close(self) -> None:
        self._connection.close()
