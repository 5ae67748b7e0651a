"""What storage can answer instead of doing what was asked.

StorageError              base, a RegistryError
├── InvalidStoreKey       text that names no possible blob
├── BlobMissing           no bytes under this key
├── UploadUnknown         never begun, committed, aborted, or not an id at all
├── UploadExists          the id is taken
├── UploadBusy            another request writes it at this moment
├── OffsetMismatch        bytes offered for another place than the end
├── StorageFull           no space or quota left; what was acknowledged before is kept
└── StorageFailed         the disk or the service failed
"""

from __future__ import annotations

from registry.errors import RegistryError


class StorageError(RegistryError):
    """`str(error)` is one line for a person."""


class InvalidStoreKey(StorageError):
    pass


class BlobMissing(StorageError):
    def __init__(self, key: object) -> None:
        super().__init__(
            f"no stored bytes under {key}",
            hint="the database names bytes that the storage does not have; restore them or "
            "delete the blob and push it again",
        )
        self.key = key


class UploadUnknown(StorageError):
    def __init__(self, upload: str) -> None:
        super().__init__(f"upload {upload!r} does not exist")
        self.upload = upload


class UploadExists(StorageError):
    def __init__(self, upload: str) -> None:
        super().__init__(f"upload {upload!r} exists already")
        self.upload = upload


class UploadBusy(StorageError):
    def __init__(self, upload: str) -> None:
        super().__init__(f"upload {upload!r} is being written by another request")
        self.upload = upload


class OffsetMismatch(StorageError):
    """`expected` is the upload's size, `found` what was asked for."""

    def __init__(self, *, expected: int, found: int) -> None:
        super().__init__(f"the upload has {expected} bytes, not {found}")
        self.expected = expected
        self.found = found


class StorageFull(StorageError):
    def __init__(self, what: str) -> None:
        super().__init__(
            f"no space left while storing {what}",
            hint="free space on the registry's storage, then push again",
        )


class StorageFailed(StorageError):
    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"storage failed for {what}: {reason}")
        self.reason = reason
