"""The collector: steps that a loop, a command or a test drives one by one.

Each step is a small transaction, or the removal of bytes that a transaction before it doomed. A
step may be interrupted or repeated anywhere, by any replica: what was not finished is found again.
Between a transaction and the bytes `at` is awaited with the name of the place, so that tests can
stop there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from ocispec.digest import Digest
from registry.errors import RegistryError
from registry.metadata.base import Metadata
from registry.metadata.collecting import DoomedObject, Reviewed
from registry.metadata.upkeep import StoredObject, StoredRow
from registry.server.threads import SENDERS, in_thread
from registry.storage.base import BlobListing, BlobReader, BlobRemover, Health, OpenBlob, StoreKey
from registry.storage.errors import BlobMissing, InvalidStoreKey, StorageError

log = logging.getLogger("pyreg.registry")

DAY_S = 24 * 3600
_CHUNK = 1 << 20
_PAGE = 1000


class Store(BlobReader, BlobRemover, BlobListing, Health, Protocol):
    """What the collector needs of a store."""


@dataclass(frozen=True, slots=True)
class CollectTerms:
    """How patient the collector is, in seconds."""

    #: Between the doom of bytes and their removal: the longest read, or signed URL.
    sweep_delay_s: int = 600
    #: Bytes without a row are unknown only when they are older than this.
    unknown_after_s: int = DAY_S
    #: Repositories that hold nothing are forgotten after this time.
    empty_after_s: int = 30 * DAY_S
    #: Events of the outbox that everybody has read are forgotten after this time.
    events_s: int = 7 * DAY_S


@dataclass(slots=True)
class Swept:
    looked: int = 0
    #: Objects removed, and their bytes.
    removed: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Audited:
    looked: int = 0
    #: Objects without a row, which will be swept.
    unknown: int = 0


@dataclass(slots=True)
class Scrubbed:
    looked: int = 0
    #: Bytes read.
    bytes: int = 0
    #: Digests whose bytes are gone, or are others.
    missing: list[str] = field(default_factory=list)
    rotten: list[str] = field(default_factory=list)
    #: Where to go on; empty at the end of all blobs.
    after: str = ""


async def _go_on(place: str) -> None:
    """Where nobody wants to stop."""


class Collector:
    """The steps. Raises in each: DatabaseBusy, DatabaseUnreachable, StorageFailed."""

    def __init__(
        self,
        metadata: Metadata,
        storage: Store,
        *,
        terms: CollectTerms | None = None,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        at: Callable[[str], Awaitable[None]] = _go_on,
    ) -> None:
        self.metadata = metadata
        self.storage = storage
        self.terms = terms or CollectTerms()
        self.clock = clock
        #: For jitter; tests give one with a seed.
        self.chance = chance or random.Random(os.urandom(8))
        self._at = at

    async def review_manifests(self, limit: int = 100) -> Reviewed:
        """Remove manifests that are due and that nothing keeps."""
        return await self._review("manifest", self.metadata.collection.review_manifests, limit)

    async def review_blobs(self, limit: int = 100) -> Reviewed:
        """Doom blobs that are due and that nothing keeps: from then on they are not there."""
        return await self._review("blob", self.metadata.collection.review_blobs, limit)

    async def _review(
        self, kind: str, step: Callable[..., Awaitable[Reviewed]], limit: int
    ) -> Reviewed:
        """One that cannot be decided must not keep the others from it."""
        try:
            return await step(limit=limit)
        except RegistryError:
            raise  # the database's trouble, not the entry's
        except Exception:
            if limit > 1:
                return await self._review(kind, step, limit // 2)
            await self.metadata.collection.postpone(kind)
            raise

    async def sweep(self, limit: int = 1000) -> Swept:
        """Remove the bytes of objects that were doomed long enough ago."""
        collection = self.metadata.collection
        objects = await collection.objects_to_sweep(delay_s=self.terms.sweep_delay_s, limit=limit)
        done = Swept(looked=len(objects))
        if not objects:
            return done
        live = await collection.live_keys([each.store_key for each in objects])
        # None is, as a doomed key is never used again; yet no removal goes by that alone.
        await self._at("before removal")
        await in_thread(SENDERS, self._remove, [o for o in objects if o.store_key not in live])
        await self._at("after removal")
        done.bytes = await collection.swept(objects)
        done.removed = len(objects) - len(live)
        return done

    def _remove(self, objects: Sequence[DoomedObject]) -> None:
        keys: list[StoreKey] = []
        for each in objects:
            try:
                keys.append(StoreKey.parse(each.store_key))
            except InvalidStoreKey:
                # Nothing can be under it; one such row must not keep the others.
                log.warning("%r cannot be a key of the store: forgotten", each.store_key[:200])
        self.storage.remove_all(keys)

    async def audit(self, *, rest: Callable[[], Awaitable[None]] | None = None) -> Audited:
        """Compare all stored bytes with the rows, and enter what is in no row to be swept; then
        enter blobs that nothing will look at. Removes nothing. `rest` is awaited between pages."""
        done = Audited()
        listing = iter(self.storage.blobs())
        before = self.clock() - self.terms.unknown_after_s
        while page := await in_thread(SENDERS, lambda: list(islice(listing, _PAGE))):
            done.looked += len(page)
            old = [StoredObject(str(o.key), o.size) for o in page if o.committed_at < before]
            if old:
                await self._at("audit")
                done.unknown += await self._enter_unknown(old)
            if rest is not None:
                await rest()
        after = ""
        while after := await self.metadata.upkeep.review_old(after=after, limit=_PAGE):
            if rest is not None:
                await rest()
        return done

    async def _enter_unknown(self, objects: list[StoredObject]) -> int:
        known = await self.metadata.collection.live_keys([each.store_key for each in objects])
        unknown = [each for each in objects if each.store_key not in known]
        return await self.metadata.upkeep.doom_unknown(unknown) if unknown else 0

    async def scrub(self, limit: int = 100, *, after: str = "") -> Scrubbed:
        """Read the bytes of the next live blobs by digest, and compare. Those that are lost are
        not there from then on; the next push of them counts."""
        rows = await self.metadata.upkeep.live_rows(after=after, limit=limit)
        done = Scrubbed(looked=len(rows), after=rows[-1].digest if len(rows) == limit else "")
        good: list[str] = []
        for row in rows:
            try:
                reason = await in_thread(SENDERS, self._compare, row)
            except StorageError:
                continue  # the store's trouble says nothing about the blob
            done.bytes += row.size
            if not reason:
                good.append(row.digest)
                continue
            await self._at("lost")
            if await self.metadata.upkeep.lose(row, reason=reason):
                (done.missing if reason == "missing" else done.rotten).append(row.digest)
        if good:
            await self.metadata.upkeep.verified(good)
        return done

    def _compare(self, row: StoredRow) -> str:
        """Empty, or what is wrong with the bytes."""
        digest = Digest.parse(row.digest)
        try:
            with self.storage.open(StoreKey.parse(row.store_key), None) as blob:
                if blob.size != row.size:
                    return "rotten"
                return "" if _hash(blob, digest.algorithm) == digest.encoded else "rotten"
        except BlobMissing:
            # A store that is away as a whole says nothing about one blob. Raises: StorageFailed.
            self.storage.check()
            return "missing"

    async def prune_repositories(self) -> int:
        """Forget repositories that hold nothing."""
        removed, after = 0, 0
        while True:
            pruned, after = await self.metadata.upkeep.prune_repositories(
                after=after, older_than_s=self.terms.empty_after_s
            )
            removed += pruned
            if not after:
                return removed

    async def prune_events(self, limit: int = 1000) -> int:
        return await self.metadata.collection.prune_events(
            older_than_s=self.terms.events_s, limit=limit
        )

    async def prune_history(self, limit: int = 1000) -> int:
        return await self.metadata.collection.prune_history(limit=limit)


def _hash(blob: OpenBlob, algorithm: str) -> str:
    hasher = hashlib.new(algorithm)
    blob.prepare(0, blob.size)
    offset = 0
    while offset < blob.size:
        piece = blob.read_at(offset, _CHUNK)
        if not piece:
            break
        hasher.update(piece)
        offset += len(piece)
    return hasher.hexdigest()
