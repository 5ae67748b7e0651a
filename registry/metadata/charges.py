"""What a transaction adds to the use of namespaces, entered in one statement at its end.

Operations note what they add and remove by repository (`charge`); nothing is asked of the database
until they are done. Then the row of each quota that is concerned is changed, if the limits allow
it: the last locks of the transaction, in the order of ids, so that nobody waits for each other.

Bytes are those of each blob and manifest that a repository holds, once for each repository. A
repository whose row said that it has no quota costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import BindParameter, bindparam, func, or_, select, update

from registry.errors import QuotaExceeded
from registry.metadata.tables import blob, repository, repository_blob
from registry.metadata.tables_quotas import quota
from registry.metadata.transaction import NO_QUOTA, Transaction

_ids: BindParameter[int] = bindparam("ids", expanding=True)

_QUOTAS = select(repository.c.id, repository.c.quota_id).where(
    repository.c.id.in_(_ids), repository.c.quota_id.is_not(None)
)

_bytes = bindparam("bytes", type_=quota.c.bytes_used.type)
_reserved = bindparam("reserved", type_=quota.c.bytes_used.type)
_tags = bindparam("tags", type_=quota.c.bytes_used.type)
_more_bytes = bindparam("more_bytes", type_=quota.c.bytes_used.type)

# What becomes less, or stays, is always possible: limits may have been lowered.
_CHARGE = (
    update(quota)
    .where(
        quota.c.id == bindparam("key", type_=quota.c.id.type),
        or_(
            _more_bytes <= 0,
            quota.c.bytes_limit.is_(None),
            quota.c.bytes_used + quota.c.bytes_reserved + _more_bytes <= quota.c.bytes_limit,
        ),
        or_(
            _tags <= 0,
            quota.c.tags_limit.is_(None),
            quota.c.tags_used + _tags <= quota.c.tags_limit,
        ),
    )
    .values(
        bytes_used=quota.c.bytes_used + _bytes,
        bytes_reserved=quota.c.bytes_reserved + _reserved,
        tags_used=quota.c.tags_used + _tags,
    )
)

_HELD = (
    select(repository_blob.c.repository_id, func.sum(blob.c.size))
    .join(blob, blob.c.digest == repository_blob.c.digest)
    .join(repository, repository.c.id == repository_blob.c.repository_id)
    .where(
        repository_blob.c.digest.in_(bindparam("digests", expanding=True)),
        repository.c.quota_id.is_not(None),
    )
    .group_by(repository_blob.c.repository_id)
)


def charge(
    tx: Transaction, repository_id: int, *, bytes: int = 0, tags: int = 0, reserved: int = 0
) -> None:
    """A repository holds, or reserves, so much more; less, if it is negative."""
    found = tx.charges.setdefault(repository_id, [0, 0, 0])
    if found is NO_QUOTA:
        return
    found[0] += bytes
    found[1] += tags
    found[2] += reserved


def release_memberships(tx: Transaction, digests: Sequence[str]) -> None:
    """No repository will hold these blobs any more, whose rows are locked."""
    if digests:
        for repository_id, size in tx.connection.execute(_HELD, {"digests": list(digests)}):
            charge(tx, repository_id, bytes=-int(size))


def settle(tx: Transaction) -> None:
    """Enter what was noted. Raises: QuotaExceeded; then the transaction must not be committed."""
    noted = {id: each for id, each in tx.charges.items() if any(each)}
    if not noted:
        return
    sums: dict[int, list[int]] = {}
    for id, quota_id in tx.connection.execute(_QUOTAS, {"ids": list(noted)}):
        of = sums.setdefault(quota_id, [0, 0, 0])
        for place, value in enumerate(noted[id]):
            of[place] += value
    for quota_id, (bytes, tags, reserved) in sorted(sums.items()):
        if not (bytes or tags or reserved):
            continue
        done = tx.connection.execute(
            _CHARGE,
            {
                "key": quota_id,
                "bytes": bytes,
                "tags": tags,
                "reserved": reserved,
                "more_bytes": bytes + reserved,
            },
        )
        if not done.rowcount:
            check(tx, quota_id, bytes=bytes + reserved, tags=tags)


def check(tx: Transaction, quota_id: int, *, bytes: int = 0, tags: int = 0) -> None:
    """Raises: QuotaExceeded if so much more is beyond the limits."""
    row = tx.connection.execute(select(quota).where(quota.c.id == quota_id)).first()
    if row is None:
        return  # removed just now
    held = row.bytes_used + row.bytes_reserved
    if bytes > 0 and row.bytes_limit is not None and held + bytes > row.bytes_limit:
        raise QuotaExceeded(row.namespace, "bytes", used=held, more=bytes, limit=row.bytes_limit)
    if tags > 0 and row.tags_limit is not None and row.tags_used + tags > row.tags_limit:
        raise QuotaExceeded(
            row.namespace, "tags", used=row.tags_used, more=tags, limit=row.tags_limit
        )
