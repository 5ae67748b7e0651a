"""One transaction as the operations see it, and the two decorators that give them one.

An operation is written as an ordinary function of a transaction:

    @writes
    def remove(self, tx: Transaction, access: Access, tag: Tag) -> None: ...

and called as a coroutine without it: `await tags.remove(access, tag)`. It runs in a thread, may be
rolled back (then by raising), and its effects are on disk when the coroutine returns.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, update_wrapper
from time import perf_counter
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from sqlalchemy import BindParameter, Connection, Executable, Table, bindparam, text
from sqlalchemy.dialects import postgresql, sqlite

from ocispec.digest import Digest
from registry.observe.counts import OPERATIONS, OPERATIONS_RUNNING

P = ParamSpec("P")
T = TypeVar("T")

# Bound parameters of one statement: SQLite allows 32766, older builds 999.
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Terms:
    """How long the registry waits before it lets go of things, in seconds."""

    #: How long bytes live without a manifest that uses them: the longest push.
    lease_s: int = 24 * 3600
    #: How long a manifest lives without a tag; 0 is for ever.
    untagged_s: int = 24 * 3600
    #: How long an upload may rest.
    upload_expiry_s: int = 7 * 24 * 3600
    #: How far back deleted manifests can be restored; 0: not at all.
    history_s: int = 30 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Transaction:
    """An open transaction. Operations never commit; they return or raise."""

    connection: Connection
    #: Seconds since 1970, the same for all statements of the transaction.
    now: int
    terms: Terms
    #: What repositories, by id, hold or reserve more at the end: bytes, tags, reserved bytes.
    #: NO_QUOTA for one that is known to have none. See `registry.metadata.charges`.
    charges: dict[int, list[int]] = field(default_factory=dict)


NO_QUOTA = [0, 0, 0]


class Transactions(Protocol):
    """Who runs operations: see `registry.metadata.database.Database`."""

    async def read(self, step: Callable[[Transaction], T]) -> T: ...

    async def write(self, step: Callable[[Transaction], T], *, flushed: bool = True) -> T:
        """Run a step and commit it; without `flushed` it may end with the machine, as long as
        nothing that was flushed later is kept."""


class Operations:
    """Base of the classes that hold operations on one noun."""

    def __init__(self, transactions: Transactions) -> None:
        self.transactions = transactions


S = TypeVar("S", bound=Operations)
Step = Callable[Concatenate[S, Transaction, P], T]
Operation = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]


def reads(step: Step[S, P, T]) -> Operation[S, P, T]:
    """The operation sees one consistent state and changes nothing."""

    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with _counted("read"):
            return await self.transactions.read(lambda tx: step(self, tx, *args, **kwargs))

    return _named_like(step, run)


def writes(step: Step[S, P, T]) -> Operation[S, P, T]:
    """The operation has the database's write lock, or on PostgreSQL the row locks it takes."""

    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with _counted("write"):
            return await self.transactions.write(
                settled(lambda tx: step(self, tx, *args, **kwargs))
            )

    return _named_like(step, run)


def writes_unflushed(step: Step[S, P, T]) -> Operation[S, P, T]:
    """As `writes`, for what may be undone by a power cut (never by the end of a process): its
    commit does not wait for the disk."""

    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with _counted("write"):
            return await self.transactions.write(
                settled(lambda tx: step(self, tx, *args, **kwargs)), flushed=False
            )

    return _named_like(step, run)


def settled(step: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
    """A step with its changes of what quotas limit entered at its end."""

    def run(tx: Transaction) -> T:
        tx.charges.clear()  # of a step before, which may have failed
        result = step(tx)
        if tx.charges:
            settle(tx)
        return result

    return run


def settle(tx: Transaction) -> None:
    from registry.metadata import charges

    charges.settle(tx)


class _counted:
    """Counts an operation from its place in the queue to its end."""

    __slots__ = ("_access", "_began")

    def __init__(self, access: str) -> None:
        self._access = access

    def __enter__(self) -> None:
        OPERATIONS_RUNNING.add(self._access)
        self._began = perf_counter()

    def __exit__(self, *_: object) -> None:
        OPERATIONS_RUNNING.add(self._access, -1)
        OPERATIONS[self._access].add(perf_counter() - self._began)


def _named_like(step: Step[S, P, T], run: Operation[S, P, T]) -> Operation[S, P, T]:
    update_wrapper(run, step)
    return run


Upsert = sqlite.Insert | postgresql.Insert


def insert(tx: Transaction, table: Table) -> Upsert:
    """An INSERT that can say ON CONFLICT: here the dialects differ."""
    if tx.connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


class Upserting:
    """The same built once, as every statement of a push is.

    Statements are made at import and their values bound when they run: making one costs five
    times as much as running it.
    """

    def __init__(self, table: Table, build: Callable[[Upsert], Executable]) -> None:
        self._postgresql = build(postgresql.insert(table))
        self._sqlite = build(sqlite.insert(table))

    def __call__(self, tx: Transaction) -> Executable:
        return self._postgresql if tx.connection.dialect.name == "postgresql" else self._sqlite


def bound(table: Table, *names: str) -> dict[str, BindParameter[Any]]:
    """A bound value for each of these columns, named like the column."""
    return {name: bindparam(name, type_=table.c[name].type) for name in names}


def lock_table(tx: Transaction, table: Table) -> None:
    """Let no other transaction change the table until this one ends; SQLite does so anyway."""
    if tx.connection.dialect.name == "postgresql":
        tx.connection.execute(text(f"LOCK TABLE {table.name} IN EXCLUSIVE MODE"))


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Pieces small enough for one IN (…)."""
    for start in range(0, len(items), _BATCH):
        yield items[start : start + _BATCH]


def comparable(last: str) -> str:
    """Any text as a place in a listing of names and digests, which are all printable ASCII.

    No name lies between the result and `last`; the database need not know odd characters.
    """
    for place, character in enumerate(last):
        if not " " <= character <= "~":
            return last[:place] + ("\x7f" if character > "~" else "")
    return last


def is_upload_id(id: str) -> bool:
    """Whether a text from a URL can be an upload's id at all."""
    return id.isascii() and id.isprintable() and len(id) <= 128


@lru_cache(maxsize=16384)
def digest_of(column: str) -> Digest:
    """A digest from its column. Values are immutable, so remembering them is safe."""
    return Digest.parse(column)


def optional_digest(column: str | None) -> Digest | None:
    return None if column is None else digest_of(column)
