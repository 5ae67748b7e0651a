"""One piece of an upload on its way to S3.

Bytes fill a spool; a full one becomes a part of the multipart upload, sent by another thread while
the next fills, at most two at a time. What is left when the piece ends becomes a part if it is
large enough, else the tail, which the next piece begins with. A blob that fits into one part is
stored by one request, under its digest.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Self
from uuid import uuid4

from registry.errors import RegistryError
from registry.storage.base import Progress, StoreKey
from registry.storage.errors import (
    BlobMissing,
    StorageFailed,
    UploadUnknown,
)
from registry.storage.s3.bucket import Bucket, Part
from registry.storage.s3.spool import Budget, Spool
from registry.storage.s3.state import (
    MAX_PARTS,
    Run,
    UploadState,
    least_part,
    part_size,
    with_part,
)

log = logging.getLogger("pyreg.registry")

#: Parts of one upload on their way at once.
IN_FLIGHT = 2
#: Part numbers reserved in one step: 128 MiB and more between two writes of the row.
RESERVE = 8
#: How long another writer waits for one that says nothing.
LEASE_S = 10
#: The tail comes back in pieces of this size.
PIECE = 1 << 20


class S3UploadWriter:
    """See `UploadWriter`. Made by `S3Storage.append`, which holds the upload in this process."""

    def __init__(
        self,
        bucket: Bucket,
        upload: str,
        state: UploadState,
        progress: Progress | None,
        *,
        token: str,
        directory: str,
        budget: Budget,
        executor: Executor,
        release: Callable[[], None],
    ) -> None:
        self._bucket = bucket
        self._upload = upload
        self._key = StoreKey(upload=upload)
        self._saved = self._state = state
        self._progress = progress
        self._saved_text = progress.state if progress is not None else ""
        self._token = token
        self._directory = directory
        self._budget = budget
        self._executor = executor
        self._release = release
        self._next = self._reserved = state.next
        self._spool: Spool | None = None
        self._in_flight: deque[tuple[int, int, Future[str]]] = deque()
        self._parts: list[Part] = []
        self._sealed: UploadState | None = None
        self._begun_here = False
        self._closed = False
        self._start = self.offset = state.size

    @property
    def state(self) -> str:
        return (self._sealed or self._state).format()

    def write(self, data: bytes | memoryview) -> None:
        if self._closed or self._sealed is not None:
            raise ValueError("this writer is closed")
        try:
            with memoryview(data) as view:
                done = 0
                while done < len(view):
                    if self._spool is not None and self._spool.size >= part_size(self._next):
                        self._send()
                    spool = self._filling()
                    count = min(len(view) - done, part_size(self._next) - spool.size)
                    spool.write(view[done : done + count])
                    done += count
            self._stay()
        except BaseException:
            self.rollback()
            raise
        self.offset += done

    def seal(self) -> None:
        if self._closed:
            raise ValueError("this writer is closed")
        if self._sealed is not None:
            return
        try:
            tail, tail_size = self._state.tail, self._state.tail_size
            if self._spool is not None:
                tail, tail_size = "", 0
                if self._spool.size >= least_part(self._next) and self._has_parts():
                    self._send()
                elif self._spool.size:
                    tail, tail_size = uuid4().hex, self._spool.size
                    self._bucket.put(self._tail_key(tail), self._spool.body())
            self._settle(0)
            self._sealed = dataclasses.replace(
                self._state,
                runs=self._runs(),
                tail=tail,
                tail_size=tail_size,
                next=self._next,
                writer="",
                until=0,
            )
        except BaseException:
            self.rollback()
            raise

    def commit(self, key: StoreKey) -> StoreKey:
        if self._closed:
            raise ValueError("this writer is closed")
        try:
            if self._has_parts():
                self._commit_parts()
                key = self._key  # S3 cannot rename
            else:
                self._commit_whole(str(key))
        except BaseException:
            self.rollback()
            raise
        self._drop_tail(self._saved.tail)
        if key != self._key and self._state.multipart:
            self._quietly(self._bucket.abort, str(self._key), self._state.multipart)
        self._finish()
        return key

    def rollback(self) -> None:
        if self._closed:
            return
        self.offset = self._start
        try:
            self._abandon()
        finally:
            self._finish()

    def close(self) -> None:
        if self._closed:
            return
        if self._sealed is None or self._progress is None:
            self.rollback()
            return
        if self._progress.state == self._sealed.format():
            if self._sealed.tail != self._saved.tail:
                self._drop_tail(self._saved.tail)
            self._finish()
        else:
            self.rollback()

    # ---- parts

    def _has_parts(self) -> bool:
        return bool(self._state.runs or self._parts or self._in_flight)

    def _filling(self) -> Spool:
        """The spool that bytes go to now; the first one begins with the tail of before."""
        if self._spool is None:
            self._spool = Spool(self._directory)
            if self._state.tail and not self._parts and not self._in_flight:
                self._fetch_tail(self._spool)
        return self._spool

    def _fetch_tail(self, spool: Spool) -> None:
        try:
            body, size = self._bucket.get(
                self._tail_key(self._state.tail), 0, self._state.tail_size
            )
        except BlobMissing:
            raise UploadUnknown(self._upload) from None
        try:
            while spool.size < size and (piece := body.read(PIECE)):
                spool.write(piece)
        except Exception as error:
            raise StorageFailed(self._upload, f"its last bytes: {type(error).__name__}") from error
        finally:
            body.close()
        if spool.size != self._state.tail_size:
            raise StorageFailed(self._upload, "its last bytes came back incomplete")

    def _send(self) -> None:
        """Hand the filling spool to a thread as the next part."""
        spool, self._spool = self._spool, None
        assert spool is not None
        try:
            number = self._number()
            self._settle(IN_FLIGHT - 1)
            self._budget.take(spool.size)
        except BaseException:
            spool.close()
            raise
        future = self._executor.submit(self._put_part, self._state.multipart, number, spool)
        self._in_flight.append((number, spool.size, future))

    def _put_part(self, multipart: str, number: int, spool: Spool) -> str:
        try:
            return self._bucket.put_part(str(self._key), multipart, number, spool.body())
        finally:
            self._budget.give(spool.size)
            spool.close()

    def _settle(self, allowed: int) -> None:
        """Wait until at most `allowed` parts are on their way. Raises what went wrong."""
        while len(self._in_flight) > allowed:
            number, size, future = self._in_flight.popleft()
            self._parts.append(Part(number, future.result(), size))

    def _number(self) -> int:
        """A part number that no other writer ever uses."""
        if self._next > MAX_PARTS:
            raise StorageFailed(self._upload, f"it has more than {MAX_PARTS} parts")
        if not self._state.multipart:
            self._state = dataclasses.replace(
                self._state, multipart=self._bucket.begin(str(self._key))
            )
            self._begun_here = True
        if self._next >= self._reserved:
            self._reserved = self._next + RESERVE
            self._claim()
        number, self._next = self._next, self._next + 1
        return number

    def _claim(self) -> None:
        """Say in the row which numbers are ours and that we are here. Raises: UploadContended."""
        self._state = dataclasses.replace(
            self._state,
            next=self._reserved,
            writer=self._token,
            until=int(time.time()) + LEASE_S,
        )
        if self._progress is not None:
            self._progress.swap(self._state.format())

    def _stay(self) -> None:
        if self._state.writer and time.time() > self._state.until - LEASE_S / 2:
            self._claim()

    def _runs(self) -> tuple[Run, ...]:
        runs = self._state.runs
        for part in sorted(self._parts, key=lambda part: part.number):
            runs = with_part(runs, part.number, part.size)
        return runs

    # ---- the end

    def _commit_whole(self, key: str) -> None:
        """One part's worth of bytes or less: one object, under its digest."""
        if self._spool is not None or not self._state.tail:
            self._bucket.put(key, self._spool.body() if self._spool is not None else b"")
            return
        try:
            self._bucket.copy(self._tail_key(self._state.tail), key)
        except BlobMissing:
            if not self._is_there(key):  # copied before, and the answer was lost
                raise UploadUnknown(self._upload) from None

    def _commit_parts(self) -> None:
        try:
            if self._state.tail and not self._parts and not self._in_flight:
                self._filling()
            if self._spool is not None and self._spool.size:
                self._send()
            self._settle(0)
            self._bucket.complete(str(self._key), self._state.multipart, self._named())
        except UploadUnknown:
            # Completed before, and the answer was lost: then the object is there. Its key is this
            # upload's alone.
            if not self._is_there(str(self._key)):
                raise UploadUnknown(self._upload) from None

    def _named(self) -> list[Part]:
        """All the parts that count, earlier pieces' as S3 lists them."""
        earlier = self._state.runs
        numbers = {number for run in earlier for number in range(run.first, run.first + run.count)}
        listed = (
            [
                part
                for part in self._bucket.parts(str(self._key), self._state.multipart)
                if part.number in numbers
            ]
            if numbers
            else []
        )
        if len(listed) != len(numbers) or sum(part.size for part in listed) != sum(
            run.size for run in earlier
        ):
            raise StorageFailed(self._upload, "S3 does not have all the parts that it took")
        return [*listed, *sorted(self._parts, key=lambda part: part.number)]

    def _is_there(self, key: str) -> bool:
        try:
            return self._bucket.size(key) == self.offset
        except BlobMissing:
            return False

    def _abandon(self) -> None:
        """Forget this piece: what it stored is named nowhere."""
        while self._in_flight:
            self._in_flight.popleft()[2].exception()
        if self._sealed is not None and self._sealed.tail != self._saved.tail:
            self._drop_tail(self._sealed.tail)
        if self._progress is None:
            if self._state.multipart:
                self._quietly(self._bucket.abort, str(self._key), self._state.multipart)
        elif self._begun_here and self._progress.state == self._saved_text:
            # The row never heard of it.
            self._quietly(self._bucket.abort, str(self._key), self._state.multipart)
        elif self._state.writer and self._progress.state == self._state.format():
            freed = dataclasses.replace(self._state, writer="", until=0)
            self._quietly(self._progress.swap, freed.format())

    def _drop_tail(self, tail: str) -> None:
        if tail:
            self._quietly(self._bucket.delete, self._tail_key(tail))

    def _quietly(self, step: Callable[..., None], *arguments: str) -> None:
        """Tidy up; what stays behind is found by its age."""
        try:
            step(*arguments)
        except RegistryError as error:
            log.info("upload %s: %s", self._upload, error)

    def _tail_key(self, tail: str) -> str:
        return f"uploads/{self._upload}/{tail}"

    def _finish(self) -> None:
        self._closed = True
        if self._spool is not None:
            self._spool.close()
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
