"""The collector's life in a server: small steps, far apart, in every replica.

A token bucket holds its pace, so that requests do not notice; the places where it waits have
jitter, so that replicas do not step together; an error is logged and answered with patience. What
only one process must do at a time (audit, scrub, pruning) is claimed by a row.
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from registry.content.collect import DAY_S, Collector
from registry.observe.counts import COLLECTED

log = logging.getLogger("pyreg.registry")

IDLE_S = 5.0
_FIRST_BACK_OFF_S = 5.0
_MOST_BACK_OFF_S = 300.0
# Small: each is one transaction in a thread beside the one that answers requests.
_BATCH = 20
_SWEEP = 100
_HOUR_S = 3600


class Pace:
    """A token bucket: how long to wait after so much was done."""

    def __init__(self, per_second: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._clock = clock
        self._free_at = clock()

    def wait_after(self, amount: float) -> float:
        """Seconds until the bucket has a token again."""
        now = self._clock()
        self._free_at = max(self._free_at, now) + amount / self._per_second
        return max(0.0, self._free_at - now)


@dataclass(frozen=True, slots=True)
class LoopTerms:
    #: Entries and objects a second.
    pace: int = 1500
    #: Bytes a second that are read to be compared with their digests; 0 is none.
    scrub_bytes: int = 4 << 20
    scrub_every_s: int = 30 * DAY_S
    audit_every_s: int = 7 * DAY_S


class CollectionLoop:
    def __init__(
        self,
        collector: Collector,
        terms: LoopTerms,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self.collector = collector
        self._terms = terms
        self._sleep = sleep
        self._chance = chance or collector.chance
        clock = monotonic or (lambda: asyncio.get_running_loop().time())
        self._clock = clock
        #: Who claims tasks; of this process alone.
        self.holder = str(uuid.uuid4())

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(
            self._forever(self.round, "collect garbage"),
            self._forever(self.upkeep, "look after stored bytes"),
        )

    async def _forever(self, step: Callable[[], Awaitable[bool]], what: str) -> None:
        back_off = _FIRST_BACK_OFF_S
        while True:
            try:
                busy = await step()
                back_off = _FIRST_BACK_OFF_S
                wait = 0.0 if busy else IDLE_S
            except Exception as error:
                log.warning("cannot %s, trying again in %.0f s: %s", what, back_off, error)
                wait, back_off = back_off, min(2 * back_off, _MOST_BACK_OFF_S)
            await self._sleep(wait * self._chance.uniform(0.8, 1.2))

    async def round(self) -> bool:
        """One step of each kind; False if there was nothing to do."""
        collector = self.collector
        report = collector.metadata.collection_report
        if await collector.metadata.upkeep.paused() is not None:
            return False
        if not await report.due(sweep_delay_s=collector.terms.sweep_delay_s):
            return False
        pace = Pace(self._terms.pace, self._clock)
        busy = False
        for noun, review in (
            ("manifests", collector.review_manifests),
            ("blobs", collector.review_blobs),
        ):
            done = await review(_BATCH)
            COLLECTED.add(noun, done.removed)
            busy = busy or done.looked > 0
            await self._sleep(pace.wait_after(done.looked))
        swept = await collector.sweep(_SWEEP)
        COLLECTED.add("objects", swept.removed)
        COLLECTED.add("bytes", swept.bytes)
        await self._sleep(pace.wait_after(swept.looked))
        return busy or swept.looked > 0

    async def upkeep(self) -> bool:
        """What one process does at a time; False if nothing was due."""
        upkeep = self.collector.metadata.upkeep
        if await upkeep.paused() is not None:
            return False
        await self._prune()
        await self._audit()
        return await self._scrub()

    async def _prune(self) -> None:
        collector, upkeep = self.collector, self.collector.metadata.upkeep
        if await upkeep.claim("prune", self.holder, for_s=600, first_in_s=600) is None:
            return
        trash = collector.metadata.trash
        for step in (collector.prune_events, collector.prune_history, trash.expire):
            while await step() >= 500:
                await self._sleep(0.1)
        await upkeep.finish("prune", self.holder, again_in_s=_HOUR_S)

    async def _audit(self) -> None:
        collector, upkeep = self.collector, self.collector.metadata.upkeep
        if await upkeep.claim("audit", self.holder, for_s=DAY_S, first_in_s=DAY_S) is None:
            return
        done = await collector.audit(rest=lambda: self._sleep(0.2))
        await collector.prune_repositories()
        if done.unknown:
            log.warning("%d stored objects belong to no blob; they will be removed", done.unknown)
        await upkeep.finish("audit", self.holder, again_in_s=self._terms.audit_every_s)

    async def _scrub(self) -> bool:
        collector, upkeep = self.collector, self.collector.metadata.upkeep
        if not self._terms.scrub_bytes:
            return False
        after = await upkeep.claim("scrub", self.holder, for_s=6 * _HOUR_S, first_in_s=DAY_S)
        if after is None:
            return False
        pace = Pace(self._terms.scrub_bytes, self._clock)
        done = await collector.scrub(1, after=after)
        for reason, digests in (("missing", done.missing), ("rotten", done.rotten)):
            for digest in digests:
                COLLECTED.add(reason)
                log.error(
                    "the bytes of %s are %s; it is gone until it is pushed again", digest, reason
                )
        if done.after:
            await upkeep.progress("scrub", self.holder, done.after, for_s=6 * _HOUR_S)
        else:
            await upkeep.finish("scrub", self.holder, again_in_s=self._terms.scrub_every_s)
        await self._sleep(pace.wait_after(done.bytes))
        return True
