"""The history of migrations and the tables in code say the same, for every start."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

import migrations
from registry.errors import DatabaseTooNew, DatabaseUnusable
from registry.metadata import migration
from registry.metadata.database import open_metadata, prepare, sqlite_engine
from registry.metadata.schema import schema


def schema_of(path: Path) -> set[tuple[str, str]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    found = {(name, " ".join(sql.split())) for name, sql in rows}
    connection.close()
    return {(name, sql) for name, sql in found if "alembic" not in name}


def test_migrations_make_the_tables_of_the_code(path, tmp_path):
    engine = sqlite_engine(path, begin="BEGIN")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema) == []
    engine.dispose()


def test_constraints_and_options_agree_too(path, tmp_path):
    """What Alembic's comparison does not look at: checks, names, WITHOUT ROWID, AUTOINCREMENT."""
    from_code = tmp_path / "code.db"
    engine = sqlite_engine(from_code, begin="BEGIN")
    with engine.begin() as connection:
        schema.create_all(connection)
    engine.dispose()

    def words(path: Path) -> set[tuple[str, frozenset[str]]]:
        return {
            (name, frozenset(sql.replace("(", " ( ").replace(",", " , ").split()))
            for name, sql in schema_of(path)
        }

    assert words(path) == words(from_code)


def test_head_is_the_newest_revision():
    with resources.as_file(resources.files(migrations)) as directory:
        config = Config()
        config.set_main_option("script_location", str(directory))
        config.set_main_option("path_separator", "os")
        assert ScriptDirectory.from_config(config).get_heads() == [migrations.HEAD]


def test_a_current_database_is_opened_without_alembic(path):
    program = (
        "import sys; from pathlib import Path;"
        "from registry.metadata.database import prepare;"
        f"prepare(Path({str(path)!r}));"
        "assert 'alembic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path.cwd())


def test_a_database_of_a_later_version_is_refused_and_left_alone(path):
    engine = sqlite_engine(path, begin="BEGIN IMMEDIATE")
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseTooNew) as caught:
        prepare(path)
    assert (caught.value.found, caught.value.known) == ("9999", migrations.HEAD)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    with engine.begin() as connection:
        assert migration.current_revision(connection) == "9999"
    engine.dispose()


def test_somebody_elses_database_is_refused(tmp_path):
    other = sqlite3.connect(tmp_path / "metadata.db")
    other.execute("CREATE TABLE recipes (name)")
    other.commit()
    other.close()
    with pytest.raises(DatabaseUnusable, match="not a registry"):
        prepare(tmp_path / "metadata.db")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "metadata.db").write_bytes(b"not a database at all " * 1000)
    with pytest.raises(DatabaseUnusable, match="not a database"):
        prepare(tmp_path / "metadata.db")


def test_a_directory_that_does_not_exist(tmp_path):
    with pytest.raises(DatabaseUnusable, match="cannot open"):
        open_metadata(tmp_path / "none" / "metadata.db")


def test_a_migration_that_fails_leaves_the_database_as_it_was(tmp_path, monkeypatch):
    from alembic import op

    path = tmp_path / "metadata.db"
    made: list[str] = []
    create_table = op.create_table

    def fail_halfway(name, *arguments, **options):
        if len(made) == 5:
            raise RuntimeError("halfway")
        made.append(name)
        return create_table(name, *arguments, **options)

    monkeypatch.setattr(op, "create_table", fail_halfway)
    with pytest.raises(RuntimeError, match="halfway"):
        prepare(path)
    assert schema_of(path) == set()
    monkeypatch.undo()
    prepare(path)
    assert schema_of(path)


def test_many_processes_create_one_database(tmp_path):
    path = tmp_path / "metadata.db"
    program = (
        "from pathlib import Path; from registry.metadata.database import open_metadata;"
        f"open_metadata(Path({str(path)!r})).close()"
    )
    processes = [subprocess.Popen([sys.executable, "-W", "error", "-c", program]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert schema_of(path)


def test_the_file_is_the_owners_alone(tmp_path):
    metadata = open_metadata(tmp_path / "metadata.db")
    modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    metadata.close()
    assert modes == dict.fromkeys(
        ("metadata.db", "metadata.db-wal", "metadata.db-shm", "metadata.db.host"), 0o600
    )
