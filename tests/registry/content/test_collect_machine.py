"""Pushes, mounts, deletions, restores, collectors and crashes, in any order of their steps.

Hypothesis chooses; `collect_model` says what must hold after every step. A few dozen runs here, as
many as wanted with PYREG_TEST_EXAMPLES.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from ocispec.digest import Digest
from tests.builders.postgres import PostgresServer
from tests.registry.content.collect_model import (
    EXPIRY,
    IMAGES,
    LAYERS,
    LEASE,
    REPOSITORIES,
    SWEEP,
    TAGS,
    TERMS,
    UNTAGGED,
    World,
)
from tests.registry.content.steps import Op
from tests.registry.metadata.conftest import open_file, open_server

MOST = 4  # operations under way at once

repositories = st.sampled_from(REPOSITORIES)
names = st.sampled_from(tuple(IMAGES))
layers = st.sampled_from(LAYERS)
tags = st.sampled_from(TAGS)
indexes = st.integers(0, MOST - 1)

COLLECTING: dict[str, Callable[[Any], Any]] = {
    "review manifests": lambda collector: collector.review_manifests(),
    "review blobs": lambda collector: collector.review_blobs(),
    "sweep": lambda collector: collector.sweep(),
    "audit": lambda collector: collector.audit(),
    "scrub": lambda collector: collector.scrub(),
    "prune history": lambda collector: collector.prune_history(),
}


class CollectMachine(RuleBasedStateMachine):
    open_registry: ClassVar[Callable[[], tuple[Any, Callable[[], None]]]]

    def __init__(self) -> None:
        super().__init__()
        registry, self._drop = type(self).open_registry()
        self.world = World(registry)

    def teardown(self) -> None:
        try:
            self.world.converge()
        finally:
            self.world.close()
            self._drop()

    def start(self, name: str, make: Callable[[Op], Any]) -> None:
        self.world.steps.start(name, make)

    @property
    def busy(self) -> bool:
        return len(self.world.steps.running) >= MOST

    @precondition(lambda self: not self.busy)
    @rule(where=repositories, name=names, tag=st.sampled_from(("", *TAGS)),
          mounts=st.booleans(), session=st.booleans())  # fmt: skip
    def push(self, where: str, name: str, tag: str, mounts: bool, session: bool) -> None:
        self.start(
            f"push {name}",
            lambda op: self.world.push(op, where, name, tag, mounts=mounts, session=session),
        )

    @precondition(lambda self: not self.busy)
    @rule(where=repositories, layer=layers)
    def head(self, where: str, layer: bytes) -> None:
        self.start("head", lambda op: self.world.find(op, where, Digest.of(layer)))

    @precondition(lambda self: not self.busy)
    @rule(where=repositories, tag=tags)
    def delete_tag(self, where: str, tag: str) -> None:
        self.start("delete tag", lambda op: self.world.delete_tag(op, where, tag))

    @precondition(lambda self: not self.busy)
    @rule(where=repositories, name=names)
    def delete_manifest(self, where: str, name: str) -> None:
        self.start(
            "delete manifest",
            lambda op: self.world.delete_manifest(op, where, IMAGES[name].digest),
        )

    @precondition(lambda self: not self.busy)
    @rule(where=repositories, layer=layers)
    def delete_blob(self, where: str, layer: bytes) -> None:
        self.start("delete blob", lambda op: self.world.delete_blob(op, where, Digest.of(layer)))

    @precondition(lambda self: not self.busy)
    @rule(where=repositories, tag=tags)
    def restore(self, where: str, tag: str) -> None:
        """Only what is owed: other restores may fail, and are looked at elsewhere."""
        owed = self.world.deleted.get((where, tag))
        if owed is not None and owed[1] > self.world.clock():
            op = self.world.steps.start(
                "restore", lambda op: self.world.restore_tag(op, where, tag)
            )
            self.world.steps.finish(op)

    @precondition(lambda self: self.world.trashed)
    @rule(index=indexes)
    def restore_deleted(self, index: int) -> None:
        owed = sorted(self.world.trashed.items(), key=str)
        (where, digest), until = owed[index % len(owed)]
        if until > self.world.clock():
            op = self.world.steps.start(
                "restore", lambda op: self.world.restore_manifest(op, where, digest)
            )
            self.world.steps.finish(op)

    @precondition(lambda self: not self.busy)
    @rule(kind=st.sampled_from(tuple(COLLECTING)))
    def collect(self, kind: str) -> None:
        self.start(kind, lambda op: COLLECTING[kind](self.world.collector(op)))

    @rule(kind=st.sampled_from(tuple(COLLECTING)))
    def collect_at_once(self, kind: str) -> None:
        op = self.world.steps.start(
            kind, lambda op: COLLECTING[kind](self.world.collector(op, seed=2))
        )
        self.world.steps.finish(op)

    @precondition(lambda self: not self.busy)
    @rule()
    def reap(self) -> None:
        self.start("reap", lambda op: self.world.uploads(op).reap(older_than_s=1_000_000))

    @precondition(lambda self: self.world.steps.running)
    @rule(index=indexes, count=st.integers(1, 9))
    def advance(self, index: int, count: int) -> None:
        op = self.world.steps.running[index % len(self.world.steps.running)]
        for _ in range(count):
            if not op.done:
                self.world.steps.step(op)
                self.world.check()

    @precondition(lambda self: self.world.steps.running)
    @rule(index=indexes)
    def finish(self, index: int) -> None:
        self.world.steps.finish(self.world.steps.running[index % len(self.world.steps.running)])

    @precondition(lambda self: self.world.steps.running)
    @rule(index=indexes)
    def crash(self, index: int) -> None:
        self.world.steps.kill(self.world.steps.running[index % len(self.world.steps.running)])

    @rule(seconds=st.sampled_from((1, SWEEP + 1, LEASE // 2, LEASE + 1, UNTAGGED + 1, EXPIRY + 1)))
    def wait(self, seconds: int) -> None:
        self.world.clock.sleep(seconds)

    @rule(layer=layers)
    def rot(self, layer: bytes) -> None:
        self.world.spoil(Digest.of(layer))

    @rule(where=repositories, name=names, tag=st.sampled_from(("", *TAGS)), mounts=st.booleans())
    def push_at_once(self, where: str, name: str, tag: str, mounts: bool) -> None:
        op = self.world.steps.start(
            f"push {name}", lambda op: self.world.push(op, where, name, tag, mounts=mounts)
        )
        self.world.steps.finish(op)

    @rule(where=repositories, layer=layers, session=st.booleans())
    def upload_at_once(self, where: str, layer: bytes, session: bool) -> None:
        op = self.world.steps.start(
            "upload", lambda op: self.world.upload(op, where, layer, session=session)
        )
        self.world.steps.finish(op)

    @rule(where=repositories, layer=layers)
    def head_at_once(self, where: str, layer: bytes) -> None:
        op = self.world.steps.start("head", lambda op: self.world.find(op, where, Digest.of(layer)))
        self.world.steps.finish(op)

    @rule(seconds=st.sampled_from((LEASE // 2, LEASE + 1, UNTAGGED + 1)), sweeps=st.booleans())
    def time_passes(self, seconds: int, sweeps: bool) -> None:
        """With a collector that takes all it may."""
        self.world.clock.sleep(seconds)
        self.world.collect()
        self.world.check()
        if sweeps:
            self.world.clock.sleep(SWEEP + 1)
            self.world.collect()

    @rule()
    def late_bytes(self) -> None:
        """A slow write to the store that ends after the removal of the same key."""
        storage = self.world.storage
        for key, data in storage.removed.items():
            storage._blobs.setdefault(key, (data, 0.0))

    @invariant()
    def holds(self) -> None:
        self.world.check()


def machine(open_registry: Callable[[], tuple[Any, Callable[[], None]]]) -> type[CollectMachine]:
    return type("Machine", (CollectMachine,), {"open_registry": staticmethod(open_registry)})


def on_sqlite(template: Path) -> Callable[[], tuple[Any, Callable[[], None]]]:
    def begin() -> tuple[Any, Callable[[], None]]:
        # In memory: what a power cut does is another test.
        directory = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
        path = Path(shutil.copyfile(template, directory / "metadata.db"))
        return at_present(open_file(path, TERMS)), lambda: shutil.rmtree(directory)

    return begin


def on_postgresql(server: PostgresServer, template: str) -> Callable[[], Any]:
    def begin() -> tuple[Any, Callable[[], None]]:
        name = server.create(template)
        return at_present(open_server(server.url(name), terms=TERMS)), lambda: server.drop(name)

    return begin


def examples(count: int) -> settings:
    wanted = int(os.environ.get("PYREG_TEST_EXAMPLES", "0"))
    return settings(
        max_examples=wanted or count,
        stateful_step_count=40,
        deadline=None,
        derandomize=not wanted,
        database=None,
        # A failure is made small only where somebody waits for it.
        phases=list(Phase) if wanted else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def at_present(registry: Any) -> Any:
    """With the clock at a time from which the stores' own is not far."""
    registry.clock.now = time.time()
    return registry


def test_any_order_of_steps_on_sqlite(empty_database: Path) -> None:
    run_machine(machine(on_sqlite(empty_database)), settings=examples(100))


def test_any_order_of_steps_on_postgresql(postgres: PostgresServer, migrated: str) -> None:
    run_machine(machine(on_postgresql(postgres, migrated)), settings=examples(25))
