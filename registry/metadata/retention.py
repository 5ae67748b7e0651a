"""Retention rules in the database, and runs of them.

Rules run only while the whole set is the one that somebody has acknowledged after a preview: any
change of a rule stops them. A run takes a lease, so that one replica does it at a time, and deletes
a repository's tags in one transaction, as one change set that `undo` takes back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, insert, or_, select, update

from ocispec.distribution.name import RepositoryName
from registry.auth.globs import compiled, matches
from registry.errors import Denied, NotAcknowledged
from registry.metadata.base import DELETE, PULL, PUSH, Access, TagRights
from registry.metadata.collection import review_manifests
from registry.metadata.retention_rules import Rule, TagState, name_of, to_go
from registry.metadata.tables import manifest, repository, tag
from registry.metadata.tables_accounts import immutable_rule
from registry.metadata.tables_history import retention_rule, retention_state
from registry.metadata.tags import drop_tags, lock_tag
from registry.metadata.transaction import Operations, Transaction, reads, writes
from registry.metadata.transaction import insert as upsert
from registry.metadata.trash import record_change

# No account has such a name.
ACTOR = "(retention)"
EVERY_S = 3600
_LEASE_S = 600
_PAGE = 100

_PULLED = (
    update(manifest)
    .where(
        manifest.c.repository_id
        == select(repository.c.id).where(repository.c.name == bindparam("name")).scalar_subquery(),
        manifest.c.digest == bindparam("key"),
        or_(manifest.c.pulled_at.is_(None), manifest.c.pulled_at < bindparam("at")),
    )
    .values(pulled_at=bindparam("at"))
)


@dataclass(frozen=True, slots=True)
class StoredRule:
    id: int
    rule: Rule


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules. They run if `name` is `acknowledged`."""

    name: str
    acknowledged: str
    acknowledged_by: str
    ran_at: int
    #: Tags that the last run deleted.
    deleted: int
    rules: tuple[StoredRule, ...]


@dataclass(frozen=True, slots=True)
class Going:
    """A tag that the rules let go."""

    repository: str
    tag: str


class SqlRetention(Operations):
    """Rules, previews and runs; and the times of pulls, which rules look at."""

    @reads
    def rules(self, tx: Transaction) -> RuleSet:
        return _rules(tx)

    @writes
    def add(self, tx: Transaction, rule: Rule) -> int:
        """A new rule; the set must be acknowledged again."""
        return int(
            tx.connection.execute(
                insert(retention_rule)
                .values(
                    repositories=rule.repositories,
                    tags=json.dumps(list(rule.tags)),
                    keep_last=rule.keep_last,
                    younger_s=rule.younger_s,
                    pulled_s=rule.pulled_s,
                    created_at=tx.now,
                )
                .returning(retention_rule.c.id)
            ).scalar_one()
        )

    @writes
    def remove(self, tx: Transaction, id: int) -> bool:
        """Whether there was such a rule. The set must be acknowledged again."""
        done = tx.connection.execute(delete(retention_rule).where(retention_rule.c.id == id))
        return bool(done.rowcount)

    @reads
    def preview(
        self, tx: Transaction, *, after: str = "", limit: int = _PAGE
    ) -> tuple[str, tuple[Going, ...], str]:
        """The set's name, what would go of the next repositories, and where to go on."""
        found = _rules(tx)
        rules = [each.rule for each in found.rules]
        rows = _repositories(tx, after, limit) if rules else []
        kept = _Kept(tx)
        going = [
            Going(name, each)
            for id, name in rows
            for each in to_go(rules, name, _tags(tx, id), tx.now)
            if not kept.rights(name).is_immutable(each)
        ]
        return found.name, tuple(going), rows[-1][1] if len(rows) == limit else ""

    @writes
    def acknowledge(self, tx: Transaction, name: str, *, actor: str) -> None:
        """Let the rules run that `name` names. Raises: NotAcknowledged if they are others now."""
        if _rules(tx).name != name:
            raise NotAcknowledged("the rules are others now", hint="pyreg retention preview")
        values = {"acknowledged": name, "acknowledged_by": actor, "acknowledged_at": tx.now}
        blank = {"id": 1, "lease_until": 0, "ran_at": 0, "deleted": 0}
        statement = upsert(tx, retention_state).values({**blank, **values})
        tx.connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))

    @writes
    def take_lease(self, tx: Transaction, *, every_s: int = EVERY_S) -> str:
        """The name of the rules to run now, which are the caller's for ten minutes; empty if
        nothing is to be done, or another does it."""
        done = tx.connection.execute(
            update(retention_state)
            .where(
                retention_state.c.lease_until <= tx.now,
                retention_state.c.ran_at <= tx.now - every_s,
            )
            .values(lease_until=tx.now + _LEASE_S)
        )
        if not done.rowcount:
            return ""
        found = _rules(tx)
        return found.name if found.rules and found.name == found.acknowledged else ""

    @writes
    def run(
        self, tx: Transaction, name: str, *, after: str = "", limit: int = 20
    ) -> tuple[int, str]:
        """Delete what goes of the next repositories; how many tags, and where to go on.

        Raises: NotAcknowledged if `name` is not what was acknowledged, or not the rules now.
        """
        found = _rules(tx)
        if not found.name == found.acknowledged == name:
            raise NotAcknowledged(
                "nobody has acknowledged these rules", hint="pyreg retention preview"
            )
        rules = [each.rule for each in found.rules]
        rows, kept = _repositories(tx, after, limit), _Kept(tx)
        deleted = sum(_run_repository(tx, rules, id, repo, kept.rights(repo)) for id, repo in rows)
        tx.connection.execute(
            update(retention_state).values(
                lease_until=tx.now + _LEASE_S if len(rows) == limit else 0,
                ran_at=tx.now if len(rows) < limit else retention_state.c.ran_at,
                deleted=deleted if not after else retention_state.c.deleted + deleted,
            )
        )
        return deleted, rows[-1][1] if len(rows) == limit else ""

    @writes
    def pulled(self, tx: Transaction, pulls: Mapping[tuple[str, str], object]) -> None:
        """These manifests (repository, digest) were pulled within the last minute."""
        rows = [{"name": name, "key": digest, "at": tx.now} for name, digest in sorted(pulls)]
        if rows:
            tx.connection.execute(_PULLED, rows)


def _rules(tx: Transaction) -> RuleSet:
    rows = tx.connection.execute(select(retention_rule).order_by(retention_rule.c.id))
    rules = tuple(
        StoredRule(
            row.id,
            Rule(
                row.repositories,
                tuple(json.loads(row.tags)),
                row.keep_last,
                row.younger_s,
                row.pulled_s,
            ),
        )
        for row in rows
    )
    state = tx.connection.execute(select(retention_state)).first()
    name = name_of(each.rule for each in rules)
    if state is None:
        return RuleSet(name, "", "", 0, 0, rules)
    return RuleSet(
        name, state.acknowledged, state.acknowledged_by, state.ran_at, state.deleted, rules
    )


def _repositories(tx: Transaction, after: str, limit: int) -> list[tuple[int, str]]:
    rows = tx.connection.execute(
        select(repository.c.id, repository.c.name)
        .where(repository.c.name > after)
        .order_by(repository.c.name)
        .limit(limit)
    )
    return [(row.id, row.name) for row in rows]


def _tags(tx: Transaction, repository_id: int) -> list[TagState]:
    rows = tx.connection.execute(
        select(tag.c.name, tag.c.updated_at, manifest.c.pushed_at, manifest.c.pulled_at)
        .join(manifest, manifest.c.id == tag.c.manifest_id)
        .where(tag.c.repository_id == repository_id)
    )
    return [TagState(row.name, row.updated_at, row.pushed_at, row.pulled_at or 0) for row in rows]


class _Kept:
    """The immutable tags that may not expire either, as they are in this transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._rules = [
            (row.repositories, row.tags)
            for row in tx.connection.execute(
                select(immutable_rule).where(~immutable_rule.c.may_expire)
            )
        ]

    def rights(self, repository: str) -> TagRights:
        return TagRights(
            immutable=tuple(
                compiled(tags) for glob, tags in self._rules if matches(glob, repository)
            )
        )


def _run_repository(
    tx: Transaction, rules: list[Rule], id: int, name: str, rights: TagRights
) -> int:
    wanted = [
        each for each in to_go(rules, name, _tags(tx, id), tx.now) if not rights.is_immutable(each)
    ]
    if not wanted:
        return 0
    # Locked first and looked at again: a push may have moved one meanwhile.
    digests = {each: lock_tag(tx, id, each) for each in wanted}
    still = set(to_go(rules, name, _tags(tx, id), tx.now))
    access = Access(RepositoryName(name), ACTOR, frozenset({PULL, PUSH, DELETE}), rights)
    change = record_change(tx, "retention", ACTOR, f"repository {name}")
    deleted = 0
    for each, digest in digests.items():
        if digest is None or each not in still:
            continue
        try:
            drop_tags(tx, access, id, [each], digest, change_id=change)
        except Denied:
            continue  # immutable: it stays
        review_manifests(tx, id, [digest], event="tag removed by retention")
        deleted += 1
    return deleted
