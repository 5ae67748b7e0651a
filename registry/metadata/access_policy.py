"""The rules that decide about rights, as rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

from sqlalchemy import Table, delete, func, select

from registry.auth import rules
from registry.auth.globs import check_repositories
from registry.auth.rules import ImmutableRule, Rule, WantedImmutable, WantedRule
from registry.errors import (
    AccountUnknown,
    GroupUnknown,
    PolicyChanged,
    PolicyInvalid,
    RuleUnknown,
)
from registry.metadata.accounts import count_change
from registry.metadata.base import PolicyRows
from registry.metadata.tables import account
from registry.metadata.tables_accounts import (
    access_version,
    account_group,
    group_member,
    immutable_rule,
    policy_rule,
)
from registry.metadata.transaction import Operations, Transaction, reads, writes

# Each is looked at for each new pair of subject and repository.
MAX_RULES = 2000

T = TypeVar("T")


class SqlAccessPolicy(Operations):
    """Implements `registry.metadata.base.AccessPolicy`."""

    @reads
    def load(self, tx: Transaction) -> PolicyRows:
        return _load(tx)

    @writes
    def replace(
        self,
        tx: Transaction,
        wanted: Sequence[WantedRule],
        immutable: Sequence[WantedImmutable],
        *,
        versions: Collection[str] | None = None,
    ) -> PolicyRows:
        count_change(tx)  # whoever else changes rights waits from here on
        before = _load(tx)
        if versions is not None and str(before.version - 1) not in versions:
            raise PolicyChanged
        missing, surplus = _difference(
            wanted,
            [(WantedRule(r.repositories, r.subject, r.actions, r.effect), r.id)
             for r in before.rules],
        )  # fmt: skip
        unfixed, fixed = _difference(
            immutable,
            [(WantedImmutable(r.repositories, r.tags, r.may_expire), r.id)
             for r in before.immutable],
        )  # fmt: skip
        for table, ids in ((policy_rule, surplus), (immutable_rule, fixed)):
            if ids:
                tx.connection.execute(delete(table).where(table.c.id.in_(ids)))
        for rule in missing:
            _add_rule(tx, *rule)
        for tags in unfixed:
            _add_immutable(tx, *tags)
        return _load(tx)

    @writes
    def add_rule(
        self,
        tx: Transaction,
        repositories: str,
        subject: str,
        actions: frozenset[str],
        effect: str,
    ) -> Rule:
        count_change(tx)
        return _add_rule(tx, repositories, subject, actions, effect)

    @writes
    def remove_rule(self, tx: Transaction, id: int) -> None:
        _remove(tx, policy_rule, id)

    @writes
    def add_immutable(
        self, tx: Transaction, repositories: str, tags: str, *, may_expire: bool = False
    ) -> ImmutableRule:
        count_change(tx)
        return _add_immutable(tx, repositories, tags, may_expire)

    @writes
    def remove_immutable(self, tx: Transaction, id: int) -> None:
        _remove(tx, immutable_rule, id)


def _load(tx: Transaction) -> PolicyRows:
    # The version first: what is read after it is at least as new.
    version = tx.connection.execute(select(access_version.c.version)).scalar()
    groups: dict[str, set[str]] = {}
    for member, group in tx.connection.execute(
        select(account.c.name, account_group.c.name)
        .join(group_member, group_member.c.account_id == account.c.id)
        .join(account_group, account_group.c.id == group_member.c.group_id)
    ):
        groups.setdefault(member, set()).add(group)
    found = tx.connection.execute(select(policy_rule).order_by(policy_rule.c.id)).mappings()
    immutable = tx.connection.execute(
        select(immutable_rule).order_by(immutable_rule.c.id)
    ).mappings()
    return PolicyRows(
        version=version or 0,
        rules=tuple(Rule(**{**row, "actions": frozenset(row["actions"].split())}) for row in found),
        immutable=tuple(ImmutableRule(**row) for row in immutable),
        groups={name: frozenset(of) for name, of in groups.items()},
    )


def _difference(wanted: Sequence[T], there: Sequence[tuple[T, int]]) -> tuple[list[T], list[int]]:
    """What is missing, and the ids of what nobody wants; twins count as two."""
    left: dict[T, list[int]] = {}
    for key, id in there:
        left.setdefault(key, []).append(id)
    missing = []
    for each in wanted:
        if left.get(each):
            left[each].pop(0)
        else:
            missing.append(each)
    return missing, [id for ids in left.values() for id in ids]


def _add_rule(
    tx: Transaction, repositories: str, subject: str, actions: frozenset[str], effect: str
) -> Rule:
    check_repositories(repositories)
    kind, name = rules.parse_subject(subject)
    rules.check_actions(actions)
    rules.check_effect(effect)
    _check_room(tx, policy_rule)
    if kind in (rules.USER, rules.ROBOT):
        query = select(account.c.id).where(account.c.name == name, account.c.kind == kind)
        if tx.connection.execute(query).first() is None:
            raise AccountUnknown(name)
    elif kind == rules.GROUP:
        of = select(account_group.c.id).where(account_group.c.name == name)
        if tx.connection.execute(of).first() is None:
            raise GroupUnknown(name)
    id = tx.connection.execute(
        policy_rule.insert()
        .values(
            repositories=repositories,
            subject_kind=kind,
            subject_name=name,
            actions=" ".join(sorted(actions)),
            effect=effect,
            created_at=tx.now,
        )
        .returning(policy_rule.c.id)
    ).scalar_one()
    return Rule(id, repositories, kind, name, actions, effect, tx.now)


def _add_immutable(
    tx: Transaction, repositories: str, tags: str, may_expire: bool
) -> ImmutableRule:
    rules.check_immutable(repositories, tags)
    _check_room(tx, immutable_rule)
    id = tx.connection.execute(
        immutable_rule.insert()
        .values(repositories=repositories, tags=tags, may_expire=may_expire, created_at=tx.now)
        .returning(immutable_rule.c.id)
    ).scalar_one()
    return ImmutableRule(id, repositories, tags, may_expire, tx.now)


def _check_room(tx: Transaction, table: Table) -> None:
    if (tx.connection.execute(select(func.count()).select_from(table)).scalar() or 0) >= MAX_RULES:
        raise PolicyInvalid(f"there are {MAX_RULES} rules already", hint="use groups and patterns")


def _remove(tx: Transaction, table: Table, id: int) -> None:
    count_change(tx)
    if not tx.connection.execute(delete(table).where(table.c.id == id)).rowcount:
        raise RuleUnknown(id)
