"""Finding repositories: by words in order of how well they fit, and by what they hold.

Words are looked for in one pass over `search_repository`: `instr` over 100,000 names and
descriptions takes SQLite 12 to 26 ms, any substring, and the same statement runs on PostgreSQL.
Filters are read from `search_term` by index. A filter that fits few repositories narrows the pass;
one that fits many is asked about the candidates only, a piece at a time.

Whoever may see little is not shown less by counting: candidates are narrowed by the patterns of
what they may see, and each is put to `may_read` before anything of it is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)

from registry.metadata.tables import manifest, repository
from registry.metadata.tables_search import search_repository, search_term
from registry.metadata.transaction import Operations, Transaction, batches, reads
from registry.search.query import PLATFORM, TYPE, Filter, Query

# A filter that fits at most so many entries narrows the candidates.
_FEW = 2_000
# Candidates that are looked at together, after the first.
_PIECE = 500
# More patterns than that cost more than asking `may_read` alone.
_MAX_PATTERNS = 64

Place = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Visible:
    """What a caller may see."""

    may_read: Callable[[str], bool]
    #: Globs (`*` for anything) of names, one of which fits every name that `may_read` accepts; None
    #: if they may see everything or nobody knows better. Only saves time.
    patterns: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class FoundRepository:
    name: str
    description: str
    updated_at: int
    #: How far from an exact fit; with the name the place in the order.
    rank: int
    platforms: tuple[str, ...] = ()
    types: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Results:
    items: tuple[FoundRepository, ...]
    more: bool


class SqlSearch(Operations):
    @reads
    def find(
        self, tx: Transaction, query: Query, visible: Visible, *, n: int, after: Place | None = None
    ) -> Results:
        """Repositories that fit, the best first, then by name; those after `after`.

        Ranks of a word: 0 the name, 1 its last component, 2 a component begins with it, 3 it is in
        the name, 4 in the description; of several words the sum.
        """
        if n <= 0 or visible.patterns == ():
            return Results((), False)
        dense = []
        narrow: list[ColumnElement[bool]] = []
        for one in query.filters:
            few = _few(tx, one)
            if few is None:
                dense.append(one)
            elif not few:
                return Results((), False)
            else:
                narrow.append(search_repository.c.repository_id.in_(few))
        found: list[tuple[int, FoundRepository]] = []
        first = (6 if dense else 2) * n + 50
        for piece in _pieces(tx, query, visible, narrow, n=n, after=after, first=first):
            found += _confirmed(tx, piece, dense)
            if len(found) > n:
                break
        page = found[:n]
        details = _details(tx, [id for id, _ in page])
        return Results(tuple(_with(details, *row) for row in page), len(found) > n)


Row = tuple[int, FoundRepository]


def _pieces(
    tx: Transaction,
    query: Query,
    visible: Visible,
    narrow: list[ColumnElement[bool]],
    *,
    n: int,
    after: Place | None,
    first: int,
) -> Iterator[list[Row]]:
    """Candidates that may be seen, in order. The first piece is asked for alone, because the best
    of many are found faster than all are sorted; the others are read as they are wanted."""
    may_read = visible.may_read
    for limit in (first, None):
        statement = _candidates(tx, query, visible, narrow, after).limit(limit)
        count = 0
        with tx.connection.execute(statement) as result:
            for part in result.partitions(limit or _PIECE):
                count += len(part)
                after = part[-1].rank, part[-1].name
                yield [
                    (id, FoundRepository(name, description, updated, rank))
                    for id, name, description, updated, rank in part
                    if may_read(name)
                ]
        if limit is None or count < limit:
            return


def _candidates(
    tx: Transaction,
    query: Query,
    visible: Visible,
    narrow: list[ColumnElement[bool]],
    after: Place | None,
) -> Any:
    s, r = search_repository.c, repository.c

    def part(
        id: ColumnElement[int],
        name: ColumnElement[str],
        text: ColumnElement[str],
        description: ColumnElement[str],
        updated: ColumnElement[int],
    ) -> Any:
        ranks = [_rank(tx, word, name, text) for word in query.words]
        rank = ranks[0] if ranks else literal(0)
        for more in ranks[1:]:
            rank = rank + more
        statement = select(
            id.label("id"),
            name.label("name"),
            description.label("description"),
            updated.label("updated_at"),
            rank.label("rank"),
        ).where(*(_at(tx, text, word) > 0 for word in query.words))
        if visible.patterns is not None and len(visible.patterns) <= _MAX_PATTERNS:
            statement = statement.where(or_(*(like(tx, name, p) for p in visible.patterns)))
        if after is not None and not ranks:
            statement = statement.where(name > after[1])
        elif after is not None:
            statement = statement.where(
                or_(rank > after[0], and_(rank == after[0], name > after[1]))
            )
        return statement

    indexed = part(s.repository_id, s.name, s.text, s.description, s.updated_at).where(*narrow)
    newest = select(func.coalesce(func.max(s.repository_id), 0)).scalar_subquery()
    is_new = r.id > newest
    if query.filters or tx.connection.execute(select(r.id).where(is_new).limit(1)).first() is None:
        return indexed.order_by("rank", "name") if query.words else indexed.order_by(s.name)
    # Repositories that the indexer has not met yet are found by name at once.
    text = literal("/") + r.name + literal("\n")
    begun = part(r.id, r.name, text, literal(""), r.created_at).where(is_new)
    both = union_all(indexed, begun).subquery()
    return select(both).order_by(both.c.rank, both.c.name)


def _at(tx: Transaction, text: ColumnElement[str], word: str) -> ColumnElement[int]:
    """Where the word begins, from 1; 0 if it is not there."""
    name = "strpos" if tx.connection.dialect.name == "postgresql" else "instr"
    found: ColumnElement[int] = getattr(func, name)(text, word)
    return found


def _rank(
    tx: Transaction, word: str, name: ColumnElement[str], text: ColumnElement[str]
) -> ColumnElement[int]:
    """`text` is "/" + the name + a line end + the description, which has no line end."""
    return case(
        (name == word, 0),
        (_at(tx, text, f"/{word}\n") > 0, 1),
        (_at(tx, text, f"/{word}").between(1, func.length(name)), 2),
        (_at(tx, name, word) > 0, 3),
        else_=4,
    )


def like(tx: Transaction, column: ColumnElement[str], pattern: str) -> ColumnElement[bool]:
    """Whether the column fits a glob in which only `*` is special; upper and lower case differ."""
    if tx.connection.dialect.name == "postgresql":
        escaped = pattern.replace("!", "!!").replace("%", "!%").replace("_", "!_")
        return column.like(escaped.replace("*", "%"), escape="!")
    escaped = pattern.replace("[", "[[]").replace("?", "[?]")
    return column.op("GLOB", is_comparison=True)(escaped)


def _fits(tx: Transaction, one: Filter) -> ColumnElement[bool]:
    c = search_term.c
    if one.is_exact:
        return and_(c.kind == one.kind, c.value == one.pattern)
    # U+10FFFF is the last character there is: no value that begins like this sorts behind it.
    bounds = and_(c.kind == one.kind, c.value >= one.prefix, c.value <= one.prefix + "\U0010ffff")
    return (
        bounds if one.pattern == one.prefix + "*" else and_(bounds, like(tx, c.value, one.pattern))
    )


def _few(tx: Transaction, one: Filter) -> list[int] | None:
    """The repositories that a filter fits; None if they are many."""
    fitting = select(search_term.c.repository_id).where(_fits(tx, one)).limit(_FEW + 1)
    count = select(func.count()).select_from(fitting.subquery())
    if tx.connection.execute(count).scalar_one() > _FEW:
        return None
    return sorted(set(tx.connection.execute(fitting).scalars()))


def _confirmed(tx: Transaction, rows: Sequence[Row], dense: list[Filter]) -> list[Row]:
    """Those that exist, hold a manifest, and fit the filters that were not looked at yet."""
    kept: set[int] = set()
    for batch in batches([id for id, _ in rows]):
        statement = select(repository.c.id).where(
            repository.c.id.in_(batch),
            exists().where(manifest.c.repository_id == repository.c.id),
            *(
                exists().where(_fits(tx, one), search_term.c.repository_id == repository.c.id)
                for one in dense
            ),
        )
        kept.update(tx.connection.execute(statement).scalars())
    return [row for row in rows if row[0] in kept]


def _details(tx: Transaction, ids: list[int]) -> dict[int, dict[str, list[str]]]:
    found: dict[int, dict[str, list[str]]] = {}
    for batch in batches(ids):
        statement = (
            select(search_term.c.repository_id, search_term.c.kind, search_term.c.value)
            .where(search_term.c.repository_id.in_(batch), search_term.c.kind.in_((PLATFORM, TYPE)))
            .distinct()
            .limit(10_000)
        )
        for id, kind, value in tx.connection.execute(statement):
            found.setdefault(id, {}).setdefault(kind, []).append(value)
    return found


def _with(
    details: dict[int, dict[str, list[str]]], id: int, found: FoundRepository
) -> FoundRepository:
    more = details.get(id, {})
    return FoundRepository(
        found.name,
        found.description,
        found.updated_at,
        found.rank,
        tuple(sorted(more.get(PLATFORM, ()))[:16]),
        tuple(sorted(more.get(TYPE, ()))[:16]),
    )
