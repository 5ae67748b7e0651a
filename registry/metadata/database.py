"""Open the metadata: engines, threads, and the operations on top of them, assembled.

PostgreSQL has its own file, `postgres`.

One process has on a SQLite file
    1 connection held by the event loop (`HotReads`),
    1 held by the writer's thread (`Writer`), and
    a few in a pool for listings.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event

from registry.errors import DatabaseUnusable
from registry.metadata import migration
from registry.metadata.access_policy import SqlAccessPolicy
from registry.metadata.access_tokens import SqlAccessTokens
from registry.metadata.accounts import SqlAccounts
from registry.metadata.base import HotReads, ImmediateReads, Metadata
from registry.metadata.blobs import SqlBlobs
from registry.metadata.collecting import SqlCollection
from registry.metadata.collection_report import SqlCollectionReport
from registry.metadata.credentials import SqlCredentials
from registry.metadata.devices import SqlDevices
from registry.metadata.failures import translate
from registry.metadata.groups import SqlGroups
from registry.metadata.history import SqlHistory
from registry.metadata.hostlease import HostLease
from registry.metadata.hotreads import AtOnce, SqliteHotReads
from registry.metadata.location import Location
from registry.metadata.manifests import SqlManifests
from registry.metadata.overview import SqlOverview
from registry.metadata.quotas import SqlQuotas
from registry.metadata.repositories import SqlRepositories
from registry.metadata.retention import SqlRetention
from registry.metadata.search import SqlSearch
from registry.metadata.search_index import SqlSearchIndex
from registry.metadata.tags import SqlTags
from registry.metadata.transaction import Terms, Transaction, Transactions
from registry.metadata.trash import SqlTrash
from registry.metadata.trust import SqlTrust
from registry.metadata.upkeep import SqlUpkeep
from registry.metadata.uploads import SqlUploads
from registry.metadata.usage import SqlUsage
from registry.metadata.writer import Writer

T = TypeVar("T")

# Waiting for another process that repairs the file after a crash.
_BUSY_S = 5.0
# Waiting for another process's write lock.
_LOCK_S = 30.0

# Listings read a page each: more threads would only compete for the interpreter.
_READERS = 2


class Database:
    """Runs operations against one SQLite file, in threads. Closing twice is harmless."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float],
        terms: Terms,
        lease: HostLease | None = None,
    ) -> None:
        self._lease = lease
        self._clock = clock
        self._terms = terms
        self._closed = False
        self._writing = sqlite_engine(path, begin="", busy_s=0)  # the writer waits, and begins
        self._reading = sqlite_engine(path, begin="BEGIN")
        connection = self._writing.connect()
        self._writer = Writer(connection, clock=self._now, terms=terms, busy_s=_LOCK_S)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="metadata-reader")
        self._lock = threading.Lock()

    def _now(self) -> int:
        return int(self._clock())

    async def write(self, step: Callable[[Transaction], T], *, flushed: bool = True) -> T:
        """Run a step and commit it to disk; if it raises, nothing of it happened.

        Without `flushed` a power cut may undo it.
        """
        if self._lease is not None:
            self._lease.require()
        return await self._writer.run(step, flushed=flushed)

    async def read(self, step: Callable[[Transaction], T]) -> T:
        """Run a step that only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, step)

    def _read(self, step: Callable[[Transaction], T]) -> T:
        try:
            with self._reading.begin() as connection:
                return step(Transaction(connection, self._now(), self._terms))
        except Exception as error:
            problem = translate(error, waited_s=_BUSY_S)
            if problem is error:
                raise
            raise problem from error

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._writer.close()
        self._readers.shutdown()
        self._writing.dispose()
        self._reading.dispose()
        if self._lease is not None:
            self._lease.close()


@dataclass(frozen=True, slots=True)
class SqlMetadata:
    """Implements `registry.metadata.base.Metadata`."""

    hot: HotReads
    immediate: ImmediateReads | None
    repositories: SqlRepositories
    overview: SqlOverview
    blobs: SqlBlobs
    uploads: SqlUploads
    manifests: SqlManifests
    tags: SqlTags
    accounts: SqlAccounts
    groups: SqlGroups
    access_tokens: SqlAccessTokens
    policy: SqlAccessPolicy
    credentials: SqlCredentials
    trust: SqlTrust
    devices: SqlDevices
    collection: SqlCollection
    upkeep: SqlUpkeep
    collection_report: SqlCollectionReport
    usage: SqlUsage
    search: SqlSearch
    search_index: SqlSearchIndex
    history: SqlHistory
    trash: SqlTrash
    retention: SqlRetention
    quotas: SqlQuotas
    _close: Callable[[], None]

    def close(self) -> None:
        """Wait for running transactions and close; harmless twice."""
        self.hot.close()
        self._close()


def open_metadata(
    path: Path,
    *,
    database: str = "",
    connections: int = 8,
    clock: Callable[[], float] = time.time,
    terms: Terms | None = None,
) -> Metadata:
    """Open a database, creating or upgrading its schema. Blocks; several processes may do it at
    once.

    `path` is a SQLite file. Its directory must exist. The file is made readable by its owner alone,
    because it holds the keys that sign tokens. Where `database` is not empty, it is the PostgreSQL
    database that counts instead (see `Location`), with so many connections for transactions.

    Raises: DatabaseTooNew; DatabaseHeld by another machine; DatabaseUnusable; DatabaseBusy;
    StorageFull.
    """
    terms = terms or Terms()
    if database:
        return _open_postgres(database, clock=clock, terms=terms, connections=connections)
    make_file(path)
    lease = HostLease(path)
    try:
        prepare(path)
        file = Database(path, clock=clock, terms=terms, lease=lease)
    except BaseException:
        lease.close()
        raise
    immediate = SqliteHotReads(path, clock=clock)
    return assemble(file, AtOnce(immediate), file.close, immediate=immediate)


def _open_postgres(
    database: str, *, clock: Callable[[], float], terms: Terms, connections: int
) -> Metadata:
    # Imported here: the driver is an extra, and large.
    from registry.metadata.hotreads_postgres import PostgresHotReads
    from registry.metadata.postgres import PostgresDatabase, prepare_postgres

    location = Location.parse(database)
    prepare_postgres(location)
    server = PostgresDatabase(location, clock=clock, terms=terms, connections=connections)
    return assemble(server, PostgresHotReads(location, clock=clock), server.close)


def assemble(
    transactions: Transactions,
    hot: HotReads,
    close: Callable[[], None],
    *,
    immediate: ImmediateReads | None = None,
) -> SqlMetadata:
    """The operations, on whatever runs transactions."""
    return SqlMetadata(
        hot=hot,
        immediate=immediate,
        repositories=SqlRepositories(transactions),
        overview=SqlOverview(transactions),
        blobs=SqlBlobs(transactions),
        uploads=SqlUploads(transactions),
        manifests=SqlManifests(transactions),
        tags=SqlTags(transactions),
        accounts=SqlAccounts(transactions),
        groups=SqlGroups(transactions),
        access_tokens=SqlAccessTokens(transactions),
        policy=SqlAccessPolicy(transactions),
        credentials=SqlCredentials(transactions),
        trust=SqlTrust(transactions),
        devices=SqlDevices(transactions),
        collection=SqlCollection(transactions),
        upkeep=SqlUpkeep(transactions),
        collection_report=SqlCollectionReport(transactions),
        usage=SqlUsage(transactions),
        search=SqlSearch(transactions),
        search_index=SqlSearchIndex(transactions),
        history=SqlHistory(transactions),
        trash=SqlTrash(transactions),
        retention=SqlRetention(transactions),
        quotas=SqlQuotas(transactions),
        _close=close,
    )


def prepare(path: Path) -> None:
    """Create the file if need be and bring its schema up to date. Raises: as `open_metadata`."""
    make_file(path)
    engine = sqlite_engine(path, begin="BEGIN IMMEDIATE")
    try:
        with engine.begin() as connection:
            migration.upgrade(connection)
    except Exception as error:
        problem = translate(error, waited_s=_BUSY_S)
        if problem is error:
            raise
        raise problem from error
    finally:
        engine.dispose()


def make_file(path: Path) -> None:
    """An empty file for its owner alone, unless there is one. Raises: DatabaseUnusable."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise DatabaseUnusable(
            f"cannot open the database {path}: {error.strerror}",
            hint="the directory must exist and be writable by this user",
        ) from error


def sqlite_engine(path: Path, *, begin: str, busy_s: float = _BUSY_S) -> Engine:
    """Connections whose transactions start with `begin`, the driver's own logic being off.

    Where `begin` is empty, whoever uses them begins and ends transactions. `busy_s` is how long a
    statement waits for another process.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"isolation_level": None, "timeout": _BUSY_S, "check_same_thread": False},
        pool_size=_READERS,
        max_overflow=1,
        hide_parameters=True,  # in logs and tracebacks: keys and hashes are among them
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        # WAL: readers and the writer do not wait for each other. FULL: the log is flushed at each
        # commit; with NORMAL a power cut would undo pushes that were acknowledged.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA busy_timeout = {int(busy_s * 1000)}")
        # The log file may have been made just now; its name must survive a power cut too.
        _sync_directory(path.absolute().parent)

    if begin:

        @event.listens_for(engine, "begin")
        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

    return engine


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
