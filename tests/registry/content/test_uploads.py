"""Uploads on real storage and a real database, where two requests meet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName
from registry.content.uploads import SMALL, BlobUploads, Body
from registry.metadata.base import PULL, PUSH, Access
from registry.metadata.database import open_metadata
from registry.server.extensions import Sink
from registry.storage.base import Progress, UploadStatus
from registry.storage.disk import DiskStorage
from registry.storage.errors import StorageFull

DAY = 24 * 3600
ACCESS = Access(RepositoryName("team/app"), "alice", frozenset({PULL, PUSH}))


def body(data: bytes) -> Body:
    async def give(sink: Sink) -> int:
        await asyncio.to_thread(sink.write, memoryview(data))
        return len(data)

    return give


class MeetingStorage(DiskStorage):
    """Lets another request append a piece after the next one has read the upload's row."""

    uploads: BlobUploads
    loop: asyncio.AbstractEventLoop
    piece = b""
    #: `status` waits here, so it must not be called in the event loop.
    opens_at_once = False

    def status(self, upload: str, progress: Progress | None = None) -> UploadStatus:
        piece, self.piece = self.piece, b""
        if piece:
            other = self.uploads.append(ACCESS, upload, body(piece), start=None, size=None)
            asyncio.run_coroutine_threadsafe(other, self.loop).result(10)
        return super().status(upload)


async def test_a_request_that_waited_for_another_goes_on_where_that_one_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that resumes at once meets the broken request's last words."""
    monkeypatch.setattr("registry.content.uploads.SMALL", 0)
    metadata = open_metadata(tmp_path / "metadata.db")
    try:
        storage = MeetingStorage(str(tmp_path))
        uploads = BlobUploads(metadata, storage, max_blob_bytes=1 << 20)
        storage.uploads, storage.loop = uploads, asyncio.get_running_loop()
        record = await uploads.begin(ACCESS)
        storage.piece = b"first "
        total = await uploads.append(ACCESS, record.id, body(b"second"), start=6, size=6)
        assert total == 12
        digest = Digest.of(b"first second")
        blob = await uploads.finish(ACCESS, record.id, digest, None, start=None, size=None)
        assert (blob.digest, blob.size) == (digest, 12)
    finally:
        metadata.close()


@pytest.mark.parametrize(("age_s", "writes"), [(0, 0), (4 * DAY, 1)])
async def test_small_pieces_write_the_row_only_to_make_it_live_longer(
    tmp_path: Path, age_s: int, writes: int
) -> None:
    """An upload that gets a little every few days must not expire meanwhile."""
    now = time.time() - age_s
    metadata = open_metadata(tmp_path / "metadata.db", clock=lambda: now)
    try:
        uploads = BlobUploads(metadata, DiskStorage(str(tmp_path)), max_blob_bytes=1 << 30)
        begun = await uploads.begin(ACCESS)
        now += age_s
        await uploads.append(ACCESS, begun.id, body(b"a"), start=None, size=None)
        row = await metadata.hot.upload(ACCESS, begun.id)
        assert row is not None
        assert (row.offset, row.expires_at) == (writes, begun.expires_at + writes * age_s)
        large = bytes(SMALL)
        await uploads.append(ACCESS, begun.id, body(large), start=1, size=None)
        row = await metadata.hot.upload(ACCESS, begun.id)
        assert row is not None
        assert row.offset == SMALL + 1
        await uploads.finish(ACCESS, begun.id, Digest.of(b"a" + large), None, start=None, size=None)
    finally:
        metadata.close()


class CountingStorage(DiskStorage):
    """Counts how often an upload's bytes are read back."""

    reads = 0

    def read(self, upload: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        self.reads += 1
        return super().read(upload, chunk_size)


async def test_a_small_piece_is_hashed_once_unless_another_process_added_to_it(
    tmp_path: Path,
) -> None:
    """The hash that one process kept is of its own bytes: what came since by another counts."""
    metadata = open_metadata(tmp_path / "metadata.db")
    try:
        storage = CountingStorage(str(tmp_path))
        one, other = (BlobUploads(metadata, storage, max_blob_bytes=1 << 20) for _ in range(2))
        for by, reads in ((one, 0), (other, 2)):
            storage.reads = 0
            record = await one.begin(ACCESS)
            await one.append(ACCESS, record.id, body(b"first "), start=None, size=None)
            await by.append(ACCESS, record.id, body(b"second"), start=None, size=None)
            digest = Digest.of(b"first second")
            blob = await one.finish(ACCESS, record.id, digest, None, start=None, size=None)
            assert (blob.digest, blob.size, storage.reads) == (digest, 12, reads)
    finally:
        metadata.close()


async def test_an_upload_without_room_for_its_file_has_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = open_metadata(tmp_path / "metadata.db")
    try:
        storage = DiskStorage(str(tmp_path))
        uploads = BlobUploads(metadata, storage, max_blob_bytes=1 << 20)

        def full(upload: str) -> None:
            raise StorageFull(f"upload {upload}")

        with monkeypatch.context() as patch:
            patch.setattr(storage, "begin", full)
            with pytest.raises(StorageFull):
                await uploads.begin(ACCESS)
        assert await metadata.uploads.count() == 0
        await uploads.begin(ACCESS)
        assert await metadata.uploads.count() == 1
    finally:
        metadata.close()
