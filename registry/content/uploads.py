"""Uploads: begin, append, finish; resumable by any worker, bound to repository and subject.

Order of a commit (the blob exists for clients from the last step on, and not before):

    1. all bytes are in the upload's file, and hash to what the client said
    2. the writer's commit: fdatasync, rename to the store key, fsync of the directory; on S3 the
       multipart upload is completed
    3. one transaction: blob row, membership, end of the upload row

A crash after 2 leaves bytes without a row, which the audit finds; never a row without bytes.
The same PUT again gets on from there (`registry.content.retries`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from uuid import uuid4

from ocispec.digest import Digest
from ocispec.distribution.scope import PUSH
from registry.content.hashing import HashingSink, KeptHashes, new_hasher
from registry.content.retries import Placed, PlacedUploads, size_hashed
from registry.content.session import RowProgress, Session, hash_blob, open_session
from registry.errors import DigestMismatched, SizeMismatch, StaleGeneration, UploadUnknown
from registry.metadata.base import Access, BlobRecord, Metadata, UploadRecord
from registry.server.errors import BodyTooLarge, ClientGone, ClientStalled, MalformedBody
from registry.server.extensions import Sink
from registry.server.threads import RECEIVERS, SENDERS, in_thread
from registry.storage.base import Storage, StoreKey, UploadWriter
from registry.storage.errors import BlobMissing, StorageError
from registry.storage.errors import UploadUnknown as NoStoredUpload

log = logging.getLogger("pyreg.registry")

# A request body: gives all its bytes to the sink and returns how many they were.
Body = Callable[[Sink], Awaitable[int]]


# Up to here hashing stored bytes again (a millisecond) costs less than a transaction.
SMALL = 1 << 20


class BlobUploads:
    """The life of uploads, on one blob store and one database."""

    def __init__(self, metadata: Metadata, storage: Storage, *, max_blob_bytes: int) -> None:
        self._metadata = metadata
        self._storage = storage
        self._limit = max_blob_bytes
        self._placed = PlacedUploads()
        self._hashed = KeptHashes()

    async def begin(self, access: Access, *, algorithm: str = "sha256") -> UploadRecord:
        """An empty upload, ready to be written to."""
        upload = str(uuid4())
        is_made = False

        def make() -> None:
            nonlocal is_made
            if not is_made:  # the transaction may be tried again
                self._storage.begin(upload)
                is_made = True

        try:
            return await self._metadata.uploads.begin(
                access, algorithm=algorithm, upload=upload, make=make
            )
        except Exception:
            if is_made:
                await in_thread(RECEIVERS, self._storage.abort, upload)
            raise

    async def size(self, access: Access, upload: str) -> int:
        """Bytes received so far. Raises: UploadUnknown."""
        record = await self._record(access, upload)
        if not self._storage.keeps_uploads:
            return record.offset
        return (await in_thread(RECEIVERS, self._storage.status, record.id)).size

    async def append(
        self, access: Access, upload: str, body: Body, *, start: int | None, size: int | None
    ) -> int:
        """Add one contiguous piece; return the new total in bytes.

        `start` is where the piece begins and must be where the upload ends; None is exactly there.
        `size` is how many bytes were announced, None if nobody said. What arrived before a client
        went away stays; a piece that breaks a rule leaves nothing behind.

        Raises: UploadUnknown; OffsetMismatch and UploadBusy of the storage; SizeMismatch;
        BodyTooLarge; StorageFull.
        """
        record = await self._record(access, upload)
        await self._reserve(access, record, start, size)
        session = await self._open(access, record, start, record.algorithm)
        try:
            await self._receive(access, session, body, size)
            await self._advance(access, session)
            return session.writer.offset
        finally:
            await self._close(session)

    async def finish(
        self,
        access: Access,
        upload: str,
        digest: Digest,
        body: Body | None,
        *,
        start: int | None,
        size: int | None,
    ) -> BlobRecord:
        """Turn an upload, with a last piece if `body` is given, into the blob `digest`.

        Asked again after it succeeded, it succeeds again: the answer may have been lost. An upload
        whose bytes are not `digest` is dropped.

        Raises: what `append` raises; DigestMismatched; StaleGeneration.
        """
        try:
            record = await self._record(access, upload)
            if body is None:
                # Before the bytes are looked at, so that the rest needs no other thread.
                generation = await self._generation(access, digest)
                take = self._taking(access, record, start, digest.algorithm)
                ended = await in_thread(RECEIVERS, _take_and_conclude, take, digest, generation)
            else:
                await self._reserve(access, record, start, size)
                session = await self._open(access, record, start, digest.algorithm)
                try:
                    await self._receive(access, session, body, size)
                    generation = await self._generation(access, digest)
                    ended = await in_thread(RECEIVERS, _conclude, session, digest, generation)
                finally:
                    await self._close(session)
        except (UploadUnknown, NoStoredUpload):
            blob = await self._metadata.hot.blob(access, digest)
            if blob is None:
                blob = await self._finish_again(access, upload, digest)
            if blob is None:
                raise
            return blob
        found, key, total = ended
        if found is None and key is not None:
            found = await self._prove(record.id, key, digest)
        if found != digest or key is None:
            await self._refuse(access, record.id, key)
            raise DigestMismatched(expected=digest, found=found)
        placed = Placed(digest, total, key, generation)
        self._placed.add(record.id, placed)
        return await self._enter(access, record.id, placed)

    async def _enter(self, access: Access, upload: str, placed: Placed) -> BlobRecord:
        """The last step: the rows."""
        try:
            blob = await self._metadata.uploads.finish(
                access,
                upload,
                placed.digest,
                placed.size,
                store_key=str(placed.key),
                generation=placed.generation,
            )
        except StaleGeneration:
            # These bytes are swept soon: no later request may go by them.
            self._placed.remove(upload)
            raise
        except UploadUnknown:
            # The same PUT, sent again before this one ended, may have been faster.
            self._placed.remove(upload)
            found = await self._metadata.hot.blob(access, placed.digest)
            if found is None:
                raise
            return found
        self._placed.remove(upload)
        await self._settle(access, blob, placed.key)
        return blob

    async def _finish_again(self, access: Access, upload: str, digest: Digest) -> BlobRecord | None:
        """Enter what an earlier request placed and could not enter; None if it did not."""
        record = await self._metadata.hot.upload(access, upload)
        if record is None:
            return None
        placed = self._placed.find(upload, digest)
        if placed is None and (size := size_hashed(record, digest)) is not None:
            generation = await self._generation(access, digest)
            placed = Placed(digest, size, StoreKey(digest, generation), generation)
        if placed is None or not await in_thread(RECEIVERS, self._holds, placed):
            return None
        return await self._enter(access, record.id, placed)

    def _holds(self, placed: Placed) -> bool:
        try:
            with self._storage.open(placed.key) as blob:
                return blob.size == placed.size
        except BlobMissing:
            return False

    async def store(
        self, access: Access, digest: Digest, body: Body, *, size: int | None
    ) -> BlobRecord:
        """A whole blob in one request, without an upload that could be continued.

        Raises: what `finish` raises.
        """
        access.require(PUSH)
        if size is not None and size > SMALL:
            await self._metadata.quotas.check(access, size)
        upload = str(uuid4())
        hasher = new_hasher(digest.algorithm)
        await in_thread(RECEIVERS, self._storage.begin, upload)
        try:
            writer = self._storage.append(upload, 0)
            try:
                total = await body(HashingSink((hasher,), writer, self._limit))
                if size is not None and size != total:
                    raise SizeMismatch(expected=size, found=total)
                found = hasher.digest()
                if found != digest:
                    raise DigestMismatched(expected=digest, found=found)
                generation = await self._generation(access, digest)
                key = await in_thread(RECEIVERS, writer.commit, StoreKey(digest, generation))
            finally:
                await self._release(writer)
        except BaseException:
            await in_thread(RECEIVERS, self._storage.abort, upload)
            raise
        blob = await self._metadata.blobs.add(
            access, digest, total, store_key=str(key), generation=generation
        )
        await self._settle(access, blob, key)
        return blob

    async def cancel(self, access: Access, upload: str) -> None:
        """End an upload and drop its bytes. Raises: UploadUnknown."""
        record = await self._metadata.uploads.cancel(access, upload)
        await in_thread(RECEIVERS, self._storage.abort, record.id)

    async def reap(self, *, older_than_s: int) -> int:
        """Drop the bytes of expired uploads, and of those without a row; return how many.

        Bytes without a row come from a crash or from `store`; they are looked at once they rested
        for `older_than_s`, longer than any row lives.
        """
        dropped = 0
        while expired := await self._metadata.uploads.reap():
            for upload in expired:
                await in_thread(RECEIVERS, self._storage.abort, upload.id)
            dropped += len(expired)
        dropped += await in_thread(RECEIVERS, self._drop_untouched, time.time() - older_than_s)
        return dropped

    def _drop_untouched(self, moment: float) -> int:
        stale = list(self._storage.untouched_since(moment))
        for upload in stale:
            self._storage.abort(upload)
        return len(stale)

    async def _record(self, access: Access, upload: str) -> UploadRecord:
        record = await self._metadata.hot.upload(access, upload)
        if record is None:
            raise UploadUnknown(upload)
        return record

    async def _reserve(
        self, access: Access, record: UploadRecord, start: int | None, size: int | None
    ) -> None:
        """Where a quota limits the repository: ask for the room before the bytes come.

        Raises: QuotaExceeded.
        """
        if record.reserved is None or size is None:
            return
        wanted = max(start or 0, record.offset) + size
        if wanted > record.reserved:
            await self._metadata.uploads.reserve(access, record.id, wanted)

    async def _generation(self, access: Access, digest: Digest) -> int:
        return (await self._metadata.hot.placement(access, digest)).generation

    async def _open(
        self, access: Access, record: UploadRecord, start: int | None, algorithm: str
    ) -> Session:
        take = self._taking(access, record, start, algorithm)
        storage = self._storage
        if storage.keeps_uploads and storage.opens_at_once and self._is_empty(record):
            session = take()
        else:
            session = await in_thread(RECEIVERS, take)
        if self._storage.keeps_uploads:
            try:
                # The request before may have saved its progress just before it let go of it.
                session.record = await self._record(access, record.id)
            except BaseException:
                session.close()
                raise
        return session

    def _taking(
        self, access: Access, record: UploadRecord, start: int | None, algorithm: str
    ) -> Callable[[], Session]:
        """What takes hold of the upload; it blocks."""
        progress = RowProgress(self._metadata.uploads, access, record, asyncio.get_running_loop())
        hashed = self._hashed.take(record.id)

        def take() -> Session:
            return open_session(
                self._storage, record, progress, start=start, algorithm=algorithm, hashed=hashed
            )

        return take

    def _is_empty(self, record: UploadRecord) -> bool:
        """Whether there are no bytes yet that would have to be hashed again."""
        return record.offset == 0 and self._storage.status(record.id).size == 0

    async def _close(self, session: Session) -> None:
        await self._release(session.writer)

    async def _release(self, writer: UploadWriter) -> None:
        """Where closing asks another machine, in a thread."""
        if self._storage.keeps_uploads:
            writer.close()
        else:
            await in_thread(RECEIVERS, writer.close)

    async def _prove(self, upload: str, key: StoreKey, digest: Digest) -> Digest:
        """The digest of bytes that could not be hashed before."""
        try:
            return await in_thread(SENDERS, hash_blob, self._storage, key, digest.algorithm)
        except BlobMissing:
            raise UploadUnknown(upload) from None  # refused meanwhile, for another request

    async def _refuse(self, access: Access, upload: str, key: StoreKey | None) -> None:
        """End an upload of wrong bytes, and drop them where they are: under `key`, if it is given.

        The row goes first. Another request may have found the same bytes right, for another
        digest; then the row is gone already and the bytes are a blob's.
        """
        try:
            await self.cancel(access, upload)
        except UploadUnknown:
            return
        if key is not None:
            await in_thread(RECEIVERS, self._storage.remove, key)

    async def _settle(self, access: Access, blob: BlobRecord, key: StoreKey) -> None:
        """If somebody stored the same blob before, under another name, one of the two is too many.

        Theirs counts if it is there; a blob that was lost heals with the next push. Ours can go
        only if its name will never be another's.
        """
        if blob.store_key == str(key):
            return
        try:
            if not await in_thread(RECEIVERS, self._is_intact, blob):
                log.warning("%s had lost its bytes; they were pushed again", blob.digest)
                await self._metadata.blobs.relocate(
                    access, blob.digest, old=blob.store_key, new=str(key)
                )
            elif key.upload:
                await in_thread(RECEIVERS, self._storage.remove, key)
        except StorageError as error:
            log.warning("%s stays without a use: %s", key, error)

    def _is_intact(self, blob: BlobRecord) -> bool:
        try:
            with self._storage.open(StoreKey.parse(blob.store_key)) as found:
                return found.size == blob.size
        except BlobMissing:
            return False

    async def _receive(
        self, access: Access, session: Session, body: Body, size: int | None
    ) -> None:
        sink = HashingSink(session.hashers, session.writer, self._limit)
        before = session.writer.offset
        try:
            await body(sink)
        except (ClientGone, ClientStalled, asyncio.CancelledError):
            await self._advance(access, session)
            raise
        except (BodyTooLarge, MalformedBody):
            await in_thread(RECEIVERS, session.rollback)
            raise
        came = session.writer.offset - before
        if size is not None and came != size:
            await in_thread(RECEIVERS, session.rollback)
            raise SizeMismatch(expected=size, found=came)

    async def _advance(self, access: Access, session: Session) -> None:
        """Save how far the upload is; the bytes are stored before the row says so.

        Not for a few bytes: their hash is kept in memory, and where it is not, they are hashed
        again sooner than a row is written. The bytes count, not the row. Unless the row must live
        longer, or is all there is to go by.
        """
        record = session.record
        expected_state = None
        if not self._storage.keeps_uploads:
            await in_thread(RECEIVERS, session.writer.seal)
            expected_state = session.progress.state
        elif session.writer.offset <= SMALL and time.time() < _half_life(record):
            self._hashed.put(record.id, session.hash_state)
            return
        saved = await self._metadata.uploads.advance(
            access,
            record.id,
            start=record.offset,
            offset=session.writer.offset,
            hash_state=session.hash_state,
            store_state=session.writer.state,
            expected_state=expected_state,
        )
        session.progress.saved(saved)


def _take_and_conclude(
    take: Callable[[], Session], digest: Digest, generation: int
) -> tuple[Digest | None, StoreKey | None, int]:
    session = take()
    try:
        return _conclude(session, digest, generation)
    finally:
        session.close()


def _conclude(
    session: Session, digest: Digest, generation: int
) -> tuple[Digest | None, StoreKey | None, int]:
    """Compare the digest and commit the bytes: the digest found, where they are, how many.

    Wrong bytes are not committed. Those of an unknown digest are, under the upload's name.
    """
    total = session.writer.offset
    found = session.digest(digest.algorithm)
    if found not in (None, digest):
        return found, None, total
    # Bytes that are there already are replaced by equal ones: a file that was damaged or lost
    # heals with the next push. Unproven bytes must not go there.
    wanted = StoreKey(digest, generation) if found else StoreKey(upload=session.record.id)
    return found, session.writer.commit(wanted), total


def _half_life(record: UploadRecord) -> float:
    """When half of the time until the upload expires is over."""
    return (record.created_at + record.expires_at) / 2
