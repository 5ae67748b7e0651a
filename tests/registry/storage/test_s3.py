"""The store in a bucket of a real S3 service: the contract, and what only S3 can do to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UploadContended
from registry.settings import Settings
from registry.storage.base import Progress, StoreKey, UploadStatus
from registry.storage.errors import UploadExists, UploadUnknown
from registry.storage.s3.store import S3Storage
from registry.storage.s3.writer import S3UploadWriter
from tests.builders.s3 import S3Service, s3_service
from tests.registry.storage.contract import UPLOAD, StorageContract

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
        self._writer.write(data)
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
