"""The proof proves something: with any one of its safeguards taken out, the collector is caught.

Each mutation is made in process, and the machine of `test_collect_machine` must fail, or the race
that is about it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from registry.content.collect import Collector
from registry.errors import ManifestBlobUnknown, NotRestorable
from registry.metadata import blobs, collecting, collection, liveness, trash, upkeep
from registry.metadata.base import LIVE
from registry.metadata.tables import manifest_blob
from tests.registry.content.collect_model import World
from tests.registry.content.races import RACES
from tests.registry.content.test_collect_machine import machine, on_sqlite

REFUSALS = AssertionError, NotRestorable, ManifestBlobUnknown, IntegrityError

Patch = Callable[[pytest.MonkeyPatch], None]


def verdict(name: str, **facts: Any) -> Patch:
    """The collector takes these facts for what they are not."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        right = getattr(liveness, name)
        monkeypatch.setattr(
            collecting, name, lambda found, **rest: right(replace(found, **facts), **rest)
        )

    return patch


def leases_are_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    right = liveness.blob_verdict
    monkeypatch.setattr(
        collecting,
        "blob_verdict",
        lambda facts, **rest: right(replace(facts, lease_until=0, unreferenced_since=0), **rest),
    )


def uses_are_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = select(manifest_blob.c.digest).where(manifest_blob.c.digest == "")
    monkeypatch.setattr(collecting, "_USED", nothing)


def keys_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    right = collecting.doom

    def doom(tx: Any, rows: Any) -> None:
        right(tx, rows)
        for row in rows:
            tx.connection.execute(
                blobs.blob.update()
                .where(blobs.blob.c.digest == row.digest)
                .values(generation=row.generation)
            )

    monkeypatch.setattr(collecting, "doom", doom)


def old_generations_count(monkeypatch: pytest.MonkeyPatch) -> None:
    right = blobs.add_blob

    def add(tx: Any, access: Any, digest: Any, size: int, **rest: Any) -> Any:
        row = tx.connection.execute(blobs._LOCK, {"key": str(digest)}).mappings().first()
        if row is not None and row["state"] != LIVE:
            rest["generation"] = row["generation"]
        return right(tx, access, digest, size, **rest)

    monkeypatch.setattr(blobs, "add_blob", add)


def a_head_does_not_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    async def extend(self: Any, access: Any, digest: Any) -> bool:
        return True

    monkeypatch.setattr(blobs.SqlBlobs, "extend_lease", extend)


def ends_of_uses_are_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection, "review_blobs", lambda *_, **__: None)
    monkeypatch.setattr(collecting, "release_blobs", lambda *_, **__: None)
    monkeypatch.setattr(upkeep.SqlUpkeep, "review_old", _nothing)


async def _nothing(self: Any, **_: Any) -> str:
    return ""


def the_audit_knows_no_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(self: Any, keys: Any) -> frozenset[str]:
        return frozenset()

    async def sweep_all(self: Any, objects: Any) -> int:
        self.storage.remove_all([])
        for each in objects:
            self.storage.remove(collecting_key(each.store_key))
        return len(objects)

    monkeypatch.setattr(collecting.SqlCollection, "live_keys", none)
    monkeypatch.setattr(Collector, "_enter_unknown", sweep_all)


def collecting_key(text: str) -> Any:
    from registry.storage.base import StoreKey

    return StoreKey.parse(text)


def the_scrub_finds_everything_rotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Collector, "_compare", lambda self, row: "rotten")


def the_trash_keeps_no_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "_RAISE", trash._RAISE.where(blobs.blob.c.digest == ""))


def swept_objects_stay_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    async def swept(self: Any, objects: Any) -> int:
        return 0

    monkeypatch.setattr(collecting.SqlCollection, "swept", swept)
    monkeypatch.setattr(Collector, "sweep", _once(Collector.sweep))


def _once(right: Any) -> Any:
    async def sweep(self: Any, limit: int = 1000) -> Any:
        done = await right(self, limit)
        done.looked = 0
        return done

    return sweep


def bytes_go_before_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Collector.review_blobs

    async def review(self: Any, limit: int = 100) -> Any:
        for each in await self.metadata.upkeep.live_rows(after="", limit=limit):
            found = await self.metadata.blobs.find(collecting_key(each.store_key).digest)
            if found is not None and found.lease_until < self.clock():
                self.storage.remove(collecting_key(each.store_key))
        return await right(self, limit)

    monkeypatch.setattr(Collector, "review_blobs", review)


MUTATIONS: dict[str, Patch] = {
    "tags are not looked at": verdict("manifest_verdict", tagged=False),
    "indexes are not looked at": verdict("manifest_verdict", in_index=False),
    "subjects are not looked at": verdict("manifest_verdict", has_subject=False),
    "leases are nothing": leases_are_nothing,
    "uses are not looked at": uses_are_not_looked_at,
    "keys are used again": keys_are_used_again,
    "old generations count": old_generations_count,
    "a HEAD does not pin": a_head_does_not_pin,
    "ends of uses are not entered": ends_of_uses_are_not_entered,
    "the audit knows no rows": the_audit_knows_no_rows,
    "the scrub finds everything rotten": the_scrub_finds_everything_rotten,
    "the trash keeps no blobs": the_trash_keeps_no_blobs,
    "swept objects stay entered": swept_objects_stay_entered,
    "bytes go before their rows": bytes_go_before_their_rows,
}

#: The machine finds these only now and then in so few runs; the race that is about them, at once.
RARE = {
    "subjects are not looked at": "r08",
    "leases are nothing": "r02",
    "a HEAD does not pin": "r02",
    "old generations count": "r05",
    "the trash keeps no blobs": "r11",
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_collector_without_a_safeguard_is_caught(
    name: str, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = int(os.environ.get("PYREG_TEST_EXAMPLES", "0"))
    MUTATIONS[name](monkeypatch)
    if name in RARE and not wanted:
        registry, drop = on_sqlite(empty_database)()
        world = World(registry)
        try:
            with pytest.raises(REFUSALS):
                RACES[RARE[name]](world)
        finally:
            world.close()
            drop()
        return
    terms = settings(
        max_examples=wanted or 100,
        stateful_step_count=40,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    with pytest.raises(REFUSALS) as caught:
        run_machine(machine(on_sqlite(empty_database)), settings=terms)
    # Either a promise was broken, or the database itself refused to.
    broken = re.search(r"I[1-4]: |was promised", str(caught.value))
    assert broken or not isinstance(caught.value, AssertionError), caught.value
