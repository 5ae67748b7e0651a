"""Blobs and uploads in memory: for tests, and the shortest statement of what a store does.

It has no descriptors, so it shows that everything works without the zero-copy path.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from registry.storage.base import Progress, StoredBlob, StoreKey, UploadStatus, check_upload_id
from registry.storage.errors import (
    BlobMissing,
    OffsetMismatch,
    StorageFull,
    UploadBusy,
    UploadExists,
    UploadUnknown,
)

EPOCH = "memory"


@dataclass(slots=True)
class Upload:
    data: bytearray = field(default_factory=bytearray)
    touched_at: float = field(default_factory=time.time)
    lock: threading.Lock = field(default_factory=threading.Lock)


class MemoryStorage:
    """Implements `registry.storage.base.Storage`; holds at most `capacity` bytes, 0 is no limit."""

    opens_at_once = True
    keeps_uploads = True

    def __init__(self, capacity: int = 0) -> None:
        self._capacity = capacity
        self._blobs: dict[StoreKey, tuple[bytes, float]] = {}
        self._uploads: dict[str, Upload] = {}

    def open(self, key: StoreKey, size: int | None = None) -> MemoryBlob:
        try:
            return MemoryBlob(self._blobs[key][0])
        except KeyError:
            raise BlobMissing(key) from None

    def remove(self, key: StoreKey) -> bool:
        return self._blobs.pop(key, None) is not None

    def remove_all(self, keys: Iterable[StoreKey]) -> None:
        for key in keys:
            self.remove(key)

    def url(self, key: StoreKey) -> str | None:
        return None

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass

    def blobs(self) -> Iterator[StoredBlob]:
        for key, (data, committed_at) in tuple(self._blobs.items()):
            yield StoredBlob(key, len(data), committed_at)

    def begin(self, upload: str) -> None:
        if self._uploads.setdefault(check_upload_id(upload), made := Upload()) is not made:
            raise UploadExists(upload)

    def append(
        self, upload: str, offset: int, progress: Progress | None = None
    ) -> MemoryUploadWriter:
        found = self._locked(upload)
        if len(found.data) != offset:
            found.lock.release()
            raise OffsetMismatch(expected=len(found.data), found=offset)
        return MemoryUploadWriter(self, upload, found)

    def publish(self, upload: str, found: Upload, key: StoreKey) -> None:
        """What a writer's `commit` does, while it holds the upload."""
        if self._uploads.pop(upload, None) is not found:
            raise UploadUnknown(upload)
        self._blobs[key] = (bytes(found.data), time.time())

    def abort(self, upload: str) -> None:
        try:
            self._uploads.pop(check_upload_id(upload), None)
        except UploadUnknown:
            pass

    def status(self, upload: str, progress: Progress | None = None) -> UploadStatus:
        return UploadStatus(len(self._upload(upload).data), EPOCH)

    def read(self, upload: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        data = bytes(self._upload(upload).data)
        return (data[start : start + chunk_size] for start in range(0, len(data), chunk_size))

    def untouched_since(self, moment: float) -> Iterator[str]:
        for upload, found in tuple(self._uploads.items()):
            if found.touched_at < moment:
                yield upload

    def check_room(self, count: int, what: str) -> None:
        used = sum(len(data) for data, _ in tuple(self._blobs.values()))
        used += sum(len(upload.data) for upload in tuple(self._uploads.values()))
        if self._capacity and used + count > self._capacity:
            raise StorageFull(what)

    def _upload(self, upload: str) -> Upload:
        try:
            return self._uploads[check_upload_id(upload)]
        except KeyError:
            raise UploadUnknown(upload) from None

    def _locked(self, upload: str) -> Upload:
        found = self._upload(upload)
        if not found.lock.acquire(blocking=False):
            raise UploadBusy(upload)
        return found


class MemoryUploadWriter:
    """One piece of an upload; see `UploadWriter`."""

    def __init__(self, storage: MemoryStorage, upload: str, target: Upload) -> None:
        self._storage = storage
        self._upload = upload
        self._target = target
        self._start = len(target.data)
        self._open = True

    @property
    def offset(self) -> int:
        return len(self._target.data)

    @property
    def state(self) -> str:
        return EPOCH

    def seal(self) -> None:
        pass

    def commit(self, key: StoreKey) -> StoreKey:
        if not self._open:
            raise ValueError("this writer is closed")
        try:
            self._storage.publish(self._upload, self._target, key)
        finally:
            self.close()
        return key

    def write(self, data: bytes | memoryview) -> None:
        if not self._open:
            raise ValueError("this writer is closed")
        try:
            self._storage.check_room(len(data), f"upload {self._upload}")
        except StorageFull:
            self.rollback()
            raise
        self._target.data += data
        self._target.touched_at = time.time()

    def rollback(self) -> None:
        if self._open:
            del self._target.data[self._start :]
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._target.lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class MemoryBlob:
    """Bytes; see `OpenBlob`."""

    fd = None

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def prepare(self, offset: int, count: int) -> None:
        pass

    def read_at(self, offset: int, count: int) -> bytes:
        return self._data[offset : offset + count]

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
