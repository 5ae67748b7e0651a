"""The thread that writes: transactions of one process in a queue, committed in groups.

SQLite has one writer at a time. Threads that compete for its lock would sleep in a busy loop, so
each process queues its own writes here, and only processes compete. What waits while a commit is
being flushed to disk is committed together by the next flush: each operation in a savepoint, so
that one that fails takes nothing else with it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
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

# How often the busy timeout may pass before a write is given up.
_BUSY_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class _Job:
    step: Callable[[Transaction], Any]
    future: Future[Any]


class Writer:
    """Runs steps one after the other on a connection of its own. Closing finishes the queue."""

    def __init__(
        self, connection: Connection, *, clock: Callable[[], int], terms: Terms, busy_s: float
    ) -> None:
        self._connection = connection
        self._clock = clock
        self._terms = terms
        self._busy_s = busy_s
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="metadata-writer", daemon=True)
        self._thread.start()

    def submit(self, step: Callable[[Transaction], T]) -> Future[T]:
        """The future is done when the step's transaction is on disk, or was rolled back."""
        future: Future[T] = Future()
        with self._closing:
            if self._closed:
                raise RuntimeError("the metadata is closed")
            self._jobs.put(_Job(step, future))
        return future

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
                if job.future.set_running_or_notify_cancel():
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
            failure = translate(error, waited_s=self._busy_s * _BUSY_ROUNDS)
            if failure is not error:
                failure.__cause__ = error
            for job in group:
                job.future.set_exception(failure)
            return
        for job, (result, problem) in zip(group, outcomes, strict=True):
            if problem is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(problem)

    def _roll_back(self) -> None:
        """Leave no transaction behind, whatever happens: this thread serves all writes."""
        try:
            self._connection.rollback()
        except Exception as error:
            log.warning("the database cannot roll back, it is opened anew: %s", error)
            self._connection.invalidate()
            self._connection.rollback()  # of what is gone: lets go of it

    def _transact(self, group: list[_Job]) -> list[tuple[Any, Exception | None]]:
        self._begin()
        transaction = Transaction(self._connection, self._clock(), self._terms)
        outcomes: list[tuple[Any, Exception | None]]
        if len(group) == 1:
            outcomes = [(group[0].step(transaction), None)]
        else:
            outcomes = [self._attempt(job.step, transaction) for job in group]
        self._connection.commit()
        return outcomes

    def _attempt(
        self, step: Callable[[Transaction], Any], transaction: Transaction
    ) -> tuple[Any, Exception | None]:
        # Said to the driver: SQLAlchemy's own savepoints cost as much as three statements.
        self._connection.exec_driver_sql("SAVEPOINT step")
        try:
            result = step(transaction)
        except DBAPIError:
            # The disk is full or failing, or our SQL is wrong: no part of the group is certain.
            raise
        except Exception as error:
            self._connection.exec_driver_sql("ROLLBACK TO step")
            self._connection.exec_driver_sql("RELEASE step")
            return None, error
        self._connection.exec_driver_sql("RELEASE step")
        return result, None

    def _begin(self) -> None:
        for left in range(_BUSY_ROUNDS - 1, -1, -1):
            try:
                self._connection.begin()
                return
            except DBAPIError as error:
                if not is_busy(error) or not left:
                    raise
