"""Search on both databases: what is found, in which order, by whom; and the index that follows."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.metadata import events, tables
from registry.metadata.base import BlobReference, NewManifest
from registry.metadata.repositories import ensure_repository
from registry.metadata.search import Visible
from registry.metadata.tables_search import search_manifest, search_repository, search_term
from registry.search.indexer import Indexer
from registry.search.query import parse_query
from registry.storage.base import StoreKey
from registry.storage.disk import DiskStorage
from tests.registry.metadata.conftest import Registry

CONFIG = "application/vnd.oci.image.config.v1+json"
EVERYTHING = Visible(lambda name: True)


@pytest.fixture
def storage(tmp_path: Path) -> DiskStorage:
    return DiskStorage(str(tmp_path / "store"))


@pytest.fixture
def indexer(registry: Registry, storage: DiskStorage) -> Indexer:
    return Indexer(registry.metadata.search_index, storage)


async def push(
    registry: Registry,
    storage: DiskStorage,
    name: str,
    *tags: str,
    labels: object = None,
    annotations: dict[str, str] | None = None,
    architecture: str = "amd64",
    config: bytes | None = None,
    salt: str = "",
) -> Digest:
    """An image with a real configuration in the store."""
    if config is None:
        document = {"os": "linux", "architecture": architecture, "config": {"Labels": labels}}
        config = json.dumps(document).encode()
    digest = Digest.of(config)
    access = registry.access(name)
    placement = await registry.hot.placement(access, digest)
    key = StoreKey(digest, placement.generation)
    if placement.present is None:
        upload = digest.encoded[:32]
        storage.begin(upload)
        with storage.append(upload, 0) as writer:
            writer.write(config)
            writer.commit(key)
    await registry.metadata.blobs.add(
        access, digest, len(config), store_key=str(key), generation=placement.generation
    )
    raw = json.dumps([name, salt, str(digest), annotations]).encode()
    manifest = NewManifest(
        digest=Digest.of(raw),
        media_type="application/vnd.oci.image.manifest.v1+json",
        raw=raw,
        blobs=(BlobReference(digest, "config"),),
        config_media_type=CONFIG,
        annotations=annotations or {},
    )
    await registry.metadata.manifests.put(access, manifest, tags=tuple(map(Tag, tags)))
    return manifest.digest


async def names(registry: Registry, query: str, visible: Visible = EVERYTHING) -> list[str]:
    found = await registry.metadata.search.find(parse_query(query), visible, n=100)
    return [item.name for item in found.items]


async def test_words_are_ranked(registry, storage, indexer):
    for name in ("team/nginx-old", "nginx", "my/nginx", "a/b-nginx", "zebra", "other"):
        labels = {"org.opencontainers.image.description": "Proxy like NGINX"}
        await push(registry, storage, name, "1", labels=labels if name == "zebra" else None)
    await indexer.catch_up()
    expected = ["nginx", "my/nginx", "team/nginx-old", "a/b-nginx", "zebra"]
    assert await names(registry, "nginx") == expected
    assert await names(registry, "NGINX proxy") == ["zebra"]
    assert await names(registry, "my nginx") == ["my/nginx"]
    assert await names(registry, "nothing") == []
    assert len(await names(registry, "")) == 6


async def test_filters(registry, storage, indexer):
    base = {"org.opencontainers.image.base.name": "docker.io/library/debian:12"}
    await push(registry, storage, "one", "1.0", "1.1", labels={"team": "blue", **base})
    await push(registry, storage, "two", "2.0", labels={"team": "red"}, architecture="arm64")
    await push(registry, storage, "three", "1.5", annotations={"vcs": "git one"})
    await indexer.catch_up()
    for query, expected in {
        "label:team=blue": ["one"],
        "label:team": ["one", "two"],
        "label:team=*e*": ["one", "two"],
        "tag:1.*": ["one", "three"],
        "tag:1.0": ["one"],
        "tag:1": [],
        "platform:linux/arm64": ["two"],
        "platform:linux": ["one", "three", "two"],
        "base:debian": ["one"],
        "base:debian:12": ["one"],
        "base:docker.io/library/debian": ["one"],
        "base:ubuntu": [],
        f"type:{CONFIG}": ["one", "three", "two"],
        'annotation:"vcs=git one"': ["three"],
        "t tag:1.5": ["three"],
        "label:team platform:linux/amd64": ["one"],
    }.items():
        assert await names(registry, query) == expected, query


async def test_names_are_found_before_the_index_has_them(registry, storage):
    await push(registry, storage, "fresh/app", "1")
    assert await names(registry, "app") == ["fresh/app"]


async def test_pages_go_on_where_the_last_ended(registry, storage, indexer):
    for n in range(7):
        await push(registry, storage, f"x/app{n}" if n % 2 else f"app{n}", "1")
    await indexer.catch_up()
    for query in ("app", "", "tag:1", "app tag:1"):
        whole = await names(registry, query)
        seen: list[str] = []
        after = None
        while True:
            page = await registry.metadata.search.find(
                parse_query(query), EVERYTHING, n=2, after=after
            )
            seen += [item.name for item in page.items]
            if not page.more:
                break
            after = page.items[-1].rank, page.items[-1].name
        assert seen == whole and len(seen) == 7


async def test_what_goes_is_not_found_and_comes_back(registry, storage, indexer):
    digest = await push(registry, storage, "app", "1", labels={"a": "b"})
    await indexer.catch_up()
    access = registry.access("app")
    await registry.metadata.tags.remove(access, Tag("1"))
    await indexer.catch_up()
    assert await names(registry, "tag:1") == []
    assert await names(registry, "label:a=b") == ["app"]
    await registry.metadata.manifests.remove(access, digest)
    assert await names(registry, "app") == []  # at once: what exists is asked, not the index
    await indexer.catch_up()

    def left(tx):
        return [
            tx.connection.execute(select(table)).all() for table in (search_term, search_manifest)
        ]

    assert await registry.database.read(left) == [[], []]
    await push(registry, storage, "app", "1", labels={"a": "b"})
    await indexer.catch_up()
    assert await names(registry, "label:a=b tag:1") == ["app"]


async def test_the_description_is_of_the_newest_that_has_one(registry, storage, indexer):
    key = "org.opencontainers.image.description"
    await push(registry, storage, "app", "1", labels={key: "first"})
    second = await push(registry, storage, "app", "2", labels={key: "second"})
    await indexer.catch_up()
    assert await names(registry, "second") == ["app"]
    assert await names(registry, "first") == []
    await registry.metadata.manifests.remove(registry.access("app"), second)
    await indexer.catch_up()
    assert await names(registry, "first") == ["app"]


async def test_a_rebuild_repairs_whatever_is_wrong(registry, storage, indexer):
    await push(registry, storage, "one", "1", labels={"a": "b"})
    gone = await push(registry, storage, "two", "2", labels={"c": "d"})
    await indexer.catch_up()

    def damage(tx):
        for table in (search_repository, search_manifest):
            tx.connection.execute(delete(table).where(table.c.repository_id == 1))
        tx.connection.execute(delete(search_term).where(search_term.c.repository_id == 1))
        # As if the event had never been written.
        manifest = tables.manifest
        tx.connection.execute(delete(tables.tag).where(tables.tag.c.name == "2"))
        tx.connection.execute(delete(manifest).where(manifest.c.digest == str(gone)))

    await registry.database.write(damage)
    assert await names(registry, "label:a=b") == []
    await registry.metadata.search_index.rebuild()
    await indexer.catch_up()
    assert await names(registry, "label:a=b tag:1") == ["one"]

    def rows(tx):
        return tx.connection.execute(select(search_term.c.value, search_term.c.repository_id)).all()

    assert {r.repository_id for r in await registry.database.read(rows)} == {1}


async def test_what_was_pushed_before_the_index_existed_is_brought_in(registry, storage, indexer):
    await push(registry, storage, "app", "1", labels={"a": "b"})
    await registry.database.write(lambda tx: tx.connection.execute(delete(tables.event)))
    await indexer.catch_up()  # the first start: the migration asks for a rebuild
    assert await names(registry, "label:a=b tag:1") == ["app"]


async def test_one_at_a_time_and_another_goes_on_after_a_crash(registry, storage, indexer):
    await push(registry, storage, "one", "1")
    assert await indexer.step() is not None
    other = Indexer(registry.metadata.search_index, storage)
    await push(registry, storage, "two", "2")
    assert await other.step() is None  # the first one holds it
    registry.clock.sleep(60)  # and dies
    await other.catch_up()
    assert await names(registry, "tag:2") == ["two"]
    await push(registry, storage, "three", "3")
    await indexer.catch_up()
    assert await names(registry, "tag:3") == []
    await other.catch_up()
    assert await names(registry, "tag:3") == ["three"]


async def test_one_that_slept_through_its_lease_stores_nothing(registry, storage, indexer):
    index = registry.metadata.search_index
    assert await index.hold("sleeper", 30)
    await push(registry, storage, "one", "1")
    batch = await index.changed(0, frozenset(), n=10)
    registry.clock.sleep(31)
    assert await index.hold("other", 30)
    assert await index.store("sleeper", batch, {}, position=99) is False
    assert (await index.look()).position == 0


async def test_the_position_follows(registry, storage, indexer):
    for n in range(60):
        await push(registry, storage, f"app{n}", "1")
    for _ in range(20):
        await indexer.catch_up()
    seen = await registry.metadata.search_index.look()
    assert seen.position == seen.newest == 120


async def test_an_event_that_becomes_visible_late_is_not_passed(server_registry, storage):
    """PostgreSQL: ids are given before the commit, and commits come in any order."""
    registry = server_registry
    indexer = Indexer(registry.metadata.search_index, storage)
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    access = registry.access("late")

    def slow(tx):
        ensure_repository(tx, access)
        events.record(tx, events.TAG_MOVED, access, tag="1")
        loop.call_soon_threadsafe(began.set)
        assert go_on.wait(20)

    writing = asyncio.create_task(registry.database.write(slow))
    await began.wait()
    await push(registry, storage, "early", "1")
    for _ in range(5):
        await indexer.catch_up()
    assert await names(registry, "tag:1") == ["early"]
    assert (await registry.metadata.search_index.look()).position == 0
    go_on.set()
    await writing
    for _ in range(5):
        await indexer.catch_up()
    seen = await registry.metadata.search_index.look()
    assert seen.position == seen.newest == 3


async def test_pushes_and_deletes_while_it_indexes(registry, storage, indexer):
    kept: set[str] = set()

    async def work(n: int) -> None:
        for round in range(4):
            name = f"r{n}/app{round}"
            digest = await push(registry, storage, name, "1", labels={"n": str(n)})
            if (n + round) % 2:
                await registry.metadata.manifests.remove(registry.access(name), digest)
            else:
                kept.add(name)

    working = asyncio.gather(*(work(n) for n in range(4)))
    while not working.done():
        await indexer.catch_up()
        await asyncio.sleep(0)
    await working
    for _ in range(5):
        await indexer.catch_up()
    assert set(await names(registry, "tag:1")) == kept
    assert set(await names(registry, "label:n")) == kept


async def test_attack_search_shows_hidden_repository(registry, storage, indexer):
    labels = {"org.opencontainers.image.description": "payroll", "secret": "yes"}
    await push(registry, storage, "hidden/payroll", "9.9", labels=labels)
    await push(registry, storage, "open/app", "1.0", labels={"secret": "yes"})
    await indexer.catch_up()

    for patterns in (None, ("open/*",), ("*",), ("o*/*", "nothing_here/*")):
        visible = Visible(lambda name: name.startswith("open/"), patterns)
        for query in (
            "",
            "payroll",
            "hidden",
            "app",
            "label:secret",
            "tag:*",
            "tag:9.9",
            "hidden/p",
        ):
            assert "hidden/payroll" not in await names(registry, query, visible), query
        found = await registry.metadata.search.find(parse_query(""), visible, n=1)
        assert not found.more  # not even that there is something
        assert await names(registry, "label:secret", visible) == ["open/app"]
    assert await names(registry, "", Visible(lambda name: True, ())) == []


@pytest.mark.parametrize(
    "query",
    [
        "' OR 1=1 --", "%", "_", "tag:%", "tag:_", "tag:[a-z]", "tag:?", "tag:!*", "label:a=%*",
        'name MATCH "x"', "*", "NEAR(a b)", "tag:*[", "\\", "label:*'*", "${x}", "a\U0010ffffb",
    ],
)  # fmt: skip
async def test_attack_words_of_sql_are_words(registry, storage, indexer, query):
    await push(registry, storage, "app", "v", labels={"a": "b"})
    await indexer.catch_up()
    assert await names(registry, query) == []


async def test_attack_label_bombs(registry, storage, indexer):
    """Configurations that are huge, deep, of odd types, or full of control characters."""
    deep = b'{"config":' + b'{"Labels":' * 5000 + b"1" + b"}" * 5001
    many = {f"k{n}": "v" * 10_000 for n in range(90)}
    odd = {"a\0b": "x\x1b[31m\n‮y", "": "empty", "n": 1, "l": [], "long" * 100: "z"}
    await push(registry, storage, "deep", "1", config=deep)
    await push(registry, storage, "many", "1", labels=many)
    await push(registry, storage, "odd", "1", labels=odd)
    await push(registry, storage, "list", "1", labels=["a", "b"])
    await push(registry, storage, "huge", "1", config=b'{"x":"' + b"y" * (2 << 20) + b'"}')
    await push(registry, storage, "binary", "1", config=bytes(range(256)))
    await push(registry, storage, "fine", "1", labels={"a": "b"})
    await indexer.catch_up()
    every = ["binary", "deep", "fine", "huge", "list", "many", "odd"]
    assert await names(registry, "tag:1") == every
    assert await names(registry, "label:*") == ["fine", "many", "odd"]

    def rows(tx):
        return tx.connection.execute(select(search_term)).all()

    for row in await registry.database.read(rows):
        assert len(row.value) <= 400 and row.value.isprintable(), row.value
    assert len([r for r in await registry.database.read(rows) if r.kind == "label"]) <= 64 + 5


async def test_a_lost_configuration_holds_nothing_up(registry, storage, indexer):
    await push(registry, storage, "lost", "1", labels={"a": "b"})
    for stored in list(storage.blobs()):
        storage.remove(stored.key)
    await push(registry, storage, "app", "1", labels={"c": "d"})
    await indexer.catch_up()
    assert await names(registry, "tag:1") == ["app", "lost"]
