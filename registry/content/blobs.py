"""Blobs as a repository holds them: find, open, mount, remove."""

from __future__ import annotations

import time
from collections.abc import Callable

from ocispec.digest import Digest
from registry.errors import BlobUnknown
from registry.metadata.base import Access, BlobRecord, Metadata
from registry.server.threads import SENDERS, in_thread
from registry.storage.base import BlobReader, OpenBlob, StoreKey
from registry.storage.errors import BlobMissing

# A lease lasts a day; it is renewed when half of that is over, so that most looks write nothing.
RENEW_BEFORE_S = 12 * 3600


class Blobs:
    """Reads go straight to the hot path; whether a blob exists is one row and nothing else."""

    def __init__(self, metadata: Metadata, storage: BlobReader, *, redirects: bool = False) -> None:
        self._metadata = metadata
        self._storage = storage
        #: Whether `url` may give an address elsewhere.
        self.redirects = redirects

    async def find(self, access: Access, digest: Digest) -> BlobRecord:
        """The blob, kept for another while if nothing refers to it yet: who asks before a push
        relies on the answer until the manifest is there.

        Raises: BlobUnknown.
        """
        record = await self._metadata.hot.blob(access, digest)
        if record is None:
            raise BlobUnknown(access.name, digest)
        if is_lease_due(record) and not await self._metadata.blobs.extend_lease(access, digest):
            raise BlobUnknown(access.name, digest)
        return record

    async def open(self, access: Access, digest: Digest) -> OpenBlob:
        """The blob's bytes; the caller closes them. Raises: BlobUnknown."""
        record = await self._metadata.hot.blob(access, digest)
        if record is None:
            raise BlobUnknown(access.name, digest)
        key = StoreKey.parse(record.store_key)
        try:
            if self._storage.opens_at_once:
                return self._storage.open(key, record.size)
            return await in_thread(SENDERS, self._storage.open, key, record.size)
        except BlobMissing:
            # Removed between the row and the open, which is as if it had been before the row.
            if await self._metadata.hot.blob(access, digest) is None:
                raise BlobUnknown(access.name, digest) from None
            raise

    async def prepare(
        self, access: Access, digest: Digest, blob: OpenBlob, offset: int, count: int
    ) -> None:
        """Make sure that these bytes can be read, before an answer promises them.

        Raises: BlobUnknown; BlobMissing; StorageFailed.
        """
        if blob.fd is not None:
            return
        try:
            await in_thread(SENDERS, blob.prepare, offset, count)
        except BlobMissing:
            if await self._metadata.hot.blob(access, digest) is None:
                raise BlobUnknown(access.name, digest) from None
            raise

    async def url(self, access: Access, digest: Digest) -> str | None:
        """Where the client may read the blob itself; None: from us. Raises: BlobUnknown."""
        record = await self._metadata.hot.blob(access, digest)
        if record is None:
            raise BlobUnknown(access.name, digest)
        return self._storage.url(StoreKey.parse(record.store_key))

    async def mount(self, access: Access, digest: Digest, source: Access) -> BlobRecord | None:
        """Hold in `access` what `source` holds; None if it does not."""
        return await self._metadata.blobs.mount(access, digest, source)

    async def mount_from_any(
        self, access: Access, digest: Digest, may_read: Callable[[str], bool]
    ) -> BlobRecord | None:
        """The same from whatever repository the caller may read; None if there is none."""
        return await self._metadata.blobs.mount_from_any(access, digest, may_read)

    async def remove(self, access: Access, digest: Digest) -> None:
        """Raises: BlobUnknown; BlobReferenced."""
        await self._metadata.blobs.remove(access, digest)


def is_lease_due(record: BlobRecord) -> bool:
    """Whether somebody who asks for the blob has its lease renewed."""
    return (
        record.unreferenced_since is not None and record.lease_until < time.time() + RENEW_BEFORE_S
    )
