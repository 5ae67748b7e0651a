"""PostgreSQL: lost connections, unknown commits, deadlocks, races, and what is said about them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import psycopg
import pytest
from sqlalchemy import text

import migrations
from ocispec.digest import Digest
from ocispec.distribution.name import Tag
from registry.errors import (
    BlobReferenced,
    BlobUnknown,
    DatabaseTooNew,
    DatabaseUnreachable,
    DatabaseUnusable,
    ManifestBlobUnknown,
    NameUnknown,
)
from registry.metadata.hotreads_postgres import PostgresHotReads
from registry.metadata.location import Location
from registry.metadata.postgres import prepare_postgres
from registry.metadata.schema import schema
from registry.metadata.transaction import Transaction
from tests.builders import postgres as builder
from tests.builders.postgres import PASSWORD, PostgresServer, database_name, postgres_server
from tests.registry.metadata.conftest import Registry, manifest, open_server

KILL_OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = %s AND pid <> pg_backend_pid()"
)


def kill_connections(postgres: PostgresServer, url: str, *, where: str = "") -> int:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        query = KILL_OTHERS + (f" AND {where}" if where else "")
        return len(connection.execute(query.encode(), (database_name(url),)).fetchall())


def kill_when(postgres: PostgresServer, url: str, where: str) -> threading.Thread:
    """Terminate the first connection that is seen in that state, once."""

    def watch() -> None:
        for _ in range(1000):
            if kill_connections(postgres, url, where=where):
                return
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


# ---- connections --------------------------------------------------------------------------------


async def test_lost_connections_are_replaced_and_nobody_notices(
    server_registry, postgres, database_url
):
    new = await server_registry.image(b"{}", "latest", layers=(b"layer",))
    for _ in range(3):
        assert kill_connections(postgres, database_url) >= 1
        found = await asyncio.gather(
            *(
                server_registry.hot.manifest_by_tag(server_registry.access(), Tag("latest"))
                for _ in range(20)
            )
        )
        assert {each.digest for each in found if each} == {new.digest}
        kill_connections(postgres, database_url)
        page = await server_registry.metadata.tags.page(server_registry.access(), n=10)
        assert Tag("latest") in page.items
        await server_registry.image(b"other", "other")


async def test_without_a_second_connection_the_first_answers(
    server_registry, postgres, database_url
):
    """The server gives no more connections than this."""
    await server_registry.image(b"{}", "latest")
    name = database_name(database_url)
    await asyncio.to_thread(server_registry.database.close)
    kill_connections(postgres, database_url)
    access, tag = server_registry.access(), Tag("latest")
    assert await server_registry.hot.manifest_by_tag(access, tag)
    # A superuser is not counted, and neither is the one who connected before.
    postgres.run(
        "CREATE ROLE modest LOGIN PASSWORD 'modest' IN ROLE pg_read_all_data",
        f'ALTER DATABASE "{name}" CONNECTION LIMIT 1',
    )
    url = f"postgresql://modest:modest@127.0.0.1:{postgres.port}/{name}"
    modest = PostgresHotReads(Location.parse(url), patience_s=5)
    await asyncio.to_thread(server_registry.metadata.close)
    try:
        for _ in range(3):
            found = await asyncio.gather(*(modest.manifest_by_tag(access, tag) for _ in range(50)))
            assert all(found)
    finally:
        await asyncio.to_thread(modest.close)
        postgres.run(f'ALTER DATABASE "{name}" CONNECTION LIMIT -1', "DROP OWNED BY modest")
        postgres.run("DROP ROLE modest")


async def test_a_caller_that_goes_away_disturbs_nobody(server_registry):
    await server_registry.image(b"{}", "latest")
    access, tag = server_registry.access(), Tag("latest")
    asked = [
        asyncio.ensure_future(server_registry.hot.manifest_by_tag(access, tag)) for _ in range(40)
    ]
    await asyncio.sleep(0)
    for each in asked[::2]:
        each.cancel()
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, asyncio.CancelledError) for each in found[::2])
    assert all(each.raw == b"{}" for each in found[1::2])


async def test_answers_go_to_who_asked_whatever_their_size(server_registry):
    """Many at once, large and small, from two connections."""
    contents = {f"t{n}": bytes([65 + n]) * (10 if n % 2 else 2_000_000) for n in range(8)}
    for tag, content in contents.items():
        await server_registry.image(content, tag)
    names = [*contents, "absent"] * 6
    found = await asyncio.gather(
        *(
            server_registry.hot.manifest_by_tag(server_registry.access(), Tag(name))
            for name in names
        )
    )
    assert [each and each.raw for each in found] == [contents.get(name) for name in names]


async def test_a_connection_lost_in_the_middle_of_a_step_runs_the_step_again(
    server_registry, postgres, database_url
):
    runs: list[int] = []

    def step(tx: Transaction) -> int:
        runs.append(1)
        tx.connection.execute(text("INSERT INTO repository (name, created_at) VALUES ('x', 1)"))
        if len(runs) == 1:
            kill_connections(postgres, database_url, where="state = 'idle in transaction'")
        return int(tx.connection.execute(text("SELECT count(*) FROM repository")).scalar_one())

    assert await server_registry.database.write(step) == 1
    assert len(runs) == 2


async def test_a_commit_that_was_cut_off_before_it_counted_is_done_again(
    server_registry, postgres, database_url
):
    """A trigger at commit sleeps, and the connection is killed there."""
    postgres.run(
        """CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN PERFORM pg_sleep(CASE WHEN txid_current() % 1000 >= 0 THEN 0.4 END);
              RETURN NULL; END $$""",
        "CREATE CONSTRAINT TRIGGER doze AFTER INSERT ON tag DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION doze()",
        name=database_name(database_url),
    )
    killer = kill_when(postgres, database_url, "query = 'COMMIT' AND state = 'active'")
    await server_registry.image(b"{}", "latest")
    killer.join()
    changes = await server_registry.metadata.tags.history(server_registry.access(), Tag("latest"))
    assert len(changes) == 1
    assert await server_registry.hot.manifest_by_tag(server_registry.access(), Tag("latest"))


async def test_a_commit_that_counted_though_its_answer_was_lost_is_not_done_twice(
    server_registry, postgres, database_url
):
    """The server waits for a standby after it committed, and the connection is killed there."""
    name = database_name(database_url)
    await server_registry.metadata.accounts.add("before", "hash", "writer")
    postgres.run(f'ALTER DATABASE "{name}" SET synchronous_commit = on')
    kill_connections(postgres, database_url)
    killer = kill_when(postgres, database_url, "wait_event = 'SyncRep'")
    # Done twice it would raise AccountExists.
    account = await server_registry.metadata.accounts.add("omri", "hash", "writer")
    killer.join()
    assert account == await server_registry.hot.account("omri")


async def test_the_server_goes_away_and_comes_back(tmp_path):
    """Own server: a crash, 503 meanwhile, and recovery without a restart of ours."""
    with postgres_server() as server:
        url = server.url(server.create())
        prepare_postgres(Location.parse(url))
        registry = open_server(url, patience_s=0.3)
        try:
            await registry.image(b"{}", "latest")
            server.stop(crash=True)
            attempts = (
                registry.hot.manifest_by_tag(registry.access(), Tag("latest")),
                registry.metadata.tags.page(registry.access(), n=1),
                registry.metadata.uploads.begin(registry.access()),
            )
            for attempt in attempts:
                with pytest.raises(DatabaseUnreachable) as caught:
                    await attempt
                assert PASSWORD not in str(caught.value) + caught.value.hint
                assert f"127.0.0.1:{server.port}" in str(caught.value)
            server.start()
            assert await registry.hot.manifest_by_tag(registry.access(), Tag("latest"))
            await registry.image(b"more", "more")
        finally:
            await asyncio.to_thread(registry.metadata.close)


async def test_a_restart_of_the_server_costs_a_pause_and_no_error():
    with postgres_server() as server:
        url = server.url(server.create())
        prepare_postgres(Location.parse(url))
        registry = open_server(url, patience_s=20)
        try:
            await registry.image(b"{}", "latest")
            server.stop(crash=True)
            asked = [
                asyncio.ensure_future(
                    registry.hot.manifest_by_tag(registry.access(), Tag("latest"))
                ),
                asyncio.ensure_future(registry.image(b"more", "more")),
            ]
            await asyncio.sleep(0.2)
            await asyncio.to_thread(server.start)
            found, _ = await asyncio.gather(*asked)
            assert found is not None
        finally:
            await asyncio.to_thread(registry.metadata.close)


# ---- transactions against each other ------------------------------------------------------------


async def test_a_deadlock_is_lost_by_one_and_tried_again(server_registry):
    for name in ("a", "b"):
        await server_registry.metadata.accounts.add(name, "hash", "reader")
    both = threading.Barrier(2)
    runs: list[str] = []

    def step(first: str, second: str) -> None:
        def run(tx: Transaction) -> None:
            runs.append(first)
            lock = text("UPDATE account SET role = 'writer' WHERE name = :name")
            tx.connection.execute(lock, {"name": first})
            if len(runs) <= 2:
                both.wait(10)
            tx.connection.execute(lock, {"name": second})

        return run  # type: ignore[return-value]

    await asyncio.gather(
        server_registry.database.write(step("a", "b")),
        server_registry.database.write(step("b", "a")),
    )
    assert len(runs) == 3


async def test_a_step_that_raises_changes_nothing_and_runs_once(server_registry):
    runs: list[int] = []

    def step(tx: Transaction) -> None:
        runs.append(1)
        tx.connection.execute(text("INSERT INTO repository (name, created_at) VALUES ('x', 1)"))
        raise NameUnknown("x")

    with pytest.raises(NameUnknown):
        await server_registry.database.write(step)
    assert len(runs) == 1
    assert await server_registry.hot.repository(server_registry.access("x")) is None


@pytest.fixture
def pair(database_url: str) -> Iterator[tuple[Registry, Registry]]:
    """Two replicas in one process."""
    one, two = open_server(database_url), open_server(database_url)
    yield one, two
    one.metadata.close()
    two.metadata.close()


async def test_pushes_that_share_layers_do_not_deadlock(pair):
    """Each names the same layers in another order, as real images do."""
    layers = tuple(b"layer %d" % number for number in range(6))
    for layer in layers:
        await pair[0].blob(layer)

    async def push(number: int) -> None:
        order = layers[number % 6 :] + layers[: number % 6]
        registry = pair[number % 2]
        new = manifest(b"image %d" % number, layers=order if number % 3 else order[::-1])
        await registry.metadata.manifests.put(registry.access(), new, tags=(Tag("latest"),))
        if number % 4 == 0:
            await registry.metadata.manifests.remove(registry.access(), new.digest)

    await asyncio.gather(*(push(number) for number in range(40)))
    assert len(await pair[0].metadata.tags.history(pair[0].access(), Tag("latest"))) >= 40


async def test_a_manifest_and_the_removal_of_its_blob_never_both_succeed(pair):
    one, two = pair
    digest = Digest.of(b"layer")
    outcomes = set()
    for number in range(40):
        await one.blob(b"layer")
        new = manifest(b"image %d" % number, layers=(b"layer",))
        put, removed = await asyncio.gather(
            one.metadata.manifests.put(one.access(), new),
            two.metadata.blobs.remove(two.access(), digest),
            return_exceptions=True,
        )
        held = await two.hot.blob(two.access(), digest)
        stored = await two.hot.manifest_by_digest(two.access(), new.digest)
        if removed is None:
            assert isinstance(put, ManifestBlobUnknown), put
            assert (held, stored) == (None, None)
            outcomes.add("removed")
        else:
            assert isinstance(removed, BlobReferenced), removed
            assert put is True and held is not None and stored is not None
            await one.metadata.manifests.remove(one.access(), new.digest)
            await one.metadata.blobs.remove(one.access(), digest)
            outcomes.add("kept")
    assert outcomes <= {"removed", "kept"}


async def test_the_same_blob_manifest_and_tag_at_the_same_moment(pair):
    registries = pair * 10
    blobs = await asyncio.gather(*(each.blob(b"layer") for each in registries))
    assert len({blob.store_key for blob in blobs}) == 1
    new = manifest(b"{}", layers=(b"layer",))
    made = await asyncio.gather(
        *(
            each.metadata.manifests.put(each.access(), new, tags=(Tag("latest"),))
            for each in registries
        )
    )
    assert sorted(made) == [False] * 19 + [True]
    history = await pair[0].metadata.tags.history(pair[0].access(), Tag("latest"))
    assert len(history) == 1
    results = await asyncio.gather(
        *(each.metadata.manifests.remove(each.access(), new.digest) for each in registries),
        return_exceptions=True,
    )
    assert results.count(None) == 1
    removals = await asyncio.gather(
        *(each.metadata.blobs.remove(each.access(), Digest.of(b"layer")) for each in registries),
        return_exceptions=True,
    )
    assert removals.count(None) == 1
    assert all(isinstance(each, BlobUnknown) for each in removals if each is not None)


async def test_tags_move_in_one_order_for_everybody(pair):
    """The history of a tag is a chain: each move starts where the one before ended."""
    for number in range(8):
        await pair[0].image(b"image %d" % number)
    await asyncio.gather(
        *(
            pair[number % 2].metadata.manifests.put(
                pair[0].access(), manifest(b"image %d" % (number % 8)), tags=(Tag("latest"),)
            )
            for number in range(32)
        )
    )
    history = await pair[0].metadata.tags.history(pair[0].access(), Tag("latest"))
    moves = [(change.old, change.new) for change in reversed(history)]
    assert moves[0][0] is None
    for (_, ended), (started, _) in pairwise(moves):
        assert started == ended
    current = await pair[1].hot.manifest_by_tag(pair[1].access(), Tag("latest"))
    assert current is not None and current.digest == moves[-1][1]


async def test_remembered_bytes_are_never_shown_after_their_end(pair):
    """Bytes of manifests are remembered; whether they are there is asked each time."""
    one, two = pair
    tag = Tag("latest")
    first = await one.image(b"first", "latest")
    for _ in range(2):
        found = await two.hot.manifest_by_tag(two.access(), tag)
        assert found is not None and found.raw == b"first"
    await one.image(b"second", "latest")
    found = await two.hot.manifest_by_tag(two.access(), tag)
    assert found is not None and found.raw == b"second"
    await one.metadata.manifests.remove(one.access(), first.digest)
    assert await two.hot.manifest_by_digest(two.access(), first.digest) is None
    await one.metadata.tags.remove(one.access(), tag)
    assert await two.hot.manifest_by_tag(two.access(), tag) is None
    assert await two.hot.manifest_by_digest(two.access("other"), Digest.of(b"second")) is None


# ---- schema -------------------------------------------------------------------------------------


def test_migrations_make_the_tables_of_the_code_here_too(postgres, database_url):
    """Columns, types, collations, defaults, constraints and indexes, as the server tells them."""
    from registry.metadata.postgres import postgres_engine

    by_code = postgres.url(postgres.create())
    engine = postgres_engine(Location.parse(by_code))
    with engine.connect() as connection:
        schema.create_all(connection)
    engine.dispose()
    assert _described(by_code) == _described(database_url)
    postgres.drop(database_name(by_code))


def _described(url: str) -> set[tuple[object, ...]]:
    queries = (
        """SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default
           FROM information_schema.columns WHERE table_schema = 'public'""",
        """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
           FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    )
    with psycopg.connect(url) as connection:
        rows = [row for query in queries for row in connection.execute(query.encode())]
    return {row for row in rows if "alembic" not in str(row[0])}


async def test_names_are_sorted_bytewise_whatever_the_server_speaks(server_registry, database_url):
    with psycopg.connect(database_url) as connection:
        (spoken,) = connection.execute("SELECT 'a' < 'B'").fetchone() or (None,)
        assert spoken, "the server's own order must differ for this test to mean anything"
    tags = ("a", "B", "_", "a.b", "a-b", "ab", "Z")
    await server_registry.image(b"{}", *tags)
    page = await server_registry.metadata.tags.page(server_registry.access(), n=100)
    assert [tag.text for tag in page.items] == sorted(tags)


def test_replicas_that_start_together_migrate_once(postgres):
    url = postgres.url(postgres.create())
    program = (
        "from pathlib import Path; from registry.metadata.database import open_metadata;"
        f"open_metadata(Path(), database={url!r}).close()"
    )
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", program]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [
            (migrations.HEAD,)
        ]
    postgres.drop(database_name(url))


def test_a_migration_that_fails_leaves_nothing_behind(postgres, monkeypatch):
    from alembic import op

    url = postgres.url(postgres.create())
    made: list[str] = []
    create_table = op.create_table

    def fail_halfway(name, *arguments, **options):
        if len(made) == 5:
            raise RuntimeError("halfway")
        made.append(name)
        return create_table(name, *arguments, **options)

    monkeypatch.setattr(op, "create_table", fail_halfway)
    with pytest.raises(RuntimeError, match="halfway"):
        prepare_postgres(Location.parse(url))
    assert _described(url) == set()
    monkeypatch.undo()
    prepare_postgres(Location.parse(url))
    assert _described(url)
    postgres.drop(database_name(url))


def test_a_schema_of_a_later_version_is_refused(postgres, database_url):
    postgres.run(
        "UPDATE alembic_version SET version_num = '9999'", name=database_name(database_url)
    )
    with pytest.raises(DatabaseTooNew) as caught:
        prepare_postgres(Location.parse(database_url))
    assert caught.value.found == "9999"
    assert database_name(database_url) in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_somebody_elses_database_is_refused(postgres):
    url = postgres.url(postgres.create())
    postgres.run("CREATE TABLE recipes (name text)", name=database_name(url))
    with pytest.raises(DatabaseUnusable, match="not a registry"):
        prepare_postgres(Location.parse(url))
    postgres.drop(database_name(url))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"password": "wrong-Pa55"}, "authentication failed"),
        ({"dbname": "no_such"}, "does not exist"),
        ({"port": "1"}, "refused"),
    ],
)
def test_attack_passwords_do_not_leak_through_errors(postgres, change, says):
    parts = {
        "host": "127.0.0.1",
        "port": str(postgres.port),
        "user": builder.USER,
        "password": PASSWORD,
        "dbname": "postgres",
    }
    text = " ".join(f"{key}={value}" for key, value in {**parts, **change}.items())
    with pytest.raises(DatabaseUnusable, match=says) as caught:
        prepare_postgres(Location.parse(text))
    for shown in (str(caught.value), caught.value.hint, repr(Location.parse(text))):
        assert PASSWORD not in shown and "wrong-Pa55" not in shown
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["postgresql://u:s3cret@[h/db", "postgresql://%zz:s3cret@h"])
def test_attack_a_url_that_cannot_be_read_is_not_repeated(text):
    with pytest.raises(DatabaseUnusable) as caught:
        Location.parse(text)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_hot_questions_use_indexes_only(database_url):
    from registry.metadata.hotreads_postgres import STATEMENTS
    from registry.metadata.pipeline import connect

    def plans() -> dict[bytes, str]:
        with connect(Location.parse(database_url), STATEMENTS) as connection:
            found = {}
            for name, statement in STATEMENTS.items():
                count = sum(b"$%d" % number in statement for number in range(1, 5))
                given = "(" + ", ".join(["'1'"] * count) + ")" if count else ""
                rows = connection.execute(b"EXPLAIN EXECUTE %b %b" % (name, given.encode()))
                found[name] = "\n".join(row[0] for row in rows)
            return found

    for name, plan in (await asyncio.to_thread(plans)).items():
        # The table of one row has nothing that an index would leave out.
        assert "Seq Scan" not in plan.replace("Seq Scan on access_version", ""), (name, plan)
