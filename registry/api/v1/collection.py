"""Garbage collection: how it goes, what it would do, what keeps something, who takes what room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ocispec import grammar
from registry.api.v1.call import Call
from registry.api.v1.shapes import Text, Whole
from registry.api.v1.table import Endpoint, Who
from registry.errors import DigestUnknown
from registry.metadata.collection_report import Lost, Queue, Simulation, Status, Why
from registry.metadata.upkeep import FOR_EVER
from registry.metadata.usage import Usage

_MOST_STEPS = 1000


@dataclass(frozen=True, slots=True)
class Paused:
    by: str
    #: None until somebody resumes.
    until: int | None


@dataclass(frozen=True, slots=True)
class Counter:
    name: str
    value: int


@dataclass(frozen=True, slots=True)
class Collection:
    """How the collector is doing."""

    enabled: bool
    now: int
    paused: Paused | None
    queues: tuple[Queue, ...]
    doomed_objects: int
    doomed_bytes: int
    #: When the oldest object that waits to be swept was doomed; 0 if there is none.
    doomed_oldest_at: int
    counters: tuple[Counter, ...]
    lost: tuple[Lost, ...]


@dataclass(frozen=True, slots=True)
class NewPause:
    """For how long; 0 until somebody resumes."""

    seconds: Annotated[int, Whole(0, 365 * 24 * 3600)] = 0


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run did. `more`: there was more to do than one run does."""

    manifests: int
    blobs: int
    objects: int
    bytes_freed: int
    more: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """Seconds since 1970; 0 is now."""

    at: Annotated[int, Whole(0, 1 << 40)] = 0


@dataclass(frozen=True, slots=True)
class Where:
    """Only this repository; empty: all."""

    repository: Annotated[str, Text(0, grammar.NAME_MAX)] = ""


@dataclass(frozen=True, slots=True)
class Reasons:
    """The blob and the manifests of one digest."""

    items: tuple[Why, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """A repository or namespace, empty is everything; `last`: items after this name."""

    name: Annotated[str, Text(0, grammar.NAME_MAX)] = ""
    last: Annotated[str, Text(0, grammar.NAME_MAX)] = ""


async def collection_status(call: Call) -> Collection:
    status: Status = await call.services.metadata.collection_report.status()
    paused = status.paused
    return Collection(
        enabled=call.services.settings.gc,
        now=status.now,
        paused=None
        if paused is None
        else Paused(paused.by, None if paused.until >= FOR_EVER else paused.until),
        queues=status.queues,
        doomed_objects=status.doomed_objects,
        doomed_bytes=status.doomed_bytes,
        doomed_oldest_at=status.doomed_oldest_at,
        counters=tuple(Counter(name, value) for name, value in status.counters.items()),
        lost=status.lost,
    )


async def run_collection(call: Call) -> Ran:
    from registry.app import collection_loop

    collector = collection_loop(call.services).collector
    manifests = blobs = objects = freed = 0
    for _ in range(_MOST_STEPS // 10):
        one = await collector.review_manifests()
        two = await collector.review_blobs()
        three = await collector.sweep()
        manifests += one.removed
        blobs += two.removed
        objects += three.removed
        freed += three.bytes
        if not (one.looked or two.looked or three.looked):
            return Ran(manifests, blobs, objects, freed, more=False)
    return Ran(manifests, blobs, objects, freed, more=True)


async def simulate_collection(call: Call) -> Simulation:
    at = call.query(Moment).at
    return await call.services.metadata.collection_report.simulate(at=at or None)


async def pause_collection(call: Call) -> None:
    import time

    seconds = call.body(NewPause).seconds
    until = int(time.time()) + seconds if seconds else FOR_EVER
    await call.services.metadata.upkeep.pause(by=call.actor, until=until)


async def resume_collection(call: Call) -> None:
    await call.services.metadata.upkeep.resume()


async def why(call: Call) -> Reasons:
    digest = call.parameters["digest"]
    name = call.query(Where).repository
    found = await call.services.metadata.collection_report.why(digest, name=name)
    if not found:
        raise DigestUnknown(digest)
    return Reasons(found)


async def disk_usage(call: Call) -> Usage:
    scope = call.query(Scope)
    return await call.services.metadata.usage.of(scope.name.strip("/"), last=scope.last)


ENDPOINTS = (
    Endpoint("GET", "/gc", collection_status, Who.ADMIN, "Say how collection goes", Collection),
    Endpoint("POST", "/gc/run", run_collection, Who.ADMIN, "Collect what is due, now", Ran),
    Endpoint(
        "GET", "/gc/simulation", simulate_collection, Who.ADMIN,
        "Say what would be collected", Simulation, query=Moment,
    ),
    Endpoint(
        "PUT", "/gc/pause", pause_collection, Who.ADMIN, "Pause collection", body=NewPause
    ),
    Endpoint("DELETE", "/gc/pause", resume_collection, Who.ADMIN, "Resume collection"),
    Endpoint(
        "GET", "/why/{digest}", why, Who.ADMIN, "Say what keeps a digest", Reasons, query=Where
    ),
    Endpoint("GET", "/usage", disk_usage, Who.ADMIN, "Say what takes room", Usage, query=Scope),
)  # fmt: skip
