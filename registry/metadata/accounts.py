"""Accounts: who may log in, and as what."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, update

from registry.errors import AccountExists, AccountInvalid, AccountUnknown
from registry.metadata.base import Account
from registry.metadata.tables import account, refresh_token
from registry.metadata.transaction import Operations, Transaction, insert, lock_table, reads, writes

ADMIN = "admin"
WRITER = "writer"
READER = "reader"
ROLES = (ADMIN, WRITER, READER)

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?")

_COLUMNS = (
    account.c.name,
    account.c.password_hash,
    account.c.role,
    account.c.disabled,
    account.c.created_at,
)


def check_name(name: str) -> str:
    """The name itself. A colon could not be sent with Basic authentication, capitals would differ.

    Raises: AccountInvalid.
    """
    if _NAME.fullmatch(name) is None:
        raise AccountInvalid(
            f"user name {name[:80]!r} is not possible",
            hint="1 to 64 of a-z, 0-9 and . _ @ + -, beginning and ending with a letter or digit",
        )
    return name


def check_role(role: str) -> str:
    """The role itself. Raises: AccountInvalid."""
    if role not in ROLES:
        raise AccountInvalid(f"role {role[:80]!r} does not exist", hint="use " + ", ".join(ROLES))
    return role


class SqlAccounts(Operations):
    """Implements `registry.metadata.base.Accounts`."""

    @reads
    def find(self, tx: Transaction, name: str) -> Account | None:
        if _NAME.fullmatch(name) is None:
            return None
        row = (
            tx.connection.execute(select(*_COLUMNS).where(account.c.name == name))
            .mappings()
            .first()
        )
        return None if row is None else _account(row)

    @reads
    def all(self, tx: Transaction) -> tuple[Account, ...]:
        rows = tx.connection.execute(select(*_COLUMNS).order_by(account.c.name)).mappings()
        return tuple(map(_account, rows))

    @writes
    def add(self, tx: Transaction, name: str, password_hash: str, role: str) -> Account:
        check_name(name)
        check_role(role)
        return _insert(tx, name, password_hash, role)

    @writes
    def add_first(self, tx: Transaction, name: str, password_hash: str) -> bool:
        lock_table(tx, account)
        if tx.connection.execute(select(func.count()).select_from(account)).scalar():
            return False
        _insert(tx, check_name(name), password_hash, ADMIN)
        return True

    @writes
    def set_password(self, tx: Transaction, name: str, password_hash: str) -> None:
        _update(tx, name, password_hash=password_hash, password_changed_at=tx.now)
        _end_sessions(tx, name)

    @writes
    def rehash(self, tx: Transaction, name: str, old_hash: str, new_hash: str) -> None:
        tx.connection.execute(
            update(account)
            .where(account.c.name == name, account.c.password_hash == old_hash)
            .values(password_hash=new_hash)
        )

    @writes
    def set_role(self, tx: Transaction, name: str, role: str) -> None:
        _update(tx, name, role=check_role(role))

    @writes
    def set_disabled(self, tx: Transaction, name: str, disabled: bool) -> None:
        _update(tx, name, disabled=disabled)
        if disabled:
            _end_sessions(tx, name)

    @writes
    def remove(self, tx: Transaction, name: str) -> None:
        if not tx.connection.execute(delete(account).where(account.c.name == name)).rowcount:
            raise AccountUnknown(name)


def account_id(name: str) -> Any:
    """A subquery: the account's id."""
    return select(account.c.id).where(account.c.name == name).scalar_subquery()


def _account(row: RowMapping) -> Account:
    return Account(**row)


def _insert(tx: Transaction, name: str, password_hash: str, role: str) -> Account:
    inserted = tx.connection.execute(
        insert(tx, account)
        .values(
            name=name,
            password_hash=password_hash,
            role=role,
            disabled=False,
            created_at=tx.now,
            password_changed_at=tx.now,
        )
        .on_conflict_do_nothing()
        .returning(account.c.id)
    )
    if inserted.first() is None:
        raise AccountExists(name)
    return Account(name, password_hash, role, False, tx.now)


def _update(tx: Transaction, name: str, **changed: Any) -> None:
    statement = update(account).where(account.c.name == name).values(**changed)
    if not tx.connection.execute(statement).rowcount:
        raise AccountUnknown(name)


def _end_sessions(tx: Transaction, name: str) -> None:
    tx.connection.execute(
        delete(refresh_token).where(refresh_token.c.account_id == account_id(name))
    )
