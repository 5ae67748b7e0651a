"""The operations of S3 that the store needs, on one bucket; foreign errors end here.

Every call is tried a bounded number of times by the client library, with growing pauses. What an
error says never holds an address, a key id or a signature: clients of the registry may read it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from registry.settings import Settings
from registry.storage.errors import (
    BlobMissing,
    StorageError,
    StorageFailed,
    StorageFull,
    UploadUnknown,
)

#: Tries of one request, and seconds to connect and between two bytes.
ATTEMPTS = 4
CONNECT_S = 5
READ_S = 60
#: For the health check, which must not wait.
PROBE_S = 2
PROBE_EVERY_S = 5.0
#: Connections at once: threads that receive, send and upload parts.
CONNECTIONS = 64
#: S3's bound on one DeleteObjects.
BATCH = 1000

_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})
_FULL = frozenset({"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity", "507"})
_OPAQUE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    #: Bytes.
    size: int
    #: Seconds since 1970.
    modified_at: float


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    #: S3's own checksum or version of it.
    etag: str
    size: int = 0
    modified_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Multipart:
    key: str
    id: str
    begun_at: float


class Bucket:
    """Keys are relative to the prefix. Safe for many threads. All methods block.

    Every method raises StorageFailed, and StorageFull where it writes.
    """

    def __init__(self, settings: Settings) -> None:
        self.name = settings.s3_bucket
        prefix = settings.s3_prefix.rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._settings = settings
        self._session = botocore.session.get_session()
        self._client = self._make_client(settings.s3_endpoint)
        self._probe = self._make_client(
            settings.s3_endpoint,
            connect_timeout=PROBE_S,
            read_timeout=PROBE_S,
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=1,
        )
        self._signer = self._client
        if settings.s3_public_endpoint not in ("", settings.s3_endpoint):
            self._signer = self._make_client(settings.s3_public_endpoint)
        self._probed = threading.Lock()
        self._probe_again_at = 0.0
        self._probe_error: StorageError | None = None

    def __repr__(self) -> str:
        return f"Bucket({self.name!r}, {self._prefix!r})"

    def _make_client(self, endpoint: str, **changes: Any) -> Any:
        settings = self._settings
        checksums = "when_supported" if settings.s3_checksums else "when_required"
        options: dict[str, Any] = {
            "signature_version": "s3v4",
            "connect_timeout": CONNECT_S,
            "read_timeout": READ_S,
            "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
            "max_pool_connections": CONNECTIONS,
            "tcp_keepalive": True,
            "request_checksum_calculation": checksums,
            "response_checksum_validation": checksums,
            # Our digests cover the bytes: hashing every request once more would halve the speed.
            "s3": {
                "payload_signing_enabled": False,
                "addressing_style": "path" if settings.s3_path_style and endpoint else "auto",
            },
        }
        return self._session.create_client(
            "s3",
            endpoint_url=endpoint or None,
            region_name=settings.s3_region
            or self._session.get_config_variable("region")
            or "us-east-1",
            aws_access_key_id=settings.s3_access_key or None,
            aws_secret_access_key=settings.s3_secret_key or None,
            aws_session_token=settings.s3_session_token or None,
            config=Config(**{**options, **changes}),
        )

    def close(self) -> None:
        for client in {
            id(each): each for each in (self._client, self._probe, self._signer)
        }.values():
            client.close()

    # ---- objects

    def put(self, key: str, body: IO[bytes] | bytes) -> None:
        """Store a whole object; one under the same key is replaced in one step."""
        with _translated(key):
            self._client.put_object(**self._at(key), Body=body, ContentType=_OPAQUE)

    def get(self, key: str, start: int, stop: int) -> tuple[Any, int]:
        """A stream of the bytes [start, stop), which may not be empty, and the object's size."""
        with _translated(key):
            answer = self._client.get_object(**self._at(key), Range=f"bytes={start}-{stop - 1}")
        _, _, size = str(answer.get("ContentRange", "")).partition("/")
        if not size.isdigit() or answer["ContentLength"] != stop - start:
            answer["Body"].close()
            raise StorageFailed(key, "the service sent another range than was asked for")
        return answer["Body"], int(size)

    def size(self, key: str) -> int:
        """Raises: BlobMissing."""
        with _translated(key):
            return int(self._client.head_object(**self._at(key))["ContentLength"])

    def copy(self, source: str, target: str) -> None:
        with _translated(source):
            self._client.copy_object(
                **self._at(target),
                CopySource={"Bucket": self.name, "Key": self._prefix + source},
                ContentType=_OPAQUE,
                MetadataDirective="REPLACE",
            )

    def delete(self, key: str) -> None:
        """Harmless if there is none."""
        with _translated(key):
            self._client.delete_object(**self._at(key))

    def delete_all(self, keys: Iterable[str]) -> None:
        waiting = [{"Key": self._prefix + key} for key in keys]
        for start in range(0, len(waiting), BATCH):
            batch = waiting[start : start + BATCH]
            with _translated(f"{len(batch)} objects"):
                answer = self._client.delete_objects(
                    Bucket=self.name, Delete={"Objects": batch, "Quiet": True}
                )
            for error in answer.get("Errors", ()):
                if error.get("Code") not in _MISSING:
                    raise StorageFailed("a batch of objects", f"the service says {error['Code']}")

    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2")
        for page in self._pages(pages, prefix):
            for each in page.get("Contents", ()):
                yield StoredObject(
                    each["Key"].removeprefix(self._prefix),
                    each["Size"],
                    each["LastModified"].timestamp(),
                )

    # ---- multipart uploads

    def begin(self, key: str) -> str:
        with _translated(key):
            answer = self._client.create_multipart_upload(**self._at(key), ContentType=_OPAQUE)
        return str(answer["UploadId"])

    def put_part(self, key: str, multipart: str, number: int, body: IO[bytes]) -> str:
        """Store a part, or replace it; its etag. Raises: UploadUnknown."""
        with _translated(key):
            answer = self._client.upload_part(
                **self._at(key), UploadId=multipart, PartNumber=number, Body=body
            )
        return str(answer["ETag"])

    def parts(self, key: str, multipart: str) -> Iterator[Part]:
        """In order of their numbers. Raises: UploadUnknown."""
        pages = self._client.get_paginator("list_parts")
        with _translated(key):
            for page in pages.paginate(**self._at(key), UploadId=multipart):
                for each in page.get("Parts", ()):
                    yield Part(
                        each["PartNumber"],
                        each["ETag"],
                        each["Size"],
                        each["LastModified"].timestamp(),
                    )

    def complete(self, key: str, multipart: str, parts: Sequence[Part]) -> None:
        """Raises: UploadUnknown, also if it was completed before."""
        named = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _translated(key):
            self._client.complete_multipart_upload(
                **self._at(key), UploadId=multipart, MultipartUpload={"Parts": named}
            )

    def abort(self, key: str, multipart: str) -> None:
        """Harmless if it ended before."""
        try:
            with _translated(key):
                self._client.abort_multipart_upload(**self._at(key), UploadId=multipart)
        except UploadUnknown:
            pass

    def multiparts(self, prefix: str) -> Iterator[Multipart]:
        """Unfinished ones. Some services answer only if the prefix is a whole key."""
        pages = self._client.get_paginator("list_multipart_uploads")
        for page in self._pages(pages, prefix):
            for each in page.get("Uploads", ()):
                key = each["Key"].removeprefix(self._prefix)
                yield Multipart(key, each["UploadId"], each["Initiated"].timestamp())

    # ---- others

    def url(self, key: str, seconds: int) -> str:
        """A signed address to read an object; made here, nobody is asked."""
        with _translated(key):
            return str(
                self._signer.generate_presigned_url(
                    "get_object", Params=self._at(key), ExpiresIn=seconds
                )
            )

    def check(self) -> None:
        """Whether the bucket answers; asked at most every few seconds, by one thread."""
        with self._probed:
            if time.monotonic() >= self._probe_again_at:
                self._probe_error = None
                try:
                    with _translated(f"bucket {self.name}"):
                        self._probe.head_bucket(Bucket=self.name)
                except BlobMissing:
                    self._probe_error = StorageFailed(f"bucket {self.name}", "it does not exist")
                except StorageError as error:
                    self._probe_error = error
                self._probe_again_at = time.monotonic() + PROBE_EVERY_S
            if self._probe_error is not None:
                raise self._probe_error

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.name, "Key": self._prefix + key}

    def _pages(self, paginator: Any, prefix: str) -> Iterator[Any]:
        with _translated(prefix):
            yield from paginator.paginate(Bucket=self.name, Prefix=self._prefix + prefix)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The service's and the library's errors in the words of storage, without addresses."""
    try:
        yield
    except ClientError as error:
        raise _refused(what, error) from None
    except BotoCoreError as error:
        raise StorageFailed(what, f"S3 cannot be used now ({type(error).__name__})") from None


def _refused(what: str, error: ClientError) -> StorageError:
    code = str(error.response.get("Error", {}).get("Code", ""))[:100]
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchUpload":
        return UploadUnknown(what)
    if code in _MISSING:
        return BlobMissing(what)
    if code in _FULL or status == 507:
        return StorageFull(what)
    return StorageFailed(what, f"S3 answered {status} {code}")
