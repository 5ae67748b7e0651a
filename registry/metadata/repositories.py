"""Repositories: they begin with the first upload, mount or manifest."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import bindparam, exists, func, select

from ocispec.distribution.name import RepositoryName
from registry.errors import NameUnknown
from registry.metadata.base import Access, Page
from registry.metadata.tables import manifest, repository
from registry.metadata.tables_quotas import quota
from registry.metadata.transaction import (
    NO_QUOTA,
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


_FIND = select(repository.c.id, repository.c.quota_id).where(repository.c.name == bindparam("name"))

_ADD = Upserting(
    repository,
    lambda insert: insert.values(**bound(repository, "name", "created_at", "quota_id"))
    .on_conflict_do_nothing(),
)  # fmt: skip


def find_repository(tx: Transaction, access: Access) -> int | None:
    found = _find(tx, access)
    return None if found is None else found[0]


def _find(tx: Transaction, access: Access) -> tuple[int, int | None] | None:
    """The repository's id, and its quota's if it has one."""
    row = tx.connection.execute(_FIND, {"name": access.name.text}).first()
    if row is None:
        return None
    if row.quota_id is None:
        tx.charges[row.id] = NO_QUOTA
    return row.id, row.quota_id


def ensure_repository(tx: Transaction, access: Access) -> int:
    """The repository's id; it is created if it does not exist."""
    return ensure_with_quota(tx, access)[0]


def ensure_with_quota(tx: Transaction, access: Access) -> tuple[int, int | None]:
    """The same, with the id of the quota that it counts for."""
    name = access.name.text
    while True:  # one that holds nothing is removed after a while
        found = _find(tx, access)
        if found is not None:
            return found
        tx.connection.execute(
            _ADD(tx), {"name": name, "created_at": tx.now, "quota_id": quota_for(tx, name)}
        )


def quota_for(tx: Transaction, name: str) -> int | None:
    """The id of the quota that a repository of this name counts for: of the longest namespace."""
    parts = name.split("/")
    spaces = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return tx.connection.execute(
        select(quota.c.id)
        .where(quota.c.namespace.in_(spaces))
        .order_by(func.length(quota.c.namespace).desc())
        .limit(1)
    ).scalar()
