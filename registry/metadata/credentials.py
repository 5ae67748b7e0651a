"""What the token service keeps: signing keys, and refresh tokens by their hashes."""

from __future__ import annotations

from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from registry.errors import AccountUnknown, SessionUnknown
from registry.metadata.accounts import account_id, count_change
from registry.metadata.base import SESSION_ID, Account, RefreshToken, SigningKey
from registry.metadata.tables import account, refresh_token, signing_key
from registry.metadata.tables_accounts import access_version
from registry.metadata.transaction import Operations, Transaction, lock_table, reads, writes

_CURRENT = "current"
_PREVIOUS = "previous"

# How exactly the last use is kept: a write for each would cost more than the token.
USED_S = 600

# Devices of one account. Whoever logs in from more loses the session unused for longest.
MAX_SESSIONS = 500


class SqlCredentials(Operations):
    """Implements `registry.metadata.base.Credentials`."""

    @reads
    def signing_keys(self, tx: Transaction) -> tuple[SigningKey, ...]:
        return _keys(tx)

    @writes
    def offer_signing_key(self, tx: Transaction, key: SigningKey) -> tuple[SigningKey, ...]:
        lock_table(tx, signing_key)
        if not tx.connection.execute(select(func.count()).select_from(signing_key)).scalar():
            _insert_current(tx, key)
        return _keys(tx)

    @writes
    def rotate_signing_key(
        self, tx: Transaction, key: SigningKey, keep_s: int
    ) -> tuple[SigningKey, ...]:
        # Every process looks at the keys again when it sees another number.
        count_change(tx)
        lock_table(tx, signing_key)
        if keep_s > 0:
            retired = func.coalesce(signing_key.c.retired_at, 0)
            tx.connection.execute(
                delete(signing_key).where(
                    signing_key.c.state == _PREVIOUS, retired <= tx.now - keep_s
                )
            )
            tx.connection.execute(
                update(signing_key)
                .where(signing_key.c.state == _CURRENT)
                .values(state=_PREVIOUS, retired_at=tx.now)
            )
        else:
            tx.connection.execute(delete(signing_key))
        _insert_current(tx, key)
        return _keys(tx)

    @writes
    def add_refresh_token(self, tx: Transaction, token_hash: str, token: RefreshToken) -> None:
        id = tx.connection.execute(select(account_id(token.account))).scalar()
        if id is None:
            raise AccountUnknown(token.account)
        # A convenient moment to forget those of the account that nobody can use any more.
        tx.connection.execute(
            delete(refresh_token).where(
                refresh_token.c.account_id == id, refresh_token.c.expires_at <= tx.now
            )
        )
        _make_room(tx, id)
        tx.connection.execute(
            insert(refresh_token).values(
                token_hash=token_hash,
                account_id=id,
                client_id=token.client_id,
                created_at=token.created_at,
                expires_at=token.expires_at,
                user_agent=token.user_agent,
                last_used_at=token.last_used_at,
            )
        )

    @reads
    def find_refresh_token(self, tx: Transaction, token_hash: str) -> RefreshToken | None:
        query = _usable(tx).where(refresh_token.c.token_hash == token_hash)
        row = tx.connection.execute(query).mappings().first()
        return None if row is None else _session(row)

    @writes
    def used_refresh_token(self, tx: Transaction, token_hash: str) -> None:
        last = refresh_token.c.last_used_at
        tx.connection.execute(
            update(refresh_token)
            .where(
                refresh_token.c.token_hash == token_hash,
                or_(last.is_(None), last <= tx.now - USED_S),
            )
            .values(last_used_at=tx.now)
        )

    @reads
    def session_holder(self, tx: Transaction, id: str) -> Account | None:
        query = _usable(tx).where(_named(id)).limit(1)
        row = tx.connection.execute(query).mappings().first()
        if row is None:
            return None
        return Account(
            row["name"],
            row["password_hash"],
            row["role"],
            False,
            row["account_created_at"],
            row["kind"],
            row["version"],
            session=row["token_hash"][:SESSION_ID],
        )

    @reads
    def sessions(self, tx: Transaction, account_: str) -> tuple[RefreshToken, ...]:
        query = (
            _usable(tx)
            .where(account.c.name == account_)
            .order_by(refresh_token.c.created_at, refresh_token.c.token_hash)
        )
        return tuple(_session(row) for row in tx.connection.execute(query).mappings())

    @writes
    def revoke_session(self, tx: Transaction, account_: str, id: str) -> None:
        count_change(tx)
        gone = delete(refresh_token).where(
            _named(id), refresh_token.c.account_id == account_id(account_)
        )
        if not tx.connection.execute(gone).rowcount:
            raise SessionUnknown(id)

    @writes
    def revoke_refresh_token(self, tx: Transaction, token_hash: str) -> bool:
        count_change(tx)
        gone = delete(refresh_token).where(refresh_token.c.token_hash == token_hash)
        return bool(tx.connection.execute(gone).rowcount)

    @writes
    def revoke_refresh_tokens(self, tx: Transaction, account: str) -> int:
        count_change(tx)
        gone = delete(refresh_token).where(refresh_token.c.account_id == account_id(account))
        return tx.connection.execute(gone).rowcount


def _make_room(tx: Transaction, account_id: int) -> None:
    """Whoever logs in without end, as some CI does, does not fill the database."""
    held = refresh_token.c.account_id == account_id
    used = func.coalesce(refresh_token.c.last_used_at, refresh_token.c.created_at)
    oldest = (
        select(refresh_token.c.token_hash)
        .where(held)
        .order_by(used.desc(), refresh_token.c.token_hash)
        .offset(MAX_SESSIONS - 1)
        .limit(1000)
    )
    doomed = tx.connection.execute(oldest).scalars().all()
    if doomed:
        tx.connection.execute(delete(refresh_token).where(refresh_token.c.token_hash.in_(doomed)))


def _named(id: str) -> ColumnElement[bool]:
    """The token whose hash begins so, by the primary key."""
    return and_(refresh_token.c.token_hash >= id, refresh_token.c.token_hash < id + "g")


def _usable(tx: Transaction) -> Select[tuple[object, ...]]:
    return (
        select(
            refresh_token,
            account.c.name,
            account.c.password_hash,
            account.c.role,
            account.c.created_at.label("account_created_at"),
            account.c.kind,
            select(access_version.c.version).scalar_subquery().label("version"),
        )
        .join(account, account.c.id == refresh_token.c.account_id)
        .where(refresh_token.c.expires_at > tx.now, account.c.disabled.is_(False))
    )


def _session(row: RowMapping) -> RefreshToken:
    return RefreshToken(
        row["name"],
        row["client_id"],
        row["created_at"],
        row["expires_at"],
        row["user_agent"] or "",
        row["last_used_at"],
        row["token_hash"][:SESSION_ID],
    )


def _insert_current(tx: Transaction, key: SigningKey) -> None:
    tx.connection.execute(
        insert(signing_key).values(
            kid=key.kid,
            private_pem=key.private_pem,
            state=_CURRENT,
            created_at=key.created_at,
        )
    )


def _keys(tx: Transaction) -> tuple[SigningKey, ...]:
    current_first = case((signing_key.c.state == _CURRENT, 0), else_=1)
    query = select(signing_key).order_by(
        current_first, signing_key.c.retired_at.desc(), signing_key.c.created_at.desc()
    )
    return tuple(
        SigningKey(row.kid, row.private_pem, row.created_at, row.state == _CURRENT, row.retired_at)
        for row in tx.connection.execute(query)
    )
