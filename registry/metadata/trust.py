"""Trust rules: which tokens of other issuers a robot logs in with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, delete, func, select

from registry.errors import AccountUnknown, PolicyInvalid, RuleUnknown
from registry.metadata.accounts import ROBOT, count_change
from registry.metadata.base import Account, Trusted
from registry.metadata.tables import account
from registry.metadata.tables_accounts import access_version
from registry.metadata.tables_tokens import trust_rule
from registry.metadata.transaction import Operations, Transaction, reads, writes

# Of one robot, and of one issuer; more is a mistake, or somebody filling the database.
MAX_RULES = 100
MAX_RULES_OF_ISSUER = 2000


@dataclass(frozen=True, slots=True)
class TrustRule:
    """A token of `issuer` for `audience` whose claims are like these is as good as `robot`."""

    id: int
    robot: str
    issuer: str
    audience: str
    #: Patterns by claim; see `registry.auth.trust.matches`.
    claims: Mapping[str, str]
    created_at: int


class SqlTrust(Operations):
    @writes
    def add(
        self, tx: Transaction, robot: str, issuer: str, audience: str, claims: Mapping[str, str]
    ) -> TrustRule:
        """Raises: AccountUnknown unless it is a robot; PolicyInvalid if there are too many."""
        count_change(tx)
        found = select(account.c.id).where(account.c.name == robot, account.c.kind == ROBOT)
        owner = tx.connection.execute(found).scalar()
        if owner is None:
            raise AccountUnknown(robot)
        for held, limit in (
            (trust_rule.c.account_id == owner, MAX_RULES),
            (trust_rule.c.issuer == issuer, MAX_RULES_OF_ISSUER),
        ):
            count = select(func.count()).select_from(trust_rule).where(held)
            if tx.connection.execute(count).scalar_one() >= limit:
                raise PolicyInvalid(f"there are {limit} such trust rules", hint="remove some first")
        id = tx.connection.execute(
            trust_rule.insert()
            .values(
                account_id=owner,
                issuer=issuer,
                audience=audience,
                claims=json.dumps(dict(claims), sort_keys=True),
                created_at=tx.now,
            )
            .returning(trust_rule.c.id)
        ).scalar_one()
        return TrustRule(id, robot, issuer, audience, dict(claims), tx.now)

    @reads
    def of(self, tx: Transaction, robot: str) -> tuple[TrustRule, ...]:
        query = _rows().where(account.c.name == robot).order_by(trust_rule.c.id)
        return tuple(_rule(row) for row in tx.connection.execute(query).mappings())

    @reads
    def of_issuer(self, tx: Transaction, issuer: str) -> tuple[TrustRule, ...]:
        """Only of robots that are not disabled."""
        query = _rows().where(trust_rule.c.issuer == issuer, account.c.disabled.is_(False))
        rows = tx.connection.execute(query.order_by(trust_rule.c.id)).mappings()
        return tuple(_rule(row) for row in rows)

    @reads
    def holder(self, tx: Transaction, id: int) -> Account | None:
        """The robot of a rule, with the rule; None if either is gone, or the robot disabled."""
        query = _rows().where(trust_rule.c.id == id, account.c.disabled.is_(False))
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
            trusted=Trusted(row["id"], row["created_at"]),
        )

    @writes
    def remove(self, tx: Transaction, robot: str, id: int) -> None:
        """Raises: RuleUnknown."""
        count_change(tx)
        owner = select(account.c.id).where(account.c.name == robot).scalar_subquery()
        gone = delete(trust_rule).where(trust_rule.c.id == id, trust_rule.c.account_id == owner)
        if not tx.connection.execute(gone).rowcount:
            raise RuleUnknown(id)


def _rows() -> Select[Any]:
    return select(
        trust_rule,
        account.c.name,
        account.c.password_hash,
        account.c.role,
        account.c.created_at.label("account_created_at"),
        account.c.kind,
        select(access_version.c.version).scalar_subquery().label("version"),
    ).join(account, account.c.id == trust_rule.c.account_id)


def _rule(row: RowMapping) -> TrustRule:
    claims = json.loads(row["claims"])
    return TrustRule(
        row["id"], row["name"], row["issuer"], row["audience"], claims, row["created_at"]
    )
