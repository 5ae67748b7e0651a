"""What the token service keeps: signing keys, and refresh tokens by their hashes."""

from __future__ import annotations

from sqlalchemy import case, delete, func, insert, select, update

from registry.errors import AccountUnknown
from registry.metadata.accounts import account_id
from registry.metadata.base import RefreshToken, SigningKey
from registry.metadata.tables import account, refresh_token, signing_key
from registry.metadata.transaction import Operations, Transaction, lock_table, reads, writes

_CURRENT = "current"
_PREVIOUS = "previous"


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
    def rotate_signing_key(self, tx: Transaction, key: SigningKey) -> tuple[SigningKey, ...]:
        lock_table(tx, signing_key)
        tx.connection.execute(delete(signing_key).where(signing_key.c.state == _PREVIOUS))
        tx.connection.execute(update(signing_key).values(state=_PREVIOUS))
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
        tx.connection.execute(
            insert(refresh_token).values(
                token_hash=token_hash,
                account_id=id,
                client_id=token.client_id,
                created_at=token.created_at,
                expires_at=token.expires_at,
            )
        )

    @reads
    def find_refresh_token(self, tx: Transaction, token_hash: str) -> RefreshToken | None:
        query = (
            select(
                account.c.name,
                refresh_token.c.client_id,
                refresh_token.c.created_at,
                refresh_token.c.expires_at,
            )
            .join(account, account.c.id == refresh_token.c.account_id)
            .where(
                refresh_token.c.token_hash == token_hash,
                refresh_token.c.expires_at > tx.now,
                account.c.disabled.is_(False),
            )
        )
        row = tx.connection.execute(query).first()
        return None if row is None else RefreshToken(*row)

    @writes
    def revoke_refresh_tokens(
        self, tx: Transaction, account: str, *, client_id: str | None = None
    ) -> int:
        statement = delete(refresh_token).where(refresh_token.c.account_id == account_id(account))
        if client_id is not None:
            statement = statement.where(refresh_token.c.client_id == client_id)
        return tx.connection.execute(statement).rowcount


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
    query = select(signing_key).order_by(current_first, signing_key.c.created_at.desc())
    return tuple(
        SigningKey(row.kid, row.private_pem, row.created_at, row.state == _CURRENT)
        for row in tx.connection.execute(query)
    )
