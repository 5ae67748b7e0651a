"""A registry as the first schema's version left it, brought to the newest: nothing is lost.

`first_schema/` holds the database and the files that version wrote (see `make.py` there). They are
only read here, so no later change of the tables reaches them. On SQLite and on PostgreSQL.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Connection, inspect

import migrations
from ocispec.digest import Digest
from registry.metadata.database import sqlite_engine
from registry.metadata.location import Location
from registry.metadata.postgres import migrating_postgres, postgres_engine
from registry.metadata.schema import schema
from tests.builders.postgres import PostgresServer, database_name
from tests.builders.servers import (
    PASSWORD,
    Server,
    pyreg_command,
    pyreg_environment,
    start_pyreg,
)

FIRST = Path(__file__).with_name("first_schema")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"

# `upgrade` as pyreg does it, killed after the step whose number is given, before the commit.
_KILLED = """
import os, signal, sys
from alembic.runtime.migration import HeadMaintainer
from pyreg.__main__ import main
apply, left = HeadMaintainer.update_to_step, [int(sys.argv[1])]
def dying(self, step):
    apply(self, step)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
HeadMaintainer.update_to_step = dying
sys.argv = ["pyreg", "--root", sys.argv[2], "db", "upgrade"]
main()
"""


def _config(directory: Path) -> Config:
    config = Config()
    config.set_main_option("script_location", str(directory))
    config.set_main_option("path_separator", "os")
    return config


def revisions() -> list[str]:
    """All revisions after the first, in order."""
    with resources.as_file(resources.files(migrations)) as directory:
        script = ScriptDirectory.from_config(_config(directory))
        found = [each.revision for each in script.walk_revisions()]
    return found[::-1][1:]


@dataclass
class Old:
    """A data directory of the first version, and its database."""

    root: Path
    #: Of PostgreSQL; empty for SQLite.
    url: str
    refresh_token: str

    @property
    def path(self) -> Path:
        return self.root / "registry" / "metadata.db"

    @property
    def environment(self) -> dict[str, str]:
        return {"PYREG_DATABASE": self.url} if self.url else {}

    def pyreg(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*pyreg_command(), "--root", str(self.root), *words],
            env=pyreg_environment(**self.environment),
            capture_output=True,
            text=True,
            timeout=120,
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        if self.url:
            with psycopg.connect(self.url) as connection:
                return connection.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(self.path)) as database:
            return database.execute(query).fetchall()

    def revision(self) -> str:
        [(found,)] = self.rows("SELECT version_num FROM alembic_version")
        return str(found)

    def kill_in_upgrade(self, step: int) -> int:
        words = [sys.executable, "-c", _KILLED, str(step), str(self.root)]
        done = subprocess.run(words, env=pyreg_environment(**self.environment), timeout=60)
        return done.returncode

    def differences(self) -> list[Any]:
        """Between the database and the tables of the code."""
        if self.url:
            engine = postgres_engine(Location.parse(self.url))
        else:
            engine = sqlite_engine(self.path, begin="BEGIN")
        try:
            with engine.connect() as connection:
                context = MigrationContext.configure(connection, opts={"compare_type": True})
                return list(compare_metadata(context, schema))
        finally:
            engine.dispose()


def first_tables() -> dict[str, tuple[list[str], list[tuple[Any, ...]]]]:
    """Columns and rows of each table in the kept database."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.executescript((FIRST / "metadata.sql").read_text())
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        names = [name for (name,) in database.execute(query)]
        found = {}
        for name in names:
            cursor = database.execute(f'SELECT * FROM "{name}"')
            found[name] = [each[0] for each in cursor.description], cursor.fetchall()
        return found


def fill_postgres(url: str) -> None:
    """The same rows in tables that the first migration makes there."""

    def first(connection: Connection) -> None:
        with resources.as_file(resources.files(migrations)) as directory:
            config = _config(directory)
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
        assert inspect(connection).has_table("tag")

    with migrating_postgres(Location.parse(url)) as connection:
        first(connection)
    with psycopg.connect(url) as raw:
        raw.execute("SET session_replication_role = replica")  # the order does not matter then
        for table, (columns, rows) in first_tables().items():
            if table == "alembic_version":
                continue
            statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
                sql.Identifier(table),
                sql.SQL(",").join(map(sql.Identifier, columns)),
                sql.SQL(",").join([sql.Placeholder()] * len(columns)),
            )
            flags = [number for number, name in enumerate(columns) if name == "disabled"]
            for row in rows:
                values = [bool(v) if n in flags else v for n, v in enumerate(row)]
                raw.execute(statement, values)
            query = "SELECT pg_get_serial_sequence(%s, 'id')"
            if "id" in columns and table != "upload":
                found = raw.execute(query, (table,)).fetchone()
                assert found is not None and found[0], table
                raw.execute(
                    sql.SQL("SELECT setval(%s, (SELECT max(id) FROM {}))").format(
                        sql.Identifier(table)
                    ),
                    found,
                )


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Old]:
    content = json.loads((FIRST / "content.json").read_text())
    root = tmp_path / "data"
    (root / "registry").mkdir(parents=True, mode=0o700)
    (root / ".user-added").touch()
    for name, text in content["files"].items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(text))
    if request.param == "sqlite":
        with closing(sqlite3.connect(root / "registry" / "metadata.db")) as database:
            database.executescript((FIRST / "metadata.sql").read_text())
        yield Old(root, "", content["refresh_token"])
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    url = postgres.url(postgres.create())
    fill_postgres(url)
    yield Old(root, url, content["refresh_token"])
    postgres.drop(database_name(url))


@pytest.fixture
def serving(old: Old) -> Iterator[Callable[[], Server]]:
    """Starts a server on the old registry; it must not complain."""
    started: list[Server] = []

    def start() -> Server:
        started.append(start_pyreg(old.root, environment=old.environment))
        return started[-1]

    yield start
    for server in started:
        server.stop()
        assert "Traceback" not in server.log.read_text()


def test_every_row_is_kept_and_the_tables_are_those_of_the_code(old: Old) -> None:
    before = first_tables()
    assert old.revision() == "0001"
    assert all(rows for table, (_, rows) in before.items()), "a table of the first schema is empty"
    done = old.pyreg("db", "upgrade")
    assert done.returncode == 0 and migrations.HEAD in done.stdout, done.stderr
    assert old.revision() == migrations.HEAD
    assert old.differences() == []
    for table, (columns, rows) in before.items():
        if table == "alembic_version":
            continue
        names = ", ".join(f'"{name}"' for name in columns)
        kept = {_plain(row) for row in old.rows(f'SELECT {names} FROM "{table}"')}
        assert {_plain(row) for row in rows} <= kept, table
    done = old.pyreg("db", "check", "--blobs")
    assert done.returncode == 0, done.stdout + done.stderr
    assert old.pyreg("db", "upgrade").returncode == 0


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(bytes(v) if isinstance(v, memoryview) else int(v) if v is True or v is False else v
                 for v in row)  # fmt: skip


def test_what_was_pushed_before_is_served_and_more_can_be_pushed(
    old: Old, serving: Callable[[], Server]
) -> None:
    manifests = old.rows(
        "SELECT r.name, m.digest, m.raw FROM manifest m JOIN repository r ON r.id = m.repository_id"
    )
    blobs = old.rows(
        "SELECT r.name, b.digest FROM repository_blob b JOIN repository r ON r.id = b.repository_id"
    )
    assert len(manifests) == 9 and len(blobs) == 16
    server = serving()
    with httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", auth=(server.username, PASSWORD)
    ) as http:

        def check_all() -> None:
            for name, digest, raw in manifests:
                answer = http.get(f"/v2/{name}/manifests/{digest}")
                assert answer.content == bytes(raw), answer.text
            for name, digest in blobs:
                answer = http.get(f"/v2/{name}/blobs/{digest}")
                assert answer.status_code == 200 and str(Digest.of(answer.content)) == digest

        check_all()
        tags = http.get("/v2/team/app/tags/list").json()["tags"]
        assert tags == ["all", "latest", "v1"]
        v1 = http.get("/v2/team/app/manifests/v1").headers["docker-content-digest"]
        found = http.get(f"/v2/team/app/referrers/{v1}").json()["manifests"]
        assert [each["artifactType"] for each in found] == ["application/spdx+json"]
        # a login of before goes on: `docker login` keeps the refresh token
        form = {"grant_type": "refresh_token", "refresh_token": old.refresh_token}
        form |= {"service": "pyreg", "client_id": "docker", "scope": "repository:team/app:pull"}
        answer = httpx.post(f"{http.base_url}/token", data=form)
        assert answer.status_code == 200, answer.text
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        url = f"{http.base_url}/v2/team/app/manifests/v1"
        assert httpx.get(url, headers=bearer).status_code == 200
        # an upload of before goes on
        [(upload,)] = old.rows("SELECT id FROM upload")
        offset = len(b"half of an upload")  # its row may know less than its file
        answer = http.get(f"/v2/team/app/blobs/uploads/{upload}")
        assert answer.headers["range"] == f"0-{offset - 1}"
        content = b"half of an upload and the other half"
        answer = http.put(
            answer.headers["location"], params={"digest": str(Digest.of(content))},
            content=content[offset:],
        )  # fmt: skip
        assert answer.status_code == 201, answer.text
        # a push to an old repository with an old layer
        raw = json.loads(http.get("/v2/team/app/manifests/v1").content)
        raw["annotations"] = {"org.example.new": "yes"}
        answer = http.put("/v2/team/app/manifests/latest", content=json.dumps(raw),
                          headers={"Content-Type": MANIFEST})  # fmt: skip
        assert answer.status_code == 201, answer.text
        # the history knows what was before
        events = http.get("/api/v1/repositories/team/app/_history").json()["items"]
        assert len([event for event in events if event["tag"] == "latest"]) == 3
        root = httpx.Client(base_url=f"{http.base_url}/api/v1", auth=("root", PASSWORD))
        with root:
            assert {u["name"] for u in root.get("/users").json()["items"]} == {
                "reed", "root", "tester",
            }  # fmt: skip
            assert root.post("/search/index/rebuild").status_code < 300
            deadline = time.monotonic() + 30
            while not (hits := root.get("/search", params={"q": "needle"}).json()["items"]):
                assert time.monotonic() < deadline, "search does not find what was there before"
                time.sleep(0.1)
            assert "other/needle" in json.dumps(hits)
            # and the collector takes nothing that something names
            answer = root.post("/gc/run")
            assert answer.status_code < 300, answer.text
        check_all()


def test_killed_in_any_step_it_begins_again(old: Old) -> None:
    """The whole upgrade is one transaction: killed at any step, the first schema is still there."""
    steps = revisions()
    for step in range(1, len(steps) + 1):
        assert old.kill_in_upgrade(step) == -signal.SIGKILL
        assert old.revision() == "0001", f"killed in revision {steps[step - 1]}"
    assert old.pyreg("db", "upgrade").returncode == 0
    assert old.revision() == migrations.HEAD
    assert old.differences() == []
    assert len(old.rows("SELECT * FROM manifest")) == 9


@pytest.mark.skipif(
    "PYREG_TEST_LARGE_UPGRADE" not in os.environ, reason="set PYREG_TEST_LARGE_UPGRADE to run it"
)
def test_a_hundred_thousand_tags(old: Old, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints how long the upgrade takes."""
    number = "SELECT value FROM generate_series(1, 100000) AS s(value)" if old.url else (
        "WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s WHERE value < "
        "100000) SELECT value FROM s"
    )  # fmt: skip
    statements = (
        "INSERT INTO tag SELECT t.repository_id, 'n' || value, t.manifest_id, t.updated_at FROM"
        f" (SELECT * FROM tag WHERE name = 'latest') t, ({number}) x",
        "INSERT INTO tag_history (repository_id, name, new_digest, actor, at) SELECT"
        " t.repository_id, t.name, 'sha256:x', 'tester', 5 FROM tag t",
    )
    if old.url:
        with psycopg.connect(old.url) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    else:
        with closing(sqlite3.connect(old.path)) as database, database:
            for statement in statements:
                database.execute(statement)
    begun = time.monotonic()
    assert old.pyreg("db", "upgrade").returncode == 0
    with capsys.disabled():
        kind = "PostgreSQL" if old.url else "SQLite"
        print(f"\n100,000 tags, {kind}: {time.monotonic() - begun:.2f} s")
    assert old.rows("SELECT count(*) FROM tag WHERE name LIKE 'n%'") == [(100_000,)]
    assert old.differences() == []
