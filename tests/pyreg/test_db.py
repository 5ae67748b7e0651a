"""`pyreg db`: schema, damage, and a copy that is consistent while others write."""

from __future__ import annotations

import json
import sqlite3
import stat
import subprocess
import threading
from pathlib import Path

from registry.first_start import prepare_apart
from registry.settings import Settings
from tests.builders.postgres import postgres_server
from tests.builders.servers import pyreg_command, pyreg_environment
from tests.builders.tools import require_tool


def db(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*pyreg_command(), "--root", str(root), "db", *words],
        env=pyreg_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
    )


def begin(root: Path) -> Path:
    settings = Settings(root=str(root))
    prepare_apart(settings)
    return settings.data / "metadata.db"


def test_upgrade_makes_a_database_and_is_harmless_twice(tmp_path: Path) -> None:
    assert db(tmp_path, "current").returncode == 1
    first = db(tmp_path, "upgrade")
    assert first.returncode == 0 and "from nothing" in first.stdout
    assert "is up to date" in db(tmp_path, "upgrade").stdout
    shown = json.loads(db(tmp_path, "current", "--format", "json").stdout)
    assert shown["current"] and shown["found"] == shown["wanted"] != ""


def test_a_schema_of_the_future_is_told(tmp_path: Path) -> None:
    path = begin(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    done = db(tmp_path, "current")
    assert done.returncode == 1 and "9999, this pyreg needs" in done.stdout
    done = db(tmp_path, "upgrade")
    assert done.returncode == 1 and "newer pyreg" in done.stderr


def test_check_finds_rows_without_bytes_and_broken_references(tmp_path: Path) -> None:
    path = begin(tmp_path)
    assert "nothing is wrong" in db(tmp_path, "check", "--blobs").stdout
    digest = "sha256:" + "ab" * 32
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "INSERT INTO blob (digest, size, state, generation, store_key, created_at, lease_until)"
            " VALUES (?, 5, 'live', 0, ?, 0, 0)",
            (digest, f"blobs/sha256/ab/{'ab' * 32}"),
        )
        connection.execute("INSERT INTO repository_blob VALUES (77, ?, 0)", (digest,))
    connection.close()
    done = db(tmp_path, "check")
    assert done.returncode == 1
    assert "reference: " in done.stdout and "missing row of repository" in done.stdout
    assert "blob: " not in done.stdout
    found = json.loads(db(tmp_path, "check", "--blobs", "--format", "json").stdout)["problems"]
    assert {
        "kind": "blob",
        "message": f"{digest} has no bytes at blobs/sha256/ab/{'ab' * 32}",
    } in found
    file = tmp_path / "registry" / "blobs" / "sha256" / "ab" / ("ab" * 32)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"four")
    assert "has 4 bytes instead of 5" in db(tmp_path, "check", "--blobs").stdout


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path) -> None:
    path = begin(tmp_path)
    path.write_bytes(b"no database at all" * 1000)
    for word in ("check", "current"):
        done = db(tmp_path, word)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr and "internal error" not in done.stderr
        assert str(path) in done.stderr


def test_a_backup_is_of_one_moment_while_others_write(tmp_path: Path) -> None:
    path = begin(tmp_path / "data")
    # Two tables that every transaction changes together: a torn copy has different numbers.
    setup = sqlite3.connect(path)
    with setup:
        setup.execute("CREATE TABLE one (n)")
        setup.execute("CREATE TABLE two (n)")
    setup.close()
    done = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(path, timeout=30)
        while not done.is_set():
            with connection:
                connection.execute("INSERT INTO one VALUES (randomblob(2000))")
                connection.execute("INSERT INTO two VALUES (1)")
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        copies = [tmp_path / f"copy-{number}.db" for number in range(3)]
        for copy in copies:
            told = db(tmp_path / "data", "backup", str(copy))
            assert told.returncode == 0, told.stderr
    finally:
        done.set()
        writer.join()
    for copy in copies:
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        connection = sqlite3.connect(copy)
        [(one,)] = connection.execute("SELECT count(*) FROM one")
        [(two,)] = connection.execute("SELECT count(*) FROM two")
        assert one == two > 0
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    assert sorted(tmp_path.glob(".*")) == []


def test_a_backup_overwrites_nothing_and_leaves_nothing_half(tmp_path: Path) -> None:
    begin(tmp_path / "data")
    target = tmp_path / "copy"
    target.write_text("precious")
    done = db(tmp_path / "data", "backup", str(target))
    assert done.returncode == 1 and "exists already" in done.stderr
    assert target.read_text() == "precious"
    done = db(tmp_path / "data", "backup", str(tmp_path / "none" / "copy"))
    assert done.returncode == 1 and "cannot write" in done.stderr
    assert sorted(each.name for each in tmp_path.iterdir()) == ["copy", "data"]


def test_the_same_on_postgresql(tmp_path: Path) -> None:
    require_tool("pg_dump")
    with postgres_server() as server:
        url = server.url(server.create())
        settings = {"PYREG_DATABASE": url}
        done = db(tmp_path, "current", **settings)
        assert (done.returncode, done.stderr) == (1, "") and done.stdout.startswith("none")
        assert "from nothing" in db(tmp_path, "upgrade", **settings).stdout
        assert "is up to date" in db(tmp_path, "upgrade", **settings).stdout
        done = db(tmp_path, "check", "--blobs", **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        done = db(tmp_path, "backup", str(tmp_path / "copy"), **settings)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "copy").read_bytes().startswith(b"PGDMP")
        assert stat.S_IMODE((tmp_path / "copy").stat().st_mode) == 0o600
        import psycopg

        with psycopg.connect(url) as connection:
            connection.execute(
                "ALTER TABLE manifest ADD CONSTRAINT late CHECK (size >= 0) NOT VALID"
            )
        connection.close()
        done = db(tmp_path, "check", **settings)
        assert done.returncode == 1 and "constraint: late of manifest" in done.stdout
    done = db(tmp_path, "check", **settings)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "internal error" not in done.stderr
