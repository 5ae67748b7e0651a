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

# Names are asked in pieces of this size until enough of them may be read.
_PIECE = 1000


class SqlRepositories(Operations):
    """Implements `registry.metadata.base.Repositories`."""

    @reads
    def page(
        self, tx: Transaction, may_read: Callable[[str], bool], *, n: int, last: str = ""
    ) -> Page[RepositoryName]:
        if n <= 0:
            return Page((), False)
        last = comparable(last)
        found: list[str] = []
        while True:
            query = (
                select(repository.c.name)
                .where(
                    repository.c.name > last,
                    exists().where(manifest.c.repository_id == repository.c.id),
                )
                .order_by(repository.c.name)
                .limit(_PIECE)
            )
            piece = tx.connection.execute(query).scalars().all()
            found += filter(may_read, piece)
            if len(found) > n or len(piece) < _PIECE:
                return Page(tuple(map(RepositoryName, found[:n])), len(found) > n)
            last = piece[-1]


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
