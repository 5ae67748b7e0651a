"""Repositories: they begin with the first upload, mount or manifest."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import bindparam, exists, select

from ocispec.distribution.name import RepositoryName
from registry.errors import NameUnknown
from registry.metadata.base import Access, Page
from registry.metadata.tables import manifest, repository
from registry.metadata.transaction import (
    Operations,
    Transaction,
    Upserting,
    bound,
    comparable,
    reads,
)

# Names are asked in pieces until enough of them were found: at first as many as are wanted, as
# mostly all are, then more.
_PIECE = 1000

_NAMES = (
    select(
        repository.c.name,
        exists().where(manifest.c.repository_id == repository.c.id).label("holds_manifest"),
    )
    .where(repository.c.name > bindparam("last"))
    .order_by(repository.c.name)
    .limit(bindparam("limit"))
)


class SqlRepositories(Operations):
    """Implements `registry.metadata.base.Repositories`."""

    @reads
    def page(
        self,
        tx: Transaction,
        wanted: Callable[[str], bool],
        *,
        n: int,
        last: str = "",
        look_at: int = 10_000,
    ) -> Page[RepositoryName]:
        if n <= 0:
            return Page((), False)
        last = comparable(last)
        found: list[str] = []
        piece = min(n + 1, _PIECE)
        while True:
            piece = min(piece, look_at)
            rows = tx.connection.execute(_NAMES, {"last": last, "limit": piece}).all()
            found += [name for name, holds_manifest in rows if holds_manifest and wanted(name)]
            if len(found) > n:
                return Page(tuple(map(RepositoryName, found[:n])), True)
            if len(rows) < piece:
                return Page(tuple(map(RepositoryName, found)), False)
            last = rows[-1].name
            look_at -= piece
            if look_at <= 0:
                return Page(tuple(map(RepositoryName, found)), True, seen=last)
            piece = _PIECE


def repository_id(tx: Transaction, access: Access) -> int:
    """Raises: NameUnknown if the repository does not exist."""
    found = find_repository(tx, access)
    if found is None:
        raise NameUnknown(access.name)
    return found


_FIND = select(repository.c.id).where(repository.c.name == bindparam("name"))

_ADD = Upserting(
    repository,
    lambda insert: insert.values(**bound(repository, "name", "created_at"))
    .on_conflict_do_nothing(),
)  # fmt: skip


def find_repository(tx: Transaction, access: Access) -> int | None:
    return tx.connection.execute(_FIND, {"name": access.name.text}).scalar()


def ensure_repository(tx: Transaction, access: Access) -> int:
    """The repository's id; it is created if it does not exist."""
    found = find_repository(tx, access)
    if found is not None:
        return found
    tx.connection.execute(_ADD(tx), {"name": access.name.text, "created_at": tx.now})
    return repository_id(tx, access)
