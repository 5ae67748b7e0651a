"""The rules that decide about rights, as rows."""

from __future__ import annotations

from sqlalchemy import Table, delete, select

from registry.auth import rules
from registry.auth.globs import check_repositories
from registry.auth.rules import ImmutableRule, Rule
from registry.errors import AccountUnknown, GroupUnknown, PolicyInvalid, RuleUnknown
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


class SqlAccessPolicy(Operations):
    """Implements `registry.metadata.base.AccessPolicy`."""

    @reads
    def load(self, tx: Transaction) -> PolicyRows:
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
            rules=tuple(
                Rule(**{**row, "actions": frozenset(row["actions"].split())}) for row in found
            ),
            immutable=tuple(ImmutableRule(**row) for row in immutable),
            groups={name: frozenset(of) for name, of in groups.items()},
        )

    @writes
    def add_rule(
        self,
        tx: Transaction,
        repositories: str,
        subject: str,
        actions: frozenset[str],
        effect: str,
    ) -> Rule:
        check_repositories(repositories)
        kind, name = rules.parse_subject(subject)
        rules.check_actions(actions)
        rules.check_effect(effect)
        count_change(tx)
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

    @writes
    def remove_rule(self, tx: Transaction, id: int) -> None:
        _remove(tx, policy_rule, id)

    @writes
    def add_immutable(
        self, tx: Transaction, repositories: str, tags: str, *, may_expire: bool = False
    ) -> ImmutableRule:
        rules.check_immutable(repositories, tags)
        count_change(tx)
        _check_room(tx, immutable_rule)
        id = tx.connection.execute(
            immutable_rule.insert()
            .values(repositories=repositories, tags=tags, may_expire=may_expire, created_at=tx.now)
            .returning(immutable_rule.c.id)
        ).scalar_one()
        return ImmutableRule(id, repositories, tags, may_expire, tx.now)

    @writes
    def remove_immutable(self, tx: Transaction, id: int) -> None:
        _remove(tx, immutable_rule, id)


def _check_room(tx: Transaction, table: Table) -> None:
    if len(tx.connection.execute(select(table.c.id)).all()) >= MAX_RULES:
        raise PolicyInvalid(f"there are {MAX_RULES} rules already", hint="use groups and patterns")


def _remove(tx: Transaction, table: Table, id: int) -> None:
    count_change(tx)
    if not tx.connection.execute(delete(table).where(table.c.id == id)).rowcount:
        raise RuleUnknown(id)
