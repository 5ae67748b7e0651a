"""The store in a bucket of a real S3 service: the contract, and what only S3 can do to it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ocispec.digest import Digest
from registry.errors import RegistryError, UploadContended
from registry.settings import Settings
from registry.storage.base import Progress, StoreKey, UploadStatus
from registry.storage.errors import (
    OffsetMismatch,
    StorageFailed,
    UploadBusy,
    UploadExists,
    UploadUnknown,
)
from registry.storage.s3.store import S3Storage
from registry.storage.s3.writer import S3UploadWriter
from tests.builders.faulty import FOR_EVER, Fault, FaultyProxy, faulty_proxy
from tests.builders.s3 import ACCESS_KEY, SECRET_KEY, S3Service, s3_service
from tests.registry.storage.contract import DATA, KEY, UPLOAD, StorageContract, commit, content

MIB = 1 << 20


@dataclass
class Row:
    """An upload's row, as the database would keep it."""

    offset: int = 0
    state: str = ""


class Seen:
    """The row as one request saw it."""

    def __init__(self, row: Row) -> None:
        self._row = row
        self.offset, self.state = row.offset, row.state

    def swap(self, state: str) -> None:
        if self._row.state != self.state:
            raise UploadContended(UPLOAD)
        self._row.state = self.state = state

    def advance(self, writer: S3UploadWriter) -> None:
        writer.seal()
        if (self._row.state, self._row.offset) != (self.state, self.offset):
            raise UploadContended(UPLOAD)
        self._row.state = self.state = writer.state
        self._row.offset = self.offset = writer.offset


class Kept(S3Storage):
    """The store with rows of its own, saved when a piece ends, as `BlobUploads` does it."""

    def __init__(self, settings: Settings, rows: dict[str, Row] | None = None) -> None:
        super().__init__(settings)
        self.rows = {} if rows is None else rows
        self.contents: dict[str, bytes] = {}

    def begin(self, upload: str) -> None:
        super().begin(upload)
        if upload in self.rows:
            raise UploadExists(upload)
        self.rows[upload] = Row()
        self.contents[upload] = b""

    def seen(self, upload: str) -> Seen:
        if upload not in self.rows:
            raise UploadUnknown(upload)
        return Seen(self.rows[upload])

    def status(self, upload: str, progress: Progress | None = None) -> UploadStatus:
        return super().status(upload, progress or self.seen(upload))

    def append(self, upload: str, offset: int, progress: Progress | None = None) -> Any:
        seen = self.seen(upload)
        return Saving(self, upload, seen, super().append(upload, offset, seen))

    def read(self, upload: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """As it would be committed: a copy of the upload is, and read."""
        self.seen(upload)
        data = self.contents[upload]
        assert len(data) == self.rows[upload].offset
        return (data[at : at + chunk_size] for at in range(0, len(data), chunk_size))

    def abort(self, upload: str) -> None:
        super().abort(upload)
        self.rows.pop(upload, None)


class Saving:
    """A writer whose piece is saved in the row when it is left."""

    def __init__(self, storage: Kept, upload: str, seen: Seen, writer: S3UploadWriter) -> None:
        self._storage = storage
        self._upload = upload
        self._seen = seen
        self._writer = writer
        self._piece = b""
        self._ended = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    def write(self, data: bytes | memoryview) -> None:
        try:
            self._writer.write(data)
        except RegistryError:
            self._ended = True  # rolled back
            raise
        self._piece += bytes(data)

    def rollback(self) -> None:
        self._ended = True
        self._writer.rollback()

    def commit(self, key: StoreKey) -> StoreKey:
        self._ended = True
        key = self._writer.commit(key)
        del self._storage.rows[self._upload]
        return key

    def close(self) -> None:
        if not self._ended and self._upload in self._storage.rows:
            self._seen.advance(self._writer)
            self._storage.contents[self._upload] += self._piece
        self._ended = True
        self._writer.close()

    def __enter__(self) -> Saving:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    with s3_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def settings(service: S3Service, tmp_path: Path) -> Settings:
    named: dict[str, Any] = service.settings(service.make_bucket())
    return Settings(root=str(tmp_path), **named)


@pytest.fixture
def storage(settings: Settings) -> Iterator[Kept]:
    storage = Kept(settings)
    yield storage
    assert storage.budget.used == 0
    storage.close()


class TestS3(StorageContract):
    outlives_removal = False


# ---- replicas


@pytest.fixture
def replicas(settings: Settings) -> Iterator[tuple[Kept, Kept]]:
    rows: dict[str, Row] = {}
    first, second = Kept(settings, rows), Kept(settings, rows)
    second.contents = first.contents
    yield first, second
    assert first.budget.used == second.budget.used == 0
    first.close()
    second.close()


def write(writer: Any, data: bytes) -> None:
    for start in range(0, len(data), MIB):
        writer.write(memoryview(data)[start : start + MIB])


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that are different in every MiB."""
    block = b"".join((seed + n).to_bytes(8, "big") for n in range(size // 8 + 1))
    return block[:size]


def test_an_upload_moves_between_replicas(replicas: tuple[Kept, Kept]) -> None:
    data = pattern(60 * MIB)
    replicas[0].begin(UPLOAD)
    for number, offset in enumerate(range(0, len(data), 20 * MIB)):
        with replicas[number % 2].append(UPLOAD, offset) as writer:
            write(writer, data[offset : offset + 20 * MIB])
    key = commit(replicas[1], UPLOAD, StoreKey(Digest.of(data)), len(data))
    assert content(replicas[0], key) == data


def test_one_writer_at_a_time_across_replicas(replicas: tuple[Kept, Kept]) -> None:
    first, second = replicas
    first.begin(UPLOAD)
    with first.append(UPLOAD, 0) as writer:
        write(writer, pattern(40 * MIB))
        with pytest.raises(UploadBusy):
            second.append(UPLOAD, 0)
    with pytest.raises(OffsetMismatch):
        second.append(UPLOAD, 0)
    second.append(UPLOAD, 40 * MIB).close()


def test_attack_a_writer_that_was_given_up_cannot_spoil_the_blob(
    replicas: tuple[Kept, Kept],
) -> None:
    """Both write the same offsets at once, with different bytes; one of them counts, whole."""
    first, second = replicas
    second._token = first._token  # so that it does not wait for the first
    right, wrong = pattern(80 * MIB, 1), pattern(80 * MIB, 2)
    first.begin(UPLOAD)
    with pytest.raises(UploadContended):
        with first.append(UPLOAD, 0) as given_up:
            write(given_up, wrong[: 40 * MIB])
            with second.append(UPLOAD, 0) as writer:
                write(writer, right[: 40 * MIB])
                # It does not know yet; it has numbers of its own, that nobody else uses.
                write(given_up, wrong[40 * MIB :])
                write(writer, right[40 * MIB :])
    key = commit(second, UPLOAD, StoreKey(Digest.of(right)), len(right))
    assert content(second, key) == right


def test_a_claim_of_our_own_dead_writer_is_not_waited_for(storage: Kept) -> None:
    """A request was cancelled, and even its row could not be told."""
    storage.begin(UPLOAD)
    writer = storage.append(UPLOAD, 0)
    write(writer, pattern(40 * MIB))
    writer._writer._settle(0)
    writer._writer._finish()
    assert storage.rows[UPLOAD].state
    with storage.append(UPLOAD, 0) as again:
        write(again, pattern(40 * MIB, 5))
    key = commit(storage, UPLOAD, KEY, 40 * MIB)
    assert content(storage, key) == pattern(40 * MIB, 5)


# ---- what stays behind


def left_behind(service: S3Service, settings: Settings) -> tuple[int, list[str]]:
    """Unfinished multipart uploads, and objects, in the bucket."""
    client = service.client()
    try:
        multiparts = client.list_multipart_uploads(Bucket=settings.s3_bucket).get("Uploads", [])
        objects = client.list_objects_v2(Bucket=settings.s3_bucket).get("Contents", [])
        return len(multiparts), [each["Key"] for each in objects]
    finally:
        client.close()


def test_orphans_are_found_by_age_and_aborted(
    storage: Kept, service: S3Service, settings: Settings
) -> None:
    large, small = "upload-with-parts", "upload-with-a-tail"
    for upload, size in ((large, 40 * MIB), (small, 1000)):
        storage.begin(upload)
        with storage.append(upload, 0) as writer:
            write(writer, pattern(size))
    assert set(storage.untouched_since(time.time() + 60)) == {large, small}
    assert list(storage.untouched_since(time.time() - 60)) == []
    for upload in (large, small):
        storage.abort(upload)
    assert left_behind(service, settings) == (0, [])


def test_a_failed_blob_in_one_request_leaves_nothing(
    settings: Settings, service: S3Service
) -> None:
    storage = S3Storage(settings)
    try:
        with storage.append(UPLOAD, 0) as writer:
            write(writer, pattern(40 * MIB))
        assert left_behind(service, settings) == (0, [])
        with storage.append(UPLOAD, 0) as writer:
            write(writer, pattern(40 * MIB))
            key = writer.commit(KEY)
        assert content(storage, key) == pattern(40 * MIB)
        assert left_behind(service, settings) == (0, [str(key)])
    finally:
        storage.close()


def test_tails_do_not_pile_up(storage: Kept, service: S3Service, settings: Settings) -> None:
    storage.begin(UPLOAD)
    for number in range(5):
        with storage.append(UPLOAD, number * 1000) as writer:
            writer.write(pattern(1000, number * 125))
        assert len(left_behind(service, settings)[1]) == 1
    key = commit(storage, UPLOAD, KEY, 5000)
    assert content(storage, key) == pattern(5000)
    assert left_behind(service, settings) == (0, [str(KEY)])


def test_parts_wait_in_unlinked_files(storage: Kept, settings: Settings) -> None:
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        write(writer, pattern(20 * MIB))
        assert list((settings.data / "spool").iterdir()) == []


# ---- faults


@pytest.fixture
def proxy(service: S3Service) -> Iterator[FaultyProxy]:
    with faulty_proxy(service.port) as proxy:
        yield proxy


@pytest.fixture
def behind(
    settings: Settings, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kept]:
    """The store, reaching its bucket through the proxy, not as patient as usual."""
    monkeypatch.setattr("registry.storage.s3.bucket.READ_S", 1)
    monkeypatch.setattr("registry.storage.s3.bucket.ATTEMPTS", 2)
    storage = Kept(dataclasses.replace(settings, s3_endpoint=proxy.endpoint))
    yield storage
    assert storage.budget.used == 0
    storage.close()


# Each operation of an upload in three pieces: a tail, parts, the end.
OPERATIONS = {
    "put the tail": ("PUT", "/uploads/"),
    "get the tail": ("GET", "/uploads/"),
    "begin": ("POST", "?uploads"),
    "put a part": ("PUT", "partNumber=1"),
    "list the parts": ("GET", "uploadId="),
    "complete": ("POST", "uploadId="),
}


def push(storage: Kept, data: bytes) -> StoreKey:
    storage.begin(UPLOAD)
    offset = 0
    for size in (1000, 20 * MIB, len(data)):
        with storage.append(UPLOAD, offset) as writer:
            write(writer, data[offset : offset + size])
            offset = writer.offset
    return commit(storage, UPLOAD, StoreKey(Digest.of(data)), len(data))


@pytest.mark.parametrize("fault", [each for each in Fault if each is not Fault.CUT_ANSWER])
def test_a_fault_in_each_operation_is_overcome(
    behind: Kept, proxy: FaultyProxy, service: S3Service, settings: Settings, fault: Fault
) -> None:
    data = pattern(40 * MIB)
    for method, part in OPERATIONS.values():
        if fault is not Fault.CUT_REQUEST or method != "GET":
            proxy.fail(fault, method, part)
    planned = len(proxy.plans)
    key = push(behind, data)
    assert proxy.injected == planned
    proxy.heal()
    assert content(behind, key) == data
    multiparts, objects = left_behind(service, settings)
    # A begin whose answer was lost has begun a multipart upload that nobody knows.
    assert multiparts == (fault in (Fault.LOSE_ANSWER, Fault.CUT_REQUEST))
    assert objects == [str(key)]
    behind.abort(UPLOAD)
    assert left_behind(service, settings)[0] == 0


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.RESET, Fault.CUT_REQUEST])
@pytest.mark.parametrize("operation", [each for each in OPERATIONS if each != "complete"])
def test_a_lasting_fault_keeps_what_was_acknowledged(
    behind: Kept, proxy: FaultyProxy, operation: str, fault: Fault
) -> None:
    data = pattern(40 * MIB)
    method, part = OPERATIONS[operation]
    if fault is Fault.CUT_REQUEST and method == "GET":
        fault = Fault.CUT_ANSWER
    proxy.fail(fault, method, part, times=FOR_EVER)
    with pytest.raises(StorageFailed) as caught:
        push(behind, data)
    assert SECRET_KEY not in str(caught.value) and str(proxy.port) not in str(caught.value)
    proxy.heal()
    offset = behind.status(UPLOAD).size
    with behind.append(UPLOAD, offset) as writer:
        write(writer, data[offset:])
    key = commit(behind, UPLOAD, StoreKey(Digest.of(data)), len(data))
    assert content(behind, key) == data


def test_a_completion_that_lost_all_its_answers_is_asked_again(
    behind: Kept, proxy: FaultyProxy
) -> None:
    data = pattern(40 * MIB)
    proxy.fail(Fault.LOSE_ANSWER, "POST", "uploadId=")
    proxy.fail(Fault.RESET, "POST", "uploadId=", times=FOR_EVER)
    with pytest.raises(StorageFailed):
        push(behind, data)
    proxy.heal()
    key = commit(behind, UPLOAD, StoreKey(Digest.of(data)), len(data))
    assert content(behind, key) == data


def test_a_copy_that_lost_all_its_answers_is_asked_again(behind: Kept, proxy: FaultyProxy) -> None:
    behind.begin(UPLOAD)
    with behind.append(UPLOAD, 0) as writer:
        writer.write(DATA)
    row = behind.rows[UPLOAD]
    assert commit(behind, UPLOAD, KEY, len(DATA)) == KEY
    behind.rows[UPLOAD] = row  # the database did not hear of it
    assert commit(behind, UPLOAD, KEY, len(DATA)) == KEY
    assert content(behind, KEY) == DATA


def test_a_download_is_taken_up_where_it_broke(behind: Kept, proxy: FaultyProxy) -> None:
    data = pattern(10 * MIB)
    behind.begin(UPLOAD)
    with behind.append(UPLOAD, 0) as writer:
        write(writer, data)
    commit(behind, UPLOAD, KEY, len(data))
    proxy.fail(Fault.CUT_ANSWER, "GET", "/blobs/", times=2)
    with behind.open(KEY, len(data)) as blob:
        blob.prepare(0, len(data))
        assert b"".join(blob.read_at(at, MIB) for at in range(0, len(data), MIB)) == data
    proxy.fail(Fault.CUT_ANSWER, "GET", "/blobs/", times=FOR_EVER)
    with (
        behind.open(KEY, len(data)) as blob,
        pytest.raises(StorageFailed, match="reading it from S3 failed"),
    ):
        blob.prepare(0, len(data))
        for at in range(0, len(data), MIB):
            blob.read_at(at, MIB)


def test_bytes_of_another_size_are_not_served(storage: Kept) -> None:
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        writer.write(DATA)
    commit(storage, UPLOAD, KEY, len(DATA))
    with storage.open(KEY, len(DATA) + 1) as blob, pytest.raises(StorageFailed):
        blob.prepare(0, 2)


def test_a_bucket_that_is_not_there_is_told(settings: Settings) -> None:
    storage = S3Storage(dataclasses.replace(settings, s3_bucket="another-bucket"))
    try:
        with pytest.raises(StorageFailed, match="does not exist"):
            storage.check()
    finally:
        storage.close()


def test_credentials_never_show(settings: Settings) -> None:
    wrong = dataclasses.replace(settings, s3_secret_key="another-secret-that-is-wrong")
    storage = S3Storage(wrong)
    try:
        with pytest.raises(StorageFailed) as caught:
            storage.check()
        for text in (str(caught.value), repr(storage.bucket), repr(wrong)):
            assert "another-secret" not in text and ACCESS_KEY not in text
    finally:
        storage.close()


def test_a_signed_url_lasts_for_a_while_and_is_for_the_public_endpoint(settings: Settings) -> None:
    public = dataclasses.replace(
        settings, s3_redirect=True, s3_public_endpoint="https://blobs.example.com"
    )
    storage = Kept(public)
    try:
        assert storage.url(KEY) is not None
        url = urlsplit(storage.url(KEY) or "")
        assert (url.scheme, url.netloc) == ("https", "blobs.example.com")
        assert url.path == f"/{settings.s3_bucket}/{KEY}"
        assert SECRET_KEY not in url.geturl()
        assert parse_qs(url.query)["X-Amz-Expires"] == ["1200"]
    finally:
        storage.close()
