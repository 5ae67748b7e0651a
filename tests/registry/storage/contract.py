"""What every store promises. Subclasses give the fixture `storage`."""

from __future__ import annotations

import os
import threading
import time

import pytest

from ocispec.digest import Digest
from registry.storage.base import Storage, StoreKey
from registry.storage.errors import (
    BlobMissing,
    OffsetMismatch,
    UploadBusy,
    UploadExists,
    UploadUnknown,
)

UPLOAD = "0b7c2a8e-upload"
DATA = b"layer bytes"
KEY = StoreKey(Digest.of(DATA))


def store(storage: Storage, data: bytes, key: StoreKey, upload: str = UPLOAD) -> StoreKey:
    storage.begin(upload)
    with storage.append(upload, 0) as writer:
        writer.write(data)
    return commit(storage, upload, key, len(data))


def commit(storage: Storage, upload: str, key: StoreKey, size: int) -> StoreKey:
    """End an upload of `size` bytes as a blob; under which key."""
    with storage.append(upload, size) as writer:
        return writer.commit(key)


def content(storage: Storage, key: StoreKey) -> bytes:
    with storage.open(key) as blob:
        return blob.read_at(0, blob.size)


def so_far(storage: Storage, upload: str = UPLOAD) -> bytes:
    """What is stored of an upload."""
    return b"".join(storage.read(upload))


class StorageContract:
    #: Whether who has a blob open can finish reading when it is removed.
    outlives_removal = True

    def test_committed_bytes_can_be_read(self, storage: Storage) -> None:
        store(storage, DATA, KEY)
        with storage.open(KEY) as blob:
            assert blob.size == len(DATA)
            assert blob.read_at(6, 3) == DATA[6:9]
            assert blob.read_at(6, 100) == DATA[6:]
            assert blob.read_at(len(DATA), 1) == b""
            if blob.fd is not None:
                assert os.pread(blob.fd, 100, 0) == DATA

    def test_nothing_is_visible_before_the_commit(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(DATA)
            with pytest.raises(BlobMissing):
                storage.open(KEY)
        with pytest.raises(BlobMissing):
            storage.open(KEY)
        assert list(storage.blobs()) == []

    def test_an_upload_grows_piece_by_piece(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        offset = 0
        for piece in (b"one", b"", b"two", b"three"):
            assert storage.status(UPLOAD).size == offset
            with storage.append(UPLOAD, offset) as writer:
                writer.write(memoryview(bytearray(piece)))
                writer.write(b"")
                offset += len(piece)
                assert writer.offset == offset
        assert so_far(storage) == b"onetwothree"
        assert list(storage.read(UPLOAD, 4)) == [b"onet", b"woth", b"ree"]
        commit(storage, UPLOAD, KEY, offset)
        assert content(storage, KEY) == b"onetwothree"

    @pytest.mark.parametrize("offset", [0, 2, 4, 1 << 40])
    def test_a_piece_for_another_place_changes_nothing(self, storage: Storage, offset: int) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(b"abc")
        with pytest.raises(OffsetMismatch) as caught:
            storage.append(UPLOAD, offset)
        assert (caught.value.expected, caught.value.found) == (3, offset)
        assert so_far(storage) == b"abc"
        with storage.append(UPLOAD, 3) as writer:  # and nothing stayed locked
            writer.write(b"d")

    def test_a_commit_of_another_size_changes_nothing(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(DATA)
        with pytest.raises(OffsetMismatch):
            commit(storage, UPLOAD, KEY, len(DATA) + 1)
        with pytest.raises(BlobMissing):
            storage.open(KEY)
        commit(storage, UPLOAD, KEY, len(DATA))

    def test_one_writer_at_a_time(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(DATA)
            with pytest.raises(UploadBusy):
                storage.append(UPLOAD, len(DATA))
            with pytest.raises(UploadBusy):
                commit(storage, UPLOAD, KEY, len(DATA))
        commit(storage, UPLOAD, KEY, len(DATA))

    def test_bytes_stay_when_a_piece_ends_early(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with pytest.raises(ZeroDivisionError):
            with storage.append(UPLOAD, 0) as writer:
                writer.write(b"kept")
                raise ZeroDivisionError
        assert storage.status(UPLOAD).size == 4

    def test_a_rolled_back_piece_is_forgotten(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(b"kept")
        with storage.append(UPLOAD, 4) as writer:
            writer.write(b"dropped")
            writer.rollback()
            writer.rollback()
            with pytest.raises(ValueError, match="closed"):
                writer.write(b"more")
        assert so_far(storage) == b"kept"

    def test_the_empty_blob(self, storage: Storage) -> None:
        key = StoreKey(Digest.of(b""))
        storage.begin(UPLOAD)
        commit(storage, UPLOAD, key, 0)
        assert content(storage, key) == b""

    def test_a_committed_upload_is_no_upload_any_more(self, storage: Storage) -> None:
        store(storage, DATA, KEY)
        self.assert_unknown(storage, UPLOAD)
        storage.abort(UPLOAD)
        assert content(storage, KEY) == DATA

    def test_an_aborted_upload_is_gone(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        storage.abort(UPLOAD)
        storage.abort(UPLOAD)
        self.assert_unknown(storage, UPLOAD)

    def test_abort_while_a_piece_is_written(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            storage.abort(UPLOAD)
            writer.write(DATA)
        self.assert_unknown(storage, UPLOAD)

    @pytest.mark.parametrize(
        "upload",
        ["", "short", "../../../etc/passwd", "a" * 200, "with/slash", "nul\0nul\0nul", ".hidden.."],
    )
    def test_an_impossible_id_is_unknown(self, storage: Storage, upload: str) -> None:
        self.assert_unknown(storage, upload)
        with pytest.raises(UploadUnknown):
            storage.begin(upload)
        storage.abort(upload)

    def test_an_id_is_begun_once(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with pytest.raises(UploadExists):
            storage.begin(UPLOAD)

    def test_generations_are_different_bytes(self, storage: Storage) -> None:
        store(storage, DATA, KEY)
        again = StoreKey(KEY.digest, 1)
        store(storage, DATA, again, "another-upload")
        assert storage.remove(KEY)
        assert content(storage, again) == DATA
        with pytest.raises(BlobMissing):
            storage.open(KEY)

    def test_equal_bytes_may_be_committed_twice(self, storage: Storage) -> None:
        store(storage, DATA, KEY)
        with storage.open(KEY) as blob:
            store(storage, DATA, KEY, "another-upload")
            assert blob.read_at(0, 100) == DATA
        assert content(storage, KEY) == DATA

    def test_removal(self, storage: Storage) -> None:
        store(storage, DATA, KEY)
        with storage.open(KEY) as blob:
            assert storage.remove(KEY)
            assert not storage.remove(KEY)
            if self.outlives_removal:
                assert blob.read_at(0, 100) == DATA, "who has it open can finish"
            else:
                with pytest.raises(BlobMissing):
                    blob.read_at(0, 100)
        with pytest.raises(BlobMissing):
            storage.open(KEY)

    def test_listing(self, storage: Storage) -> None:
        keys = {StoreKey(Digest.of(bytes([n]))) for n in range(3)}
        keys |= {StoreKey(Digest.of(b"0", "sha512")), StoreKey(Digest.of(b"0"), 7)}
        for number, key in enumerate(keys):
            store(storage, b"0", key, f"upload-{number}")
        found = list(storage.blobs())
        assert {blob.key for blob in found} == keys
        assert {blob.size for blob in found} == {1}
        assert all(abs(blob.committed_at - time.time()) < 60 for blob in found)

    def test_removal_of_many(self, storage: Storage) -> None:
        keys = [StoreKey(Digest.of(bytes([n]))) for n in range(5)]
        for number, key in enumerate(keys[:4]):
            store(storage, bytes([number]), key, f"upload-{number}")
        storage.remove_all(keys[1:])
        storage.remove_all([])
        assert [blob.key for blob in storage.blobs()] == keys[:1]

    def test_it_says_that_it_works(self, storage: Storage) -> None:
        storage.check()

    def test_a_large_blob_in_uneven_pieces(self, storage: Storage) -> None:
        """Across every size at which a store may do something else."""
        data = os.urandom(1 << 20) * 41 + b"end"
        key = StoreKey(Digest.of(data))
        storage.begin(UPLOAD)
        offset = 0
        for size in (3 << 20, 1, 5 << 20, 20 << 20, 1000, 0, 12 << 20, len(data)):
            with storage.append(UPLOAD, offset) as writer:
                for start in range(offset, min(offset + size, len(data)), 1 << 20):
                    stop = min(start + (1 << 20), offset + size, len(data))
                    writer.write(memoryview(data)[start:stop])
                offset = writer.offset
        key = commit(storage, UPLOAD, key, len(data))
        with storage.open(key, len(data)) as blob:
            blob.prepare(0, len(data))
            read = b"".join(blob.read_at(at, 1 << 20) for at in range(0, len(data), 1 << 20))
            assert read == data
            blob.prepare(17 << 20, 100)
            assert blob.read_at(17 << 20, 100) == data[17 << 20 : (17 << 20) + 100]
        assert [found.size for found in storage.blobs()] == [len(data)]

    def test_uploads_by_age(self, storage: Storage) -> None:
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(DATA)
        assert list(storage.untouched_since(time.time() + 10)) == [UPLOAD]
        assert list(storage.untouched_since(time.time() - 10)) == []

    def test_two_uploads_of_one_blob_at_once(self, storage: Storage) -> None:
        data = os.urandom(300_000)
        key = StoreKey(Digest.of(data))
        threads = [
            threading.Thread(target=store, args=(storage, data, key, f"upload-{number}"))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert content(storage, key) == data

    @staticmethod
    def assert_unknown(storage: Storage, upload: str) -> None:
        with pytest.raises(UploadUnknown):
            storage.status(upload)
        with pytest.raises(UploadUnknown):
            storage.read(upload)
        with pytest.raises(UploadUnknown):
            storage.append(upload, 0)
        with pytest.raises(UploadUnknown):
            commit(storage, upload, KEY, 0)
