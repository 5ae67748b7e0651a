"""Accounts: who may log in, and as what."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import RowMapping, delete, func, select, update

from registry.errors import AccountExists, AccountInvalid, AccountUnknown, LastAdministrator
from registry.metadata.base import Account
from registry.metadata.tables import account, refresh_token
from registry.metadata.tables_accounts import access_version, policy_rule
from registry.metadata.transaction import Operations, Transaction, insert, lock_table, reads, writes

ADMIN = "admin"
WRITER = "writer"
READER = "reader"
USER = "user"
ROBOT = "robot"
ROLES = (ADMIN, WRITER, READER, USER)

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?")

_COLUMNS = (
    account.c.name,
    account.c.password_hash,
    account.c.role,
    account.c.disabled,
    account.c.created_at,
    account.c.kind,
    select(access_version.c.version).scalar_subquery().label("version"),
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
    def add(
        self, tx: Transaction, name: str, password_hash: str, role: str, *, kind: str = USER
    ) -> Account:
        check_name(name)
        check_role(role)
        if kind not in (USER, ROBOT):
            raise AccountInvalid(f"accounts are users or robots, not {kind[:40]!r}")
        return _insert(tx, name, password_hash, role, kind)

    @writes
    def add_first(self, tx: Transaction, name: str, password_hash: str) -> bool:
        lock_table(tx, account)
        if tx.connection.execute(select(func.count()).select_from(account)).scalar():
            return False
        _insert(tx, check_name(name), password_hash, ADMIN, USER)
        return True

    @writes
    def set_password(self, tx: Transaction, name: str, password_hash: str) -> None:
        count_change(tx)
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
        check_role(role)
        count_change(tx)
        if role != ADMIN:
            _keep_an_administrator(tx, name)
        _update(tx, name, role=role)

    @writes
    def set_disabled(self, tx: Transaction, name: str, disabled: bool) -> None:
        count_change(tx)
        if disabled:
            _keep_an_administrator(tx, name)
        _update(tx, name, disabled=disabled)
        if disabled:
            _end_sessions(tx, name)

    @writes
    def remove(self, tx: Transaction, name: str) -> None:
        count_change(tx)
        _keep_an_administrator(tx, name)
        if not tx.connection.execute(delete(account).where(account.c.name == name)).rowcount:
            raise AccountUnknown(name)
        tx.connection.execute(
            delete(policy_rule).where(
                policy_rule.c.subject_kind.in_((USER, ROBOT)), policy_rule.c.subject_name == name
            )
        )


def count_change(tx: Transaction) -> None:
    """What was remembered of anybody's rights is over. First in a transaction: it makes those that
    change rights wait for each other."""
    tx.connection.execute(update(access_version).values(version=access_version.c.version + 1))


def _keep_an_administrator(tx: Transaction, name: str) -> None:
    """Raises: LastAdministrator if `name` is the only one that can log in."""
    query = select(account.c.name).where(account.c.role == ADMIN, account.c.disabled.is_(False))
    if list(tx.connection.execute(query.limit(2)).scalars()) == [name]:
        raise LastAdministrator(name)


def account_id(name: str) -> Any:
    """A subquery: the account's id."""
    return select(account.c.id).where(account.c.name == name).scalar_subquery()


def _account(row: RowMapping) -> Account:
    return Account(**row)


def _insert(tx: Transaction, name: str, password_hash: str, role: str, kind: str) -> Account:
    count_change(tx)
    inserted = tx.connection.execute(
        insert(tx, account)
        .values(
            name=name,
            password_hash=password_hash,
            role=role,
            disabled=False,
            created_at=tx.now,
            password_changed_at=tx.now,
            kind=kind,
        )
        .on_conflict_do_nothing()
        .returning(account.c.id)
    )
    if inserted.first() is None:
        raise AccountExists(name)
    return Account(name, password_hash, role, False, tx.now, kind)


def _update(tx: Transaction, name: str, **changed: Any) -> None:
    statement = update(account).where(account.c.name == name).values(**changed)
    if not tx.connection.execute(statement).rowcount:
        raise AccountUnknown(name)


def _end_sessions(tx: Transaction, name: str) -> None:
    tx.connection.execute(
        delete(refresh_token).where(refresh_token.c.account_id == account_id(name))
    )
