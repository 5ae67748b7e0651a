"""An upload held by one request: its writer, and the hash that runs along.

Two things say how far an upload is, the row in the database and the bytes in the store. The bytes
are right: a server that was killed in the middle of a chunk has more bytes than the row says, and
the client is told so and continues there. The row's saved hash is used only if it is of exactly
the stored bytes; otherwise they are read and hashed again.

A store that does not keep uploads (S3) has no bytes of its own to go by: there the row is right,
and every step is saved in it. What a killed server received since then is sent again. A hash that
cannot be continued there is made from the finished blob, before anybody can see it.
"""

from __future__ import annotations

import asyncio

from ocispec.digest import Digest
from registry.content.hashing import Hasher, InvalidHashState, new_hasher, resume_hasher
from registry.metadata.base import Access, UploadRecord, Uploads
from registry.storage.base import (
    BlobReader,
    Storage,
    StoreKey,
    UploadContents,
    UploadStatus,
    UploadWriter,
)

PIECE = 1 << 20


class RowProgress:
    """An upload's row as a store sees it, from the worker thread that has the upload."""

    def __init__(
        self,
        uploads: Uploads,
        access: Access,
        record: UploadRecord,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._uploads = uploads
        self._access = access
        self._loop = loop
        self._upload = record.id
        self.offset = record.offset
        self.state = record.store_state

    def swap(self, state: str) -> None:
        change = self._uploads.swap_state(self._access, self._upload, old=self.state, new=state)
        asyncio.run_coroutine_threadsafe(change, self._loop).result()
        self.state = state

    def saved(self, record: UploadRecord) -> None:
        """The row was written together with other things; this is how it is now."""
        self.offset, self.state = record.offset, record.store_state


class Session:
    """Made by `open_session`, closed by its user. All methods block."""

    def __init__(
        self,
        storage: Storage,
        record: UploadRecord,
        progress: RowProgress,
        writer: UploadWriter,
        hasher: Hasher | None,
    ) -> None:
        self._storage = storage
        self.record = record
        self.progress = progress
        self.writer = writer
        self.hasher = hasher

    @property
    def hashers(self) -> tuple[Hasher, ...]:
        return () if self.hasher is None else (self.hasher,)

    @property
    def hash_state(self) -> bytes:
        """What to save in the row; empty if there is nothing that another request could use."""
        if self.hasher is None or self.hasher.algorithm != self.record.algorithm:
            return b""
        return self.hasher.state() or b""

    def digest(self, algorithm: str) -> Digest | None:
        """The digest of everything stored, hashed again if the running hash is another's; None if
        the store cannot read an upload back, so that only the finished blob can be hashed."""
        if self.hasher is not None and self.hasher.algorithm == algorithm:
            return self.hasher.digest()
        if not self._storage.keeps_uploads:
            return None
        return hash_stored(self._storage, self.record.id, algorithm).digest()

    def rollback(self) -> None:
        """Forget what this request wrote."""
        self.writer.rollback()

    def close(self) -> None:
        """Release the upload; harmless twice."""
        self.writer.close()


def open_session(
    storage: Storage,
    record: UploadRecord,
    progress: RowProgress,
    *,
    start: int | None,
    algorithm: str,
    hashed: bytes = b"",
) -> Session:
    """Take hold of an upload, to add bytes at `start`; None is wherever it ends.

    `algorithm` is the digest's, where it is known already, else the record's. `hashed` is the hash
    that a request before this one put down, if it is not in the row.

    Raises: UploadUnknown, OffsetMismatch, UploadBusy of the storage.
    """
    status = storage.status(record.id, progress)
    writer = storage.append(record.id, status.size if start is None else start, progress)
    try:
        hasher = _running_hash(storage, record, status, algorithm, hashed)
    except BaseException:
        writer.close()
        raise
    return Session(storage, record, progress, writer, hasher)


def hash_stored(contents: UploadContents, upload: str, algorithm: str) -> Hasher:
    """Hash all the bytes that are stored of an upload."""
    hasher = new_hasher(algorithm)
    for chunk in contents.read(upload):
        hasher.update(chunk)
    return hasher


def hash_blob(blobs: BlobReader, key: StoreKey, algorithm: str) -> Digest:
    """Hash the bytes of a committed blob."""
    hasher = new_hasher(algorithm)
    with blobs.open(key) as blob:
        blob.prepare(0, blob.size)
        while hasher.size < blob.size:
            hasher.update(blob.read_at(hasher.size, PIECE))
    return hasher.digest()


def saved_hash(record: UploadRecord, status: UploadStatus) -> Hasher | None:
    """The hash that the row saved, if it is of exactly the bytes that are stored."""
    if record.offset != status.size or record.store_state != status.epoch:
        return None
    return _resumed(record.hash_state, record.algorithm, status.size)


def _resumed(state: bytes, algorithm: str, size: int) -> Hasher | None:
    """The hash that was put down, if it is of this algorithm and so many bytes."""
    if not state:
        return None
    try:
        hasher = resume_hasher(state)
    except InvalidHashState:
        return None
    return hasher if hasher.size == size and hasher.algorithm == algorithm else None


def _running_hash(
    storage: Storage, record: UploadRecord, status: UploadStatus, algorithm: str, hashed: bytes
) -> Hasher | None:
    """None if the stored bytes must be read once more at the end anyway."""
    if status.size == 0:
        return new_hasher(algorithm)
    if algorithm != record.algorithm:
        return None
    saved = saved_hash(record, status)
    if saved is None and storage.keeps_uploads:
        # Bytes that are there never change, only more come: so many bytes are those that were
        # hashed.
        saved = _resumed(hashed, algorithm, status.size)
    if saved is None and storage.keeps_uploads:
        return hash_stored(storage, record.id, algorithm)
    return saved
