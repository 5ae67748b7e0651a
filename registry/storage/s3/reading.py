"""A blob's bytes from S3 as a stream, and signed URLs for those who fetch them there."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from types import TracebackType
from typing import Any, Self

from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

from registry.storage.base import StoreKey
from registry.storage.errors import BlobMissing, StorageFailed
from registry.storage.s3.bucket import Bucket

#: How often a broken stream is taken up again where it broke.
RESUMES = 3
#: URLs remembered; each is below 1 KiB.
REMEMBERED = 4096


class S3Blob:
    """One stream at a time; see `OpenBlob`. Reads in order cost one request for all of them."""

    fd = None

    def __init__(self, bucket: Bucket, key: StoreKey, size: int) -> None:
        self._bucket = bucket
        self._key = key
        self._body: Any = None
        self._at = 0
        self._stop = 0
        self.size = size

    def prepare(self, offset: int, count: int) -> None:
        if count:
            self._open(offset, offset + count)
        elif self._bucket.size(str(self._key)) != self.size:
            raise self._damaged()

    def read_at(self, offset: int, count: int) -> bytes:
        stop = min(offset + count, self.size)
        if stop <= offset:
            return b""
        pieces: list[bytes] = []
        resumes = 0
        while offset < stop:
            if self._body is None or self._at != offset or self._stop < stop:
                # As far as was announced, where this is the rest of it after a break.
                self._open(offset, max(stop, self._stop if pieces or resumes else stop))
            try:
                piece = self._body.read(stop - offset)
            except (BotoCoreError, HTTPError, OSError) as error:
                piece, reason = b"", type(error).__name__
            else:
                reason = "the stream ended early"
            if piece:
                pieces.append(piece)
                offset += len(piece)
                self._at = offset
                continue
            end = self._stop
            self.close()
            resumes += 1
            if resumes > RESUMES:
                raise StorageFailed(str(self._key), f"reading it from S3 failed: {reason}")
            self._open(offset, max(end, stop))
        return b"".join(pieces) if len(pieces) > 1 else pieces[0]

    def close(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()  # a stream that was not read to its end takes its connection with it

    def _open(self, start: int, stop: int) -> None:
        self.close()
        try:
            body, size = self._bucket.get(str(self._key), start, stop)
        except BlobMissing:
            raise BlobMissing(self._key) from None
        self._body, self._at, self._stop = body, start, stop
        if size != self.size:
            self.close()
            raise self._damaged()

    def _damaged(self) -> StorageFailed:
        return StorageFailed(str(self._key), f"the stored bytes are not {self.size} in number")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SignedUrls:
    """URLs that are valid for `seconds` and handed out for half of that."""

    def __init__(self, bucket: Bucket, seconds: int) -> None:
        self._bucket = bucket
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: OrderedDict[StoreKey, tuple[str, float]] = OrderedDict()

    def __call__(self, key: StoreKey) -> str:
        now = time.monotonic()
        with self._lock:
            url, until = self._known.get(key, ("", 0.0))
            if now < until:
                return url
        url = self._bucket.url(str(key), self._seconds)
        with self._lock:
            self._known[key] = (url, now + self._seconds / 2)
            self._known.move_to_end(key)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return url
