"""What an operator asks of a database, in use or not: its schema, its health, a copy of it.

All of it blocks, and none of it is needed to serve.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, select, text
from sqlalchemy.exc import SQLAlchemyError

import migrations
from registry.app import DATABASE, open_database
from registry.errors import DatabaseUnusable, RegistryError
from registry.first_start import DataUnusable, make_directory, require_registry
from registry.metadata.database import sqlite_engine
from registry.metadata.migration import current_revision
from registry.metadata.tables import blob
from registry.settings import Settings
from registry.storage.base import BlobReader, StoreKey
from registry.storage.errors import BlobMissing, InvalidStoreKey
from registry.storage.opening import open_storage

# Findings of one kind that are told; a broken disk has millions.
MOST_FINDINGS = 100
_PAGE = 1000


class BackupFailed(RegistryError):
    """There is no copy."""


@dataclass(frozen=True, slots=True)
class Schema:
    """Revisions of the database's tables."""

    #: What the database has; empty if it has no tables yet.
    found: str
    #: What this pyreg works with.
    wanted: str = migrations.HEAD

    @property
    def is_current(self) -> bool:
        return self.found == self.wanted


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be."""

    #: schema, integrity, reference, constraint, index or blob.
    kind: str
    message: str


def place(settings: Settings) -> str:
    """Where the database is, for people: no password."""
    if settings.database:
        from registry.metadata.location import Location

        return str(Location.parse(settings.database))
    return str(settings.data / DATABASE)


@contextlib.contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """A connection in a transaction, on the database as it is: neither made nor upgraded.

    Raises: DataUnusable if there is none; DatabaseUnusable if it does not work.
    """
    if settings.database:
        from registry.metadata.location import Location
        from registry.metadata.postgres import postgres_engine

        location = Location.parse(settings.database)
        engine = postgres_engine(location)
    else:
        location = None
        require_registry(settings)
        engine = sqlite_engine(settings.data / DATABASE, begin="BEGIN")
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error)
        if location is not None:
            reason = location.hide(reason)
        raise DatabaseUnusable(
            f"the database {place(settings)} does not work: {reason.splitlines()[0]}",
            hint="see whether it runs, and whether this user may use it",
        ) from error
    finally:
        engine.dispose()


def schema_of(settings: Settings) -> Schema:
    """Raises: as `connected`."""
    with connected(settings) as connection:
        return Schema(current_revision(connection))


def require_current_schema(settings: Settings) -> None:
    """Raises: DatabaseUnusable if this pyreg would have to upgrade the database first."""
    try:
        schema = schema_of(settings)
    except DataUnusable:
        schema = Schema("")
    if not schema.is_current:
        raise DatabaseUnusable(
            f"the database {place(settings)} has schema {schema.found or 'none'}, this pyreg needs"
            f" {schema.wanted}, and upgrading at the start is switched off",
            hint="make a backup with `pyreg db backup`, then run `pyreg db upgrade`",
        )


def upgrade(settings: Settings) -> tuple[Schema, Schema]:
    """Create or upgrade the database, under a lock; the schema before and after.

    Raises: what `open_metadata` raises.
    """
    if not settings.database:
        make_directory(settings)
    try:
        before = schema_of(settings)
    except DataUnusable:
        before = Schema("")
    open_database(settings).close()
    return before, schema_of(settings)


def check(settings: Settings, *, blobs: bool = False) -> list[Finding]:
    """Everything that is wrong; `blobs` also looks whether every blob has its bytes.

    May run while the registry serves. Raises: as `connected`; what storage raises when it fails.
    """
    with connected(settings) as connection:
        schema = Schema(current_revision(connection))
        findings: list[Finding] = []
        if not schema.is_current:
            message = f"it is {schema.found or 'none'}, this pyreg needs {schema.wanted}"
            findings.append(Finding("schema", message))
        if connection.dialect.name == "sqlite":
            findings += _check_sqlite(connection)
        else:
            findings += _check_postgres(connection)
        if blobs and schema.is_current:
            storage = open_storage(settings)
            try:
                findings += _check_blobs(connection, storage)
            finally:
                storage.close()
        return findings


def _check_sqlite(connection: Connection) -> list[Finding]:
    findings = [
        Finding("integrity", str(line))
        for (line,) in connection.exec_driver_sql(f"PRAGMA integrity_check({MOST_FINDINGS})")
        if line != "ok"
    ]
    rows = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(MOST_FINDINGS)
    findings += [
        Finding("reference", f"row {row[1]} of {row[0]} refers to a missing row of {row[2]}")
        for row in rows
    ]
    return findings


def _check_postgres(connection: Connection) -> list[Finding]:
    """What PostgreSQL itself says is not valid; it checks everything else all the time."""
    constraints = connection.execute(
        text(
            "SELECT conname, conrelid::regclass::text FROM pg_constraint WHERE NOT convalidated"
            " AND connamespace = current_schema()::regnamespace LIMIT :most"
        ),
        {"most": MOST_FINDINGS},
    )
    findings = [
        Finding("constraint", f"{name} of {table} was never checked on all rows")
        for name, table in constraints
    ]
    indexes = connection.execute(
        text(
            "SELECT i.indexrelid::regclass::text FROM pg_index i JOIN pg_class c"
            " ON c.oid = i.indexrelid WHERE NOT (i.indisvalid AND i.indisready)"
            " AND c.relnamespace = current_schema()::regnamespace LIMIT :most"
        ),
        {"most": MOST_FINDINGS},
    )
    return findings + [Finding("index", f"{name} is not valid") for (name,) in indexes]


def _check_blobs(connection: Connection, storage: BlobReader) -> list[Finding]:
    findings: list[Finding] = []
    last = ""
    while len(findings) < MOST_FINDINGS:
        rows = connection.execute(
            select(blob.c.digest, blob.c.size, blob.c.store_key)
            .where(blob.c.state == "live", blob.c.digest > last)
            .order_by(blob.c.digest)
            .limit(_PAGE)
        ).all()
        if not rows:
            break
        for digest, size, key in rows:
            problem = _check_bytes(storage, key, size)
            if problem and _is_live(connection, digest, key):
                findings.append(Finding("blob", f"{digest} {problem}"))
        last = rows[-1].digest
    return findings[:MOST_FINDINGS]


def _check_bytes(storage: BlobReader, key: str, size: int) -> str:
    try:
        with storage.open(StoreKey.parse(key)) as stored:
            found = stored.size
    except BlobMissing:
        return f"has no bytes at {key}"
    except InvalidStoreKey:
        return f"has an impossible key: {key!r}"
    return "" if found == size else f"has {found} bytes instead of {size}"


def _is_live(connection: Connection, digest: str, key: str) -> bool:
    """Whether the row still says so: it may have been deleted since the page was read."""
    connection.rollback()
    row = connection.execute(
        select(blob.c.state).where(blob.c.digest == digest, blob.c.store_key == key)
    ).first()
    return row is not None and row.state == "live"


def backup(settings: Settings, target: Path) -> int:
    """Copy the database, as it is at one moment, to a new file; its size in bytes.

    The registry may go on serving and writing. Blobs are not in it: copy them afterwards, and what
    this copy names is there. A SQLite copy is a database; a PostgreSQL one is for pg_restore.

    Raises: BackupFailed, and there is no file then; as `connected`.
    """
    if not settings.database:
        require_registry(settings)
    if target.exists() or target.is_symlink():
        raise BackupFailed(f"{target} exists already", hint="name a file that does not exist")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        try:
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            if settings.database:
                _dump_postgres(settings, part)
            else:
                _copy_sqlite(settings.data / DATABASE, part)
            return _publish(part, target)
        finally:
            for suffix in ("", "-journal", "-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{part}{suffix}")
    except FileExistsError as error:
        raise BackupFailed(
            f"{target} exists already", hint="name a file that does not exist"
        ) from error
    except OSError as error:
        raise BackupFailed(
            f"cannot write {target}: {error.strerror}", hint="see whether there is room for it"
        ) from error


def _copy_sqlite(source: Path, target: Path) -> None:
    reading = sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)
    try:
        writing = sqlite3.connect(target)
        try:
            # In one step: it sees one moment, and in WAL mode keeps nobody from writing. In several
            # steps it would begin anew with each write of the server, and so never end.
            reading.backup(writing, pages=-1)
            # One file without companions.
            writing.execute("PRAGMA journal_mode = DELETE")
            [(verdict,)] = writing.execute("PRAGMA quick_check(1)")
        finally:
            writing.close()
    except sqlite3.Error as error:
        raise BackupFailed(f"cannot copy {source}: {error}") from error
    finally:
        reading.close()
    if verdict != "ok":
        raise BackupFailed(
            f"the copy of {source} is damaged: {verdict}", hint="run: pyreg db check"
        )


def _dump_postgres(settings: Settings, target: Path) -> None:
    from psycopg.conninfo import make_conninfo

    from registry.metadata.location import Location

    program = shutil.which("pg_dump")
    if program is None:
        raise BackupFailed(
            "a backup of PostgreSQL needs pg_dump, which is not installed",
            hint="install it, e.g. apt-get install postgresql-client, of the server's version",
        )
    location = Location.parse(settings.database)
    # The password goes by the environment: everybody can read a command line.
    given = {key: value for key, value in location.parameters.items() if key != "options"}
    password = given.pop("password", None)
    words = ["--format=custom", "--no-password", f"--file={target}"]
    done = subprocess.run(
        [program, *words, f"--dbname={make_conninfo('', **given)}"],
        env={"PATH": os.defpath, "LC_ALL": "C"} | ({"PGPASSWORD": password} if password else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
        raise BackupFailed(f"pg_dump failed: {location.hide(said.splitlines()[-1])}")


def _publish(part: Path, target: Path) -> int:
    """Give a finished file its name, if nobody has it, so that it survives a power cut."""
    descriptor = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        size = os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
    os.link(part, target)
    directory = os.open(target.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return size
