"""Personal access tokens: rows without their secrets."""

from __future__ import annotations

from sqlalchemy import ColumnElement, RowMapping, Select, delete, or_, select, update

from registry.auth.rules import Limit, check_limit
from registry.errors import AccountUnknown, PolicyInvalid, TokenUnknown
from registry.metadata.accounts import count_change
from registry.metadata.base import AccessToken, Account
from registry.metadata.tables import account
from registry.metadata.tables_accounts import access_token, access_version
from registry.metadata.transaction import Operations, Transaction, reads, writes

MAX_LABEL = 200
# More is a mistake, or somebody filling the database.
MAX_TOKENS = 500

# How exactly the last use is kept: a write for each would cost more than what the token is for.
USED_S = 600


class SqlAccessTokens(Operations):
    """Implements `registry.metadata.base.AccessTokens`."""

    @writes
    def add(
        self,
        tx: Transaction,
        account_: str,
        token_hash: str,
        *,
        label: str,
        limit: Limit,
        expires_at: int | None,
    ) -> AccessToken:
        check_limit(limit)
        if len(label) > MAX_LABEL or not label.isprintable():
            raise PolicyInvalid(f"a token's label has at most {MAX_LABEL} printable characters")
        count_change(tx)
        found = select(account.c.id).where(account.c.name == account_)
        owner = tx.connection.execute(found).scalar()
        if owner is None:
            raise AccountUnknown(account_)
        held = select(access_token.c.id).where(access_token.c.account_id == owner)
        if len(tx.connection.execute(held).all()) >= MAX_TOKENS:
            raise PolicyInvalid(
                f"{account_} has {MAX_TOKENS} access tokens", hint="revoke some of them first"
            )
        id = tx.connection.execute(
            access_token.insert()
            .values(
                account_id=owner,
                label=label,
                token_hash=token_hash,
                actions=" ".join(sorted(limit.actions)),
                repositories=" ".join(limit.repositories),
                created_at=tx.now,
                expires_at=expires_at,
                last_used_at=None,
            )
            .returning(access_token.c.id)
        ).scalar_one()
        return AccessToken(id, account_, label, limit, tx.now, expires_at)

    @reads
    def of(self, tx: Transaction, account_: str) -> tuple[AccessToken, ...]:
        query = _rows().where(account.c.name == account_).order_by(access_token.c.id)
        return tuple(_token(row) for row in tx.connection.execute(query).mappings())

    @reads
    def find(self, tx: Transaction, token_hash: str) -> Account | None:
        return _holder(tx, access_token.c.token_hash == token_hash)

    @reads
    def holder(self, tx: Transaction, id: int) -> Account | None:
        return _holder(tx, access_token.c.id == id)

    @writes
    def used(self, tx: Transaction, id: int) -> None:
        last = access_token.c.last_used_at
        tx.connection.execute(
            update(access_token)
            .where(access_token.c.id == id, or_(last.is_(None), last <= tx.now - USED_S))
            .values(last_used_at=tx.now)
        )

    @writes
    def revoke(self, tx: Transaction, account_: str, id: int) -> None:
        count_change(tx)
        owner = select(account.c.id).where(account.c.name == account_).scalar_subquery()
        gone = delete(access_token).where(
            access_token.c.id == id, access_token.c.account_id == owner
        )
        if not tx.connection.execute(gone).rowcount:
            raise TokenUnknown(id)


def _rows() -> Select[tuple[object, ...]]:
    return select(
        access_token.c.id,
        access_token.c.label,
        access_token.c.actions,
        access_token.c.repositories,
        access_token.c.created_at,
        access_token.c.expires_at,
        access_token.c.last_used_at,
        account.c.name,
        account.c.password_hash,
        account.c.role,
        account.c.disabled,
        account.c.created_at.label("account_created_at"),
        account.c.kind,
        select(access_version.c.version).scalar_subquery().label("version"),
    ).join(account, account.c.id == access_token.c.account_id)


def _token(row: RowMapping) -> AccessToken:
    return AccessToken(
        id=row["id"],
        account=row["name"],
        label=row["label"],
        limit=Limit(frozenset(row["actions"].split()), tuple(row["repositories"].split())),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
    )


def _holder(tx: Transaction, which: ColumnElement[bool]) -> Account | None:
    row = tx.connection.execute(_rows().where(which)).mappings().first()
    if row is None or row["disabled"]:
        return None
    token = _token(row)
    if token.expires_at is not None and token.expires_at <= tx.now:
        return None
    return Account(
        row["name"],
        row["password_hash"],
        row["role"],
        False,
        row["account_created_at"],
        row["kind"],
        row["version"],
        token,
    )
