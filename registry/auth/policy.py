"""Who may do what: pure decisions over a subject, an action and a resource.

What decides, in this order; the first that has something to say does:

    1. an access token        allows nothing beyond its own actions and repositories
    2. the role `admin`       may do everything, whatever the rules say: nobody locks them out
    3. a rule that denies
    4. a rule that allows     (`admin` on a repository allows everything there)
    5. the role               writer: pull, create, overwrite, delete; reader: pull; user: nothing
    6. what everybody may     `anonymous_pull`, and rules that allow `anonymous`
    7. nothing did            denied

Pushing is `create` (a tag that is not there yet) or `overwrite` (one that is); a token for pushes
is given to whom either is allowed, and the transaction that writes the tag looks which it is.
Administration itself (accounts, keys) is `is_admin`, not an action on a repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ocispec.distribution.scope import (
    ANY,
    PUSH,
    REPOSITORY,
    Scope,
    intersect,
    merge,
)
from registry.auth import rules
from registry.auth.globs import compiled, matches, pattern
from registry.auth.rules import CREATE, DELETE, OVERWRITE, PULL, ImmutableRule, Limit, Rule
from registry.metadata.base import FREE, Account, TagRights

ADMIN = "admin"
WRITER = "writer"
READER = "reader"
USER = "user"

# The resources that are not repositories: the list of them, and the administration API.
REGISTRY = "registry"
CATALOG = "catalog"
API = "api"

_EVERYTHING = frozenset(rules.ACTIONS)
_ROLE_ACTIONS = {
    ADMIN: _EVERYTHING,
    WRITER: frozenset({PULL, CREATE, OVERWRITE, DELETE}),
    READER: frozenset({PULL}),
    USER: frozenset(),
}
_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks."""

    #: The account's name; empty for somebody without credentials.
    name: str
    #: ADMIN, WRITER, READER or USER; empty for somebody without credentials.
    role: str
    #: "user" or "robot".
    kind: str = rules.USER
    #: What the access token that they came with is good for; None without a limit.
    limit: Limit | None = None

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN and self.limit is None


ANONYMOUS = Subject("", "")


def subject_of(account: Account) -> Subject:
    """Whom an account, and the access token it came with, stands for."""
    limit = account.token.limit if account.token is not None else None
    if limit is not None and not limit.actions and not limit.repositories:
        limit = None
    return Subject(account.name, account.role, account.kind, limit)


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` says in words what decided; `rule` is the rule, if it was one."""

    allowed: bool
    reason: str
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Rights:
    """All that a subject may do to one repository."""

    #: Of the Distribution specification: pull, push, delete.
    actions: frozenset[str]
    tags: TagRights = FREE


_NONE = Rights(frozenset())


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one registry at one time. Immutable; `version` says of which time."""

    #: Whether somebody without credentials may pull from every repository.
    anonymous_pull: bool = False
    rules: tuple[Rule, ...] = ()
    immutable: tuple[ImmutableRule, ...] = ()
    #: Groups by account.
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)
    version: int = 0
    _remembered: dict[tuple[Subject, str], Rights] = field(
        default_factory=dict, compare=False, repr=False
    )

    def decide(self, subject: Subject, action: str, repository: str) -> Decision:
        """Whether the subject may do one of `rules.ACTIONS`, and what says so."""
        limit = subject.limit
        if limit is not None and not _within(limit, action, repository):
            if action == PULL and self.decide(ANONYMOUS, PULL, repository).allowed:
                return self.decide(Subject(subject.name, subject.role, subject.kind), PULL,
                                   repository)  # fmt: skip
            return Decision(False, "the access token does not include it")
        if subject.role == ADMIN:
            return Decision(True, "the role admin")
        allowing: Rule | None = None
        for rule in self.rules:
            if not self._is_about(rule, subject) or not matches(rule.repositories, repository):
                continue
            if rule.effect == rules.DENY:
                if action in rule.actions:
                    return Decision(False, f"rule {rule.id}: {rule}", rule)
            elif allowing is None and (action in rule.actions or rules.ADMIN in rule.actions):
                allowing = rule
        if allowing is not None:
            return Decision(True, f"rule {allowing.id}: {allowing}", allowing)
        if action in _ROLE_ACTIONS.get(subject.role, ()):
            return Decision(True, f"the role {subject.role}")
        if (
            self.anonymous_pull
            and action == PULL
            and (subject == ANONYMOUS or subject.role in _ROLE_ACTIONS)
        ):
            return Decision(True, "the setting anonymous_pull")
        return Decision(False, "no rule allows it")

    def _is_about(self, rule: Rule, subject: Subject) -> bool:
        match rule.subject_kind:
            case rules.ANONYMOUS:  # what everybody may do, nobody needs to be allowed
                return subject == ANONYMOUS or (
                    rule.effect == rules.ALLOW and subject.role in _ROLE_ACTIONS
                )
            case rules.AUTHENTICATED:
                return bool(subject.name)
            case rules.GROUP:
                return rule.subject_name in self.groups.get(subject.name, ())
            case kind:
                return kind == subject.kind and rule.subject_name == subject.name != ""

    def rights(self, subject: Subject, repository: str) -> Rights:
        """All that the subject may do to a repository, existing or not."""
        key = subject, repository
        found = self._remembered.get(key)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            found = self._remembered[key] = self._rights(subject, repository)
        return found

    def _rights(self, subject: Subject, repository: str) -> Rights:
        allowed = {a for a in rules.ACTIONS if self.decide(subject, a, repository).allowed}
        if not allowed:
            return _NONE
        actions = allowed & {PULL, DELETE}
        if not allowed.isdisjoint({CREATE, OVERWRITE}):
            actions.add(PUSH)
        tags = TagRights(
            may_create=CREATE in allowed,
            may_overwrite=OVERWRITE in allowed,
            immutable=tuple(
                compiled(rule.tags)
                for rule in self.immutable
                if matches(rule.repositories, repository)
            ),
        )
        return Rights(frozenset(actions), FREE if tags == FREE else tags)

    def actions(self, subject: Subject, repository: str) -> frozenset[str]:
        """The same in words of the Distribution specification: pull, push, delete."""
        return self.rights(subject, repository).actions

    def readable(self, subject: Subject) -> Callable[[str], bool]:
        """Which repositories the subject may pull from: quick, to be asked about thousands."""
        if subject.limit is not None:
            return lambda name: self.decide(subject, PULL, name).allowed
        if subject.role == ADMIN:
            return lambda name: True
        everywhere = PULL in _ROLE_ACTIONS.get(subject.role, ()) or (
            self.anonymous_pull and (subject == ANONYMOUS or subject.role in _ROLE_ACTIONS)
        )
        about = [rule for rule in self.rules if self._is_about(rule, subject)]
        denied = _any_of(r for r in about if r.effect == rules.DENY and PULL in r.actions)
        allowed = _any_of(
            r for r in about
            if r.effect == rules.ALLOW and not r.actions.isdisjoint({PULL, rules.ADMIN})
        )  # fmt: skip

        def is_readable(name: str) -> bool:
            if denied is not None and denied(name):
                return False
            return everywhere or (allowed is not None and bool(allowed(name)))

        return is_readable

    def may_list(self, subject: Subject) -> bool:
        """Whether the subject may read the catalog; it is shown what it may pull."""
        return subject.role in _ROLE_ACTIONS

    def may_find(self) -> bool:
        """Whether there may be anything that somebody without credentials can pull."""
        return self.anonymous_pull or any(
            rule.subject_kind == rules.ANONYMOUS and rule.effect == rules.ALLOW
            for rule in self.rules
        )

    def is_kept(self, repository: str, tag: str) -> bool:
        """Whether a retention rule has to leave this tag alone."""
        return any(
            not rule.may_expire and matches(rule.repositories, repository)
            and matches(rule.tags, tag)
            for rule in self.immutable
        )  # fmt: skip

    def grant(self, subject: Subject, requested: Iterable[Scope]) -> tuple[Scope, ...]:
        """What the subject gets of what it asks for; nothing at all is an ordinary answer."""
        wanted = merge(requested)
        allowed = (Scope(scope.type, scope.name, self._allowed(subject, scope)) for scope in wanted)
        return intersect(wanted, allowed)

    def _allowed(self, subject: Subject, scope: Scope) -> frozenset[str]:
        if scope.type == REPOSITORY:
            return self.actions(subject, scope.name)
        if scope.type == REGISTRY and scope.name == CATALOG and self.may_list(subject):
            return frozenset({ANY})
        if scope.type == REGISTRY and scope.name == API and opens_api(subject):
            return frozenset({ANY})  # what it opens is the account's live policy
        return frozenset()


def opens_api(subject: Subject) -> bool:
    """Whether the administration API may be called at all: not with a limited access token."""
    return subject != ANONYMOUS and subject.limit is None


def _within(limit: Limit, action: str, repository: str) -> bool:
    if limit.actions and action not in limit.actions and rules.ADMIN not in limit.actions:
        return False
    return not limit.repositories or any(matches(glob, repository) for glob in limit.repositories)


def _any_of(about: Iterable[Rule]) -> Callable[[str], re.Match[str] | None] | None:
    globs = sorted({rule.repositories for rule in about})
    if not globs:
        return None
    return re.compile("|".join(f"(?:{pattern(glob)})" for glob in globs)).fullmatch
