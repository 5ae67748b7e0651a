"""One held PostgreSQL connection that answers questions of the event loop, many at once.

libpq's pipeline mode: every question is sent as soon as it is asked, and answers come back in the
same order. No thread, no cursor, no pool; the loop only wakes up when there is something to read.
Each question is a transaction of its own, so it sees everything committed before it was asked.

    ask ── send_query_prepared, sync ──▶ server          pending: question, question, …
    reader ◀── result, sync ── server                    the first pending one is answered
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import pq

from registry.errors import DatabaseBusy, DatabaseFailed
from registry.metadata.failures import LOST_STATES, TOO_LONG_STATES
from registry.metadata.location import STATEMENT_TIMEOUT_MS, Location

Row = tuple[bytes | None, ...]

# A server that says nothing for so long is gone; its own limit for a statement comes first.
_SILENCE_S = STATEMENT_TIMEOUT_MS / 1000 + 5

# Plans are made once, maybe while tables are empty; they must be right for full ones too.
_SESSION = b"SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off"

# "cached plan must not change result type": a newer replica migrated. Preparing anew helps.
_PLAN_CHANGED = "0A000"


class ConnectionLost(Exception):
    """The question may be asked again on a new connection."""


class Pipeline:
    """For one event loop. After ConnectionLost it is of no more use."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pg = connection.pgconn
        self._pending: deque[tuple[float, asyncio.Future[Row | None]]] = deque()
        self._result: pq.abc.PGresult | None = None
        self._loop = asyncio.get_running_loop()
        self._descriptor = self._pg.socket
        self._writing = False
        self.is_open = True
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._loop.add_reader(self._descriptor, self._readable)
        self._watch = self._loop.call_later(1.0, self._look_at_clock)

    @property
    def waiting(self) -> int:
        """Questions not answered yet."""
        return len(self._pending)

    def ask(self, statement: bytes, values: Sequence[bytes]) -> asyncio.Future[Row | None]:
        """The first row's columns in binary form, or None.

        The future raises: ConnectionLost; DatabaseBusy; DatabaseFailed.
        """
        future: asyncio.Future[Row | None] = self._loop.create_future()
        try:
            self._pg.send_query_prepared(statement, values, result_format=1)
            self._pg.pipeline_sync()
            unsent = self._pg.flush()
        except psycopg.Error as error:
            self._lost(error)
            raise ConnectionLost(str(error)) from error
        self._pending.append((time.monotonic(), future))
        if unsent and not self._writing:
            self._writing = True
            self._loop.add_writer(self._descriptor, self._writable)
        return future

    def _writable(self) -> None:
        try:
            if self._pg.flush():
                return
        except psycopg.Error as error:
            self._lost(error)
            return
        self._writing = False
        self._loop.remove_writer(self._descriptor)

    def _readable(self) -> None:
        pg = self._pg
        try:
            pg.consume_input()
            ends = 0
            while self._pending and ends < 2 and not pg.is_busy():
                result = pg.get_result()
                if result is None:
                    ends += 1  # after each question's results; twice: nothing more
                    continue
                ends = 0
                if result.status == pq.ExecStatus.PIPELINE_SYNC:
                    self._answer()
                elif self._result is None:
                    self._result = result
        except psycopg.Error as error:
            self._lost(error)

    def _answer(self) -> None:
        result, self._result = self._result, None
        _, future = self._pending.popleft()
        if future.done():
            return  # the caller went away
        if result is not None and result.status == pq.ExecStatus.TUPLES_OK:
            if not result.ntuples:
                future.set_result(None)
                return
            get = result.get_value
            future.set_result(tuple(get(0, column) for column in range(result.nfields)))
            return
        future.set_exception(_problem(result))

    def _look_at_clock(self) -> None:
        if self._pending and time.monotonic() - self._pending[0][0] > _SILENCE_S:
            self._lost(ConnectionLost("the server does not answer"))
            return
        self._watch = self._loop.call_later(1.0, self._look_at_clock)

    def _lost(self, error: BaseException) -> None:
        pending = list(self._pending)
        self.close()
        for _, future in pending:
            if not future.done():
                future.set_exception(ConnectionLost(str(error)))

    def close(self) -> None:
        """Harmless twice. Questions without an answer get ConnectionLost."""
        if not self.is_open:
            return
        self.is_open = False
        self._watch.cancel()
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_writer(self._descriptor)
        self._connection.close()
        pending, self._pending = self._pending, deque()
        if not self._loop.is_closed():
            for _, future in pending:
                if not future.done():
                    future.set_exception(ConnectionLost("closed"))


def _problem(result: pq.abc.PGresult | None) -> Exception:
    if result is None:
        return ConnectionLost("no answer")
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode()
    if state in TOO_LONG_STATES:
        return DatabaseBusy(STATEMENT_TIMEOUT_MS / 1000, who="what keeps the database server busy")
    if state[:2] in LOST_STATES or state in ("", _PLAN_CHANGED):
        return ConnectionLost(message)
    return DatabaseFailed(f"{message} ({state})")


def connect(location: Location, statements: Mapping[bytes, bytes]) -> psycopg.Connection[Any]:
    """A connection on which these statements are prepared by name. Blocks; raises psycopg.Error."""
    connection = psycopg.connect(location.conninfo, autocommit=True)
    try:
        connection.execute(_SESSION)
        for name, statement in statements.items():
            result = connection.pgconn.prepare(name, statement)
            if result.status != pq.ExecStatus.COMMAND_OK:
                raise psycopg.OperationalError(result.get_error_message())
    except BaseException:
        connection.close()
        raise
    return connection
