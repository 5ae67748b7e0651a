"""An upload held by one request: its writer, and the hash that runs along.

Two things say how far an upload is, the row in the database and the bytes in the store. The bytes
are right: a server that was killed in the middle of a chunk has more bytes than the row says, and
the client is told so and continues there. The row's saved hash is used only if it is of exactly
the stored bytes; otherwise they are read and hashed again.
"""

from __future__ import annotations

from ocispec.digest import Digest
from registry.content.hashing import Hasher, InvalidHashState, new_hasher, resume_hasher
from registry.metadata.base import UploadRecord
from registry.storage.base import Storage, UploadContents, UploadStatus, UploadWriter


class Session:
    """Made by `open_session`, closed by its user. All methods block."""

    def __init__(
        self,
        storage: Storage,
        record: UploadRecord,
        epoch: str,
        writer: UploadWriter,
        hasher: Hasher | None,
    ) -> None:
        self._storage = storage
        self.record = record
        self.epoch = epoch
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

    def digest(self, algorithm: str) -> Digest:
        """The digest of everything stored, hashed again if the running hash is another's."""
        if self.hasher is not None and self.hasher.algorithm == algorithm:
            return self.hasher.digest()
        return hash_stored(self._storage, self.record.id, algorithm).digest()

    def rollback(self) -> None:
        """Forget what this request wrote."""
        self.writer.rollback()

    def close(self) -> None:
        """Release the upload; harmless twice."""
        self.writer.close()


def open_session(
    storage: Storage, record: UploadRecord, *, start: int | None, algorithm: str
) -> Session:
    """Take hold of an upload, to add bytes at `start`; None is wherever it ends.

    `algorithm` is the digest's, where it is known already, else the record's.

    Raises: UploadUnknown, OffsetMismatch, UploadBusy of the storage.
    """
    status = storage.status(record.id)
    writer = storage.append(record.id, status.size if start is None else start)
    try:
        hasher = _running_hash(storage, record, status, algorithm)
    except BaseException:
        writer.close()
        raise
    return Session(storage, record, status.epoch, writer, hasher)


def hash_stored(contents: UploadContents, upload: str, algorithm: str) -> Hasher:
    """Hash all the bytes that are stored of an upload."""
    hasher = new_hasher(algorithm)
    for chunk in contents.read(upload):
        hasher.update(chunk)
    return hasher


def saved_hash(record: UploadRecord, status: UploadStatus) -> Hasher | None:
    """The hash that the row saved, if it is of exactly the bytes that are stored."""
    if not record.hash_state or record.offset != status.size or record.store_state != status.epoch:
        return None
    try:
        hasher = resume_hasher(record.hash_state)
    except InvalidHashState:
        return None
    if hasher.size != status.size or hasher.algorithm != record.algorithm:
        return None
    return hasher


def _running_hash(
    storage: Storage, record: UploadRecord, status: UploadStatus, algorithm: str
) -> Hasher | None:
    """None if the stored bytes must be read once more at the end anyway."""
    if status.size == 0:
        return new_hasher(algorithm)
    if algorithm != record.algorithm:
        return None
    return saved_hash(record, status) or hash_stored(storage, record.id, algorithm)
