"""Transactions on PostgreSQL, shared by any number of processes and machines.

Every operation is one transaction in a thread on a pooled connection, with the row locks that its
statements take. What can go wrong for a moment is tried again here, a few seconds long, because a
step is a function of its transaction and nothing else:

    deadlock, serialization failure     nothing happened: once more, after a random pause
    a row gone that was just seen       once more: the step sees now why
    connection lost before COMMIT       the same, on another connection
    connection lost during COMMIT       the server is asked whether that transaction committed
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine

from registry.errors import DatabaseUnreachable, DatabaseUnusable
from registry.metadata import migration
from registry.metadata.failures import (
    conflicts,
    is_lost,
    is_refused,
    may_be_overtaken,
    translate_postgres,
)
from registry.metadata.location import Location
from registry.metadata.transaction import Terms, Transaction

T = TypeVar("T")

OLDEST = 13
_OLDEST_VERSION = OLDEST * 10_000

# How long an operation is tried again, in seconds. A request waits that long before its 503; a
# restart of the server or a switch to its standby mostly takes less.
PATIENCE_S = 6.0

# How often a step may find a row gone that it has just seen.
_OVERTAKEN = 5

# Of the advisory lock that a migration holds: "pyreg" in ASCII, so that others hardly use it.
_SCHEMA_LOCK = 0x7079726567

# A replica waits for another's migration that long.
_MIGRATION_LOCK_MS = 600_000

_BEGIN_WRITE = b"BEGIN; SELECT pg_current_xact_id()::text"
# https://www.postgresql.org/docs/current/wal-async-commit.html
_BEGIN_UNFLUSHED = b"BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_current_xact_id()::text"
_BEGIN_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class _Unknown(Exception):
    """The connection was lost while the commit was on its way."""

    def __init__(self, xid: str, result: object) -> None:
        super().__init__(xid)
        self.xid = xid
        self.result = result


class PostgresDatabase:
    """Implements `registry.metadata.transaction.Transactions`. Closing twice is harmless."""

    def __init__(
        self,
        location: Location,
        *,
        clock: Callable[[], float],
        terms: Terms,
        connections: int,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.location = location
        self._clock = clock
        self._terms = terms
        self._patience_s = patience_s
        self._engine = postgres_engine(location, connections)
        # Writes that wait for each other's row locks must not keep listings from their threads.
        reading = max(1, connections // 4)
        self._writers = ThreadPoolExecutor(connections - reading, "metadata-writer")
        self._readers = ThreadPoolExecutor(reading, "metadata-reader")
        self._lock = threading.Lock()
        self._closed = False

    async def write(self, step: Callable[[Transaction], T], *, flushed: bool = True) -> T:
        """Run a step and commit it; if it raises, nothing of it happened.

        DatabaseUnreachable alone leaves open whether it did.
        """
        return await self._run(self._writers, lambda: self._change(step, flushed))

    async def read(self, step: Callable[[Transaction], T]) -> T:
        """Run a step that only reads, all of it in one state of the database."""
        return await self._run(self._readers, lambda: self._ask(step))

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        with self._lock:
            if self._closed:
                raise RuntimeError("the metadata is closed")
            # Patience begins now: waiting for a thread is waiting, too.
            until = time.monotonic() + self._patience_s
            future = threads.submit(self._persist, work, until)
        return await asyncio.wrap_future(future)

    def _persist(self, work: Callable[[], T], until: float) -> T:
        """Do the work until it succeeds, fails for good, or patience ends."""
        pause = 0.005
        overtaken = 0
        while True:
            try:
                return work()
            except _Unknown as unknown:
                if self._committed(unknown, until):
                    return unknown.result  # type: ignore[return-value]
            except Exception as error:
                again = conflicts(error) or is_lost(error)
                if not again and may_be_overtaken(error):
                    overtaken += 1
                    again = overtaken <= _OVERTAKEN
                if not again or time.monotonic() + pause > until:
                    problem = translate_postgres(error, self.location)
                    if problem is error:
                        raise
                    raise problem from error
                # Two that lost a deadlock to each other must not meet again.
                time.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(pause * 2, 0.5)

    def _change(self, step: Callable[[Transaction], T], flushed: bool) -> T:
        with self._connected() as connection:
            raw = _driver(connection)
            cursor = raw.execute(_BEGIN_WRITE if flushed else _BEGIN_UNFLUSHED)
            while cursor.nextset():
                pass
            (xid,) = cursor.fetchone() or ("",)
            result = step(Transaction(connection, int(self._clock()), self._terms))
            try:
                raw.commit()
            except psycopg.OperationalError as error:
                if not raw.broken:
                    raise
                raise _Unknown(xid, result) from error
            return result

    def _ask(self, step: Callable[[Transaction], T]) -> T:
        with self._connected() as connection:
            _driver(connection).execute(_BEGIN_READ)
            return step(Transaction(connection, int(self._clock()), self._terms))

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """A connection; one that turns out to be lost takes all that rest in the pool with it."""
        with self._engine.connect() as connection:
            raw = _driver(connection)
            try:
                yield connection
            except BaseException as error:
                if raw.closed or is_refused(error):
                    if not connection.invalidated:
                        connection.invalidate()
                    self._engine.dispose()
                raise
            # Otherwise the pool rolls back what is still open.

    def _committed(self, unknown: _Unknown, until: float) -> bool:
        """Whether the transaction committed, once the server can say.

        Raises: DatabaseUnreachable if it could not in time.
        """
        pause = 0.02
        while True:
            try:
                with self._connected() as connection:
                    found = _driver(connection).execute(
                        b"SELECT pg_xact_status(%s::xid8)", (unknown.xid,)
                    )
                    (status,) = found.fetchone() or (None,)
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
            except psycopg.errors.InvalidParameterValue:
                # "in the future": a standby took over that had not heard of it, so it is lost.
                return False
            except Exception as error:
                if not is_lost(error):
                    raise
            if time.monotonic() + pause > until:
                raise DatabaseUnreachable(
                    str(self.location), "it is not known whether the last change was kept"
                )
            time.sleep(pause)
            pause = min(pause * 2, 0.5)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._writers.shutdown()
        self._readers.shutdown()
        self._engine.dispose()


def _driver(connection: Connection) -> psycopg.Connection[tuple[Any, ...]]:
    raw = connection.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def postgres_engine(location: Location, connections: int = 1) -> Engine:
    """Connections in autocommit: whoever uses one says BEGIN, which costs no extra round trip."""

    def connect() -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(location.conninfo, autocommit=True)

    return create_engine(
        URL.create("postgresql+psycopg", database=location.parameters.get("dbname")),
        creator=connect,
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,  # in logs and tracebacks: keys and hashes are among them
        pool_timeout=PATIENCE_S,
        use_native_hstore=False,
    )


@contextmanager
def migrating_postgres(location: Location) -> Iterator[Connection]:
    """A connection whose transaction holds the lock of the schema; committed at the end.

    Raises: DatabaseUnusable if there is no such server or database; DatabaseBusy.
    """
    engine = postgres_engine(location)
    try:
        with engine.connect() as connection:
            raw = _driver(connection)
            _check(raw, location)
            raw.execute("BEGIN")
            raw.execute("SET LOCAL statement_timeout = 0")
            raw.execute(f"SET LOCAL lock_timeout = {_MIGRATION_LOCK_MS}".encode())
            raw.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            yield connection
            raw.commit()
    except Exception as error:
        problem = translate_postgres(error, location)
        if problem is error:
            raise
        if isinstance(problem, DatabaseUnreachable):
            problem = DatabaseUnusable(str(problem), hint=problem.hint)
        raise problem from error
    finally:
        engine.dispose()


def prepare_postgres(location: Location) -> None:
    """Bring the schema up to date. Raises: DatabaseTooNew; DatabaseUnusable; DatabaseBusy."""
    with migrating_postgres(location) as connection:
        migration.upgrade(connection, where=str(location))


def _check(raw: psycopg.Connection[tuple[Any, ...]], location: Location) -> None:
    if raw.info.server_version < _OLDEST_VERSION:
        raise DatabaseUnusable(
            f"{location} is PostgreSQL {raw.info.server_version // 10_000}",
            hint=f"pyreg needs PostgreSQL {OLDEST} or later",
        )
    encoding = raw.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseUnusable(
            f"{location} has the encoding {encoding}",
            hint="make one for pyreg: CREATE DATABASE pyreg ENCODING 'UTF8' TEMPLATE template0",
        )
