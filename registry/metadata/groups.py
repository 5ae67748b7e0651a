"""Groups of accounts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, delete, select

from registry.auth import rules
from registry.errors import AccountUnknown, GroupExists, GroupUnknown
from registry.metadata.accounts import check_name, count_change
from registry.metadata.base import Group
from registry.metadata.tables import account
from registry.metadata.tables_accounts import account_group, group_member, policy_rule
from registry.metadata.transaction import Operations, Transaction, insert, reads, writes


class SqlGroups(Operations):
    """Implements `registry.metadata.base.Groups`."""

    @reads
    def all(self, tx: Transaction) -> tuple[Group, ...]:
        query = select(account_group).order_by(account_group.c.name)
        members: dict[int, list[str]] = {}
        for id, name in tx.connection.execute(
            select(group_member.c.group_id, account.c.name)
            .join(account, account.c.id == group_member.c.account_id)
            .order_by(account.c.name)
        ):
            members.setdefault(id, []).append(name)
        return tuple(
            Group(row.name, tuple(members.get(row.id, ())), row.created_at)
            for row in tx.connection.execute(query)
        )

    @reads
    def find(self, tx: Transaction, name: str) -> Group | None:
        query = select(account_group).where(account_group.c.name == name)
        row = tx.connection.execute(query).first()
        if row is None:
            return None
        members = tx.connection.execute(
            select(account.c.name)
            .join(group_member, account.c.id == group_member.c.account_id)
            .where(group_member.c.group_id == row.id)
            .order_by(account.c.name)
        )
        return Group(row.name, tuple(members.scalars()), row.created_at)

    @reads
    def of(self, tx: Transaction, account: str) -> tuple[str, ...]:
        return tuple(tx.connection.execute(_groups_of(account)).scalars())

    @writes
    def add(self, tx: Transaction, name: str) -> Group:
        check_name(name)
        count_change(tx)
        made = tx.connection.execute(
            insert(tx, account_group)
            .values(name=name, created_at=tx.now)
            .on_conflict_do_nothing()
            .returning(account_group.c.id)
        )
        if made.first() is None:
            raise GroupExists(name)
        return Group(name, (), tx.now)

    @writes
    def remove(self, tx: Transaction, name: str) -> None:
        count_change(tx)
        gone = delete(account_group).where(account_group.c.name == name)
        if not tx.connection.execute(gone).rowcount:
            raise GroupUnknown(name)
        tx.connection.execute(
            delete(policy_rule).where(
                policy_rule.c.subject_kind == rules.GROUP, policy_rule.c.subject_name == name
            )
        )

    @writes
    def join(self, tx: Transaction, name: str, account: str) -> None:
        count_change(tx)
        _join(tx, _group_id(tx, name), _account_id(tx, account))

    @writes
    def leave(self, tx: Transaction, name: str, account: str) -> None:
        count_change(tx)
        _leave(tx, _group_id(tx, name), account)

    @writes
    def set_groups(self, tx: Transaction, account: str, names: Collection[str]) -> None:
        id = _account_id(tx, account)
        there = set(tx.connection.execute(_groups_of(account)).scalars())
        known = set(tx.connection.execute(select(account_group.c.name)).scalars())
        wanted = known.intersection(names)
        if wanted == there:
            return
        count_change(tx)
        for name in sorted(there - wanted):
            _leave(tx, _group_id(tx, name), account)
        for name in sorted(wanted - there):
            _join(tx, _group_id(tx, name), id)


def _groups_of(name: str) -> Select[Any]:
    return (
        select(account_group.c.name)
        .join(group_member, group_member.c.group_id == account_group.c.id)
        .join(account, account.c.id == group_member.c.account_id)
        .where(account.c.name == name)
        .order_by(account_group.c.name)
    )


def _group_id(tx: Transaction, name: str) -> int:
    query = select(account_group.c.id).where(account_group.c.name == name)
    found = tx.connection.execute(query).scalar()
    if found is None:
        raise GroupUnknown(name)
    return int(found)


def _account_id(tx: Transaction, name: str) -> int:
    found = tx.connection.execute(select(account.c.id).where(account.c.name == name)).scalar()
    if found is None:
        raise AccountUnknown(name)
    return int(found)


def _join(tx: Transaction, group: int, account: int) -> None:
    tx.connection.execute(
        insert(tx, group_member).values(group_id=group, account_id=account).on_conflict_do_nothing()
    )


def _leave(tx: Transaction, group: int, name: str) -> None:
    member = select(account.c.id).where(account.c.name == name).scalar_subquery()
    tx.connection.execute(
        delete(group_member).where(
            group_member.c.group_id == group, group_member.c.account_id == member
        )
    )
