"""The thread that writes: transactions of one process in a queue, committed in groups.

SQLite has one writer at a time. Threads that compete for its lock would sleep in a busy loop, so
each process queues its own writes here, and only processes compete. What waits while a commit is
being flushed to disk is committed together by the next flush: each operation in a savepoint, so
that one that fails takes nothing else with it.

A group of steps that a power cut may undo is committed without a flush (`synchronous = NORMAL`):
its frames are in the log before those of any later commit, whose flush covers them too.
https://www.sqlite.org/pragma.html#pragma_synchronous
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from registry.metadata.failures import is_busy, translate
from registry.metadata.transaction import Terms, Transaction

T = TypeVar("T")

log = logging.getLogger("pyreg.registry")

# Bounds how long the first of a group waits for the rest.
_GROUP = 32

# Pauses between two looks at a lock that another process holds, in seconds. SQLite's own begin at
# a millisecond and soon take ten; most transactions are over sooner.
_PAUSE_S = 0.0003
_LONGEST_PAUSE_S = 0.02

_FULL, _NORMAL = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"

Outcome = tuple[Any, Exception | None]


@dataclass(frozen=True, slots=True)
class _Job:
    step: Callable[[Transaction], Any]
    flushed: bool
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class Writer:
    """Runs steps one after the other on a connection of its own. Closing finishes the queue.

    The connection's engine begins no transactions: the writer says BEGIN and COMMIT to the driver,
    which costs a fraction of SQLAlchemy's own. `busy_s` is how long another process may hold the
    lock before a write is given up.
    """

    def __init__(
        self, connection: Connection, *, clock: Callable[[], int], terms: Terms, busy_s: float
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._terms = terms
        self._busy_s = busy_s
        self._synchronous = ""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="metadata-writer", daemon=True)
        self._thread.start()

    async def run(self, step: Callable[[Transaction], T], *, flushed: bool = True) -> T:
        """Returns when the step's transaction was committed, or raises when it was rolled back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the metadata is closed")
            self._jobs.put(_Job(step, flushed, loop, future))
        return await future

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            group: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                if not job.future.cancelled():
                    group.append(job)
                if len(group) == _GROUP or self._jobs.empty():
                    break
                job = self._jobs.get()
            more = job is not None
            if group:
                self._commit(group)
        self._connection.close()

    def _commit(self, group: list[_Job]) -> None:
        try:
            outcomes = self._transact(group)
        except Exception as error:
            self._roll_back()
            failure = translate(error, waited_s=self._busy_s)
            if failure is not error:
                failure.__cause__ = error
            outcomes = [(None, failure)] * len(group)
        ended: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = {}
        for job, outcome in zip(group, outcomes, strict=True):
            ended.setdefault(job.loop, []).append((job.future, outcome))
        for loop, theirs in ended.items():
            with contextlib.suppress(RuntimeError):  # closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, theirs)

    def _roll_back(self) -> None:
        """Leave no transaction behind, whatever happens: this thread serves all writes."""
        try:
            self._driver().rollback()
        except Exception as error:
            log.warning("the database cannot roll back, it is opened anew: %s", error)
            self._synchronous = ""
            self._connection.invalidate()
            self._connection.rollback()  # of what is gone: lets go of it

    def _transact(self, group: list[_Job]) -> list[Outcome]:
        driver = self._driver()
        synchronous = _FULL if any(job.flushed for job in group) else _NORMAL
        if synchronous != self._synchronous:
            driver.execute(synchronous)
            self._synchronous = synchronous
        self._begin(driver)
        transaction = Transaction(self._connection, self._clock(), self._terms)
        outcomes: list[Outcome]
        if len(group) == 1:
            outcomes = [(group[0].step(transaction), None)]
        else:
            outcomes = [self._attempt(job.step, transaction, driver) for job in group]
        driver.commit()
        return outcomes

    def _attempt(
        self,
        step: Callable[[Transaction], Any],
        transaction: Transaction,
        driver: sqlite3.Connection,
    ) -> Outcome:
        driver.execute("SAVEPOINT step")
        try:
            result = step(transaction)
        except DBAPIError:
            # The disk is full or failing, or our SQL is wrong: no part of the group is certain.
            raise
        except Exception as error:
            driver.execute("ROLLBACK TO step")
            driver.execute("RELEASE step")
            return None, error
        driver.execute("RELEASE step")
        return result, None

    def _begin(self, driver: sqlite3.Connection) -> None:
        """Wait for the lock as long as another process has it, and look often."""
        until, pause = time.monotonic() + self._busy_s, _PAUSE_S
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() + pause > until:
                    raise
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 1.5)

    def _driver(self) -> sqlite3.Connection:
        driver = self._connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        return driver


def _settle(ended: list[tuple[asyncio.Future[Any], Outcome]]) -> None:
    """Tell who waits, in their event loop."""
    for future, (result, problem) in ended:
        if future.done():  # cancelled meanwhile
            continue
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)
