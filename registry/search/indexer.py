"""Brings what was pushed and removed into the index of search, a moment later.

One process at a time does it, by a lease in the database; the others look every few seconds whether
it still does. It takes small pieces and rests in between, longest while pushes go on: nobody waits
for the index, and everybody for the database's writer. What a crash interrupts is done again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field

from registry.errors import RegistryError
from registry.metadata.search_index import Batch, Document, SqlSearchIndex
from registry.search.terms import MAX_CONFIG_BYTES, Terms, terms_of
from registry.storage.base import BlobReader, StoreKey

log = logging.getLogger("pyreg.search")

LOOK_EVERY_S = 2.0
LEASE_S = 30
#: Manifests or events in one transaction.
BATCH = 25
#: How much longer than it works it rests: while pushes go on, and while none do.
_REST_BUSY = 9.0
_REST_IDLE = 1.0
_BUSY_S = 5
#: Events that are done but not passed yet; more only after older transactions ended.
_MAX_DONE = 10_000


@dataclass(slots=True)
class Fence:
    """All events up to `event` have been read once every transaction before `xmax` has ended."""

    event: int
    xmax: int


@dataclass(slots=True)
class _Memory:
    position: int = -1
    done: set[int] = field(default_factory=set)
    fence: Fence | None = None


class Indexer:
    def __init__(self, index: SqlSearchIndex, storage: BlobReader) -> None:
        self._index = index
        self._storage = storage
        self._holder = secrets.token_hex(8)
        self._memory = _Memory()

    async def run(self) -> None:
        """Until cancelled. Failures are logged and tried again."""
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                try:
                    while (worked := await self.step()) is not None:
                        await asyncio.sleep(worked)
                except RegistryError as error:
                    log.warning("the index of search waits: %s", error)
                except Exception:
                    log.exception("the index of search cannot go on; it tries again")
                    await asyncio.sleep(10 * LOOK_EVERY_S)
        finally:
            if self._memory.position >= 0:
                await asyncio.shield(self._index.release(self._holder))

    async def catch_up(self) -> None:
        """Until nothing is left to do: for tests, and for a command."""
        while await self.step() is not None:
            pass

    async def step(self) -> float | None:
        """Bring one batch in. How long to rest then, in seconds; None if there is nothing to do."""
        began = time.perf_counter()
        seen = await self._index.look()
        if seen.holder not in ("", self._holder) and seen.held_until > seen.now:
            return None
        memory = self._memory
        if seen.holder != self._holder or memory.position > seen.position:
            memory = self._memory = _Memory(seen.position)
        memory.position = max(memory.position, seen.position)
        if seen.newest <= memory.position and not seen.rebuilding:
            return None
        is_held = seen.holder == self._holder and seen.held_until - seen.now > LEASE_S // 2
        if not is_held and not await self._index.hold(self._holder, LEASE_S):
            return None
        room = BATCH if len(memory.done) < _MAX_DONE else 0
        batch = await self._index.changed(memory.position, frozenset(memory.done), n=room)
        if batch.events or seen.newest > memory.position:
            moved = await self._bring_in(batch)
            if batch.events or moved:
                busy = seen.now - batch.at < _BUSY_S
                return (time.perf_counter() - began) * (_REST_BUSY if busy else _REST_IDLE)
        if not seen.rebuilding:
            return None
        place = seen.rebuilding, seen.rebuilt
        piece = await self._index.piece(*place, n=BATCH)
        await self._index.store(
            self._holder, piece, await self._read(piece.documents), piece_of=place
        )
        return (time.perf_counter() - began) * _REST_IDLE

    async def _bring_in(self, batch: Batch) -> bool:
        """Index what events ask for; whether the position moved."""
        memory = self._memory
        position = self._passed(batch)
        if not batch.events and position == memory.position:
            return False
        terms = await self._read(batch.documents)
        if not await self._index.store(self._holder, batch, terms, position=position):
            self._memory = _Memory()
            return False
        memory.done.update(batch.events)
        memory.done = {id for id in memory.done if id > position}
        moved = position > memory.position
        memory.position = position
        return moved

    def _passed(self, batch: Batch) -> int:
        """How far nothing is left to read once this batch is in."""
        memory = self._memory
        newest = max((*batch.events, *memory.done), default=memory.position)
        if not batch.xmax:
            return newest
        position = memory.position
        if memory.fence is not None and batch.xmin >= memory.fence.xmax:
            # This batch was read after all of them had ended. What it had no room for is behind it.
            full = len(batch.events) == BATCH
            limit = batch.events[-1] if full else newest
            position = max(position, min(memory.fence.event, limit))
            memory.fence = None
        if memory.fence is None and newest > position:
            memory.fence = Fence(newest, batch.xmax)
        return position

    async def _read(self, documents: list[Document]) -> dict[int, Terms]:
        if not documents:
            return {}
        return await asyncio.to_thread(lambda: {d.manifest_id: self._terms(d) for d in documents})

    def _terms(self, document: Document) -> Terms:
        config = None
        if document.config_key and document.config_size <= MAX_CONFIG_BYTES:
            try:
                key = StoreKey.parse(document.config_key)
                with self._storage.open(key, document.config_size) as opened:
                    config = opened.read_at(0, MAX_CONFIG_BYTES)
            except RegistryError as error:
                # Removed meanwhile, or lost: then there is an event to come, or the scrub's work.
                log.info("configuration of %s not read: %s", document.digest, error)
        return terms_of(
            media_type=document.media_type,
            artifact_type=document.artifact_type,
            config_media_type=document.config_media_type,
            annotations=document.annotations,
            index=document.index,
            config=config,
        )
