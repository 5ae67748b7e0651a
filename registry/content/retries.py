"""Uploads whose bytes became a blob and whose rows could not be written: what lets them go on.

Between the two steps of a commit the database may fail, or the server may be killed. The upload's
row is still there then, its bytes are under the blob's key. The same PUT again may finish it, but
only on proof that this upload brought these bytes: whoever merely knows a digest must get nothing.
Two proofs count: this process placed them itself, or the hash that the row saved of the received
bytes is that digest. Without one the client begins the upload anew.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from ocispec.digest import Digest
from registry.content.hashing import InvalidHashState, resume_hasher
from registry.metadata.base import UploadRecord
from registry.storage.base import StoreKey

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Placed:
    """Bytes of an upload that were committed to the store."""

    digest: Digest
    #: In bytes.
    size: int
    key: StoreKey
    #: Of the digest, at that time.
    generation: int


class PlacedUploads:
    """What this process placed and did not enter yet. Bounded: the oldest are forgotten."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._placed: OrderedDict[str, Placed] = OrderedDict()
        self._remembered = remembered

    def add(self, upload: str, placed: Placed) -> None:
        self._placed[upload] = placed
        if len(self._placed) > self._remembered:
            self._placed.popitem(last=False)

    def remove(self, upload: str) -> None:
        self._placed.pop(upload, None)

    def find(self, upload: str, digest: Digest) -> Placed | None:
        """The upload's bytes, if they were placed as this digest."""
        placed = self._placed.get(upload)
        return placed if placed is not None and placed.digest == digest else None


def size_hashed(record: UploadRecord, digest: Digest) -> int | None:
    """How many bytes the upload has received, if the row says that they have this digest."""
    if not record.hash_state:
        return None
    try:
        hasher = resume_hasher(record.hash_state)
    except InvalidHashState:
        return None
    if hasher.algorithm != digest.algorithm or hasher.digest() != digest:
        return None
    return hasher.size
