"""Blobs and uploads in a bucket.

    <prefix>/blobs/<algorithm>/<first two hex digits>/<hex>[.<generation>]   one request's worth
    <prefix>/blobs/upload/<upload id>        more than that: completed multipart uploads
    <prefix>/uploads/<upload id>/<random>    tails of uploads in progress

How far an upload is, is in its row (see `state`); nothing here is asked for it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from registry.settings import Settings
from registry.storage.base import (
    Progress,
    StoredBlob,
    StoreKey,
    UploadStatus,
    check_upload_id,
)
from registry.storage.errors import (
    BlobMissing,
    InvalidStoreKey,
    OffsetMismatch,
    StorageFailed,
    UploadBusy,
    UploadUnknown,
)
from registry.storage.s3.bucket import Bucket, Multipart
from registry.storage.s3.reading import S3Blob, SignedUrls
from registry.storage.s3.spool import Budget
from registry.storage.s3.state import InvalidState, UploadState
from registry.storage.s3.writer import S3UploadWriter

log = logging.getLogger("pyreg.registry")

_BY_UPLOAD = "blobs/upload/"
_TAILS = "uploads/"


class S3Storage:
    """Implements `registry.storage.base.Storage`; close it."""

    #: With a size from the row nothing is asked before bytes are wanted.
    opens_at_once = True
    keeps_uploads = False

    def __init__(self, settings: Settings) -> None:
        self.bucket = Bucket(settings)
        self.budget = Budget(settings.s3_upload_bytes)
        self._urls = SignedUrls(self.bucket, settings.s3_redirect_s)
        self._redirects = settings.s3_redirect
        self._spools = str(settings.data / "spool")
        try:
            os.makedirs(self._spools, mode=0o700, exist_ok=True)
        except OSError as error:
            raise StorageFailed(self._spools, error.strerror or str(error)) from error
        self._executor = ThreadPoolExecutor(4 + 2 * (os.cpu_count() or 1), "pyreg-s3")
        # Tells our own writers from those of other replicas and of earlier starts.
        self._token = uuid4().hex
        self._held: set[str] = set()
        self._lock = threading.Lock()

    def close(self) -> None:
        self._executor.shutdown()
        self.bucket.close()

    def check(self) -> None:
        self.bucket.check()

    # ---- blobs

    def open(self, key: StoreKey, size: int | None = None) -> S3Blob:
        if size is None:
            try:
                size = self.bucket.size(str(key))
            except BlobMissing:
                raise BlobMissing(key) from None
        return S3Blob(self.bucket, key, size)

    def url(self, key: StoreKey) -> str | None:
        return self._urls(key) if self._redirects else None

    def remove(self, key: StoreKey) -> bool:
        try:
            self.bucket.size(str(key))
        except BlobMissing:
            return False
        self.bucket.delete(str(key))
        return True

    def remove_all(self, keys: Iterable[StoreKey]) -> None:
        self.bucket.delete_all(map(str, keys))

    def blobs(self) -> Iterator[StoredBlob]:
        for found in self.bucket.list("blobs/"):
            try:
                key = StoreKey.parse(found.key)
            except InvalidStoreKey:
                continue  # not ours
            yield StoredBlob(key, found.size, found.modified_at)

    # ---- uploads

    def begin(self, upload: str) -> None:
        check_upload_id(upload)  # nothing more: the row is the upload

    def status(self, upload: str, progress: Progress | None = None) -> UploadStatus:
        return UploadStatus(*self._state(upload, progress)[1:])

    def append(self, upload: str, offset: int, progress: Progress | None = None) -> S3UploadWriter:
        check_upload_id(upload)
        self._hold(upload)
        try:
            state = UploadState()
            if progress is not None:
                state, size, _ = self._state(upload, progress)
                if size != offset:
                    raise OffsetMismatch(expected=size, found=offset)
                if state.writer not in ("", self._token) and state.until > time.time():
                    raise UploadBusy(upload)
            elif offset:
                raise UploadUnknown(upload)
        except BaseException:
            self._let_go(upload)
            raise
        return S3UploadWriter(
            self.bucket,
            upload,
            state,
            progress,
            token=self._token,
            directory=self._spools,
            budget=self.budget,
            executor=self._executor,
            release=lambda: self._let_go(upload),
        )

    def read(self, upload: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """Parts cannot be read: see `keeps_uploads`."""
        raise StorageFailed(f"upload {upload}", "S3 cannot read an upload back")

    def abort(self, upload: str) -> None:
        try:
            key = str(StoreKey(upload=check_upload_id(upload)))
        except UploadUnknown:
            return
        for found in self.bucket.multiparts(key):
            if found.key == key:
                self.bucket.abort(key, found.id)
        self.bucket.delete_all([each.key for each in self.bucket.list(f"{_TAILS}{upload}/")])

    def untouched_since(self, moment: float) -> Iterator[str]:
        touched: dict[str, float] = {}
        for multipart in self.bucket.multiparts(_BY_UPLOAD):
            upload = multipart.key.removeprefix(_BY_UPLOAD)
            at = multipart.begun_at
            if at < moment:
                at = max(at, self._last_part(multipart))
            touched[upload] = max(at, touched.get(upload, 0.0))
        for tail in self.bucket.list(_TAILS):
            upload = tail.key.removeprefix(_TAILS).partition("/")[0]
            touched[upload] = max(tail.modified_at, touched.get(upload, 0.0))
        for upload, at in touched.items():
            try:
                if at < moment:
                    yield check_upload_id(upload)
            except UploadUnknown:
                continue  # not ours

    def _last_part(self, multipart: Multipart) -> float:
        try:
            parts = self.bucket.parts(multipart.key, multipart.id)
            return max((part.modified_at for part in parts), default=0.0)
        except UploadUnknown:
            return time.time()  # it just ended

    def _state(self, upload: str, progress: Progress | None) -> tuple[UploadState, int, str]:
        """What the row says: parsed, in bytes, and as it stands there. Raises: UploadUnknown."""
        if progress is None:
            raise UploadUnknown(check_upload_id(upload))
        check_upload_id(upload)
        text = progress.state
        try:
            state = UploadState.parse(text)
        except InvalidState as error:
            log.warning("upload %s: %s", upload, error)
            raise UploadUnknown(upload) from None
        if state.size != progress.offset:
            raise UploadUnknown(upload)
        return state, state.size, text

    def _hold(self, upload: str) -> None:
        with self._lock:
            if upload in self._held:
                raise UploadBusy(upload)
            self._held.add(upload)

    def _let_go(self, upload: str) -> None:
        with self._lock:
            self._held.discard(upload)
