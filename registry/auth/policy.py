"""Who may do what: pure decisions over a subject, an action and a resource.

    role        pull   push   delete   catalog
    admin       all    all    all      yes
    writer      all    all    all      yes
    reader      all    -      -        yes
    anonymous   all if `anonymous_pull`, else nothing; never the catalog

Administration itself (accounts, keys) is `is_admin`, not an action on a repository.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ocispec.distribution.scope import (
    ANY,
    DELETE,
    PULL,
    PUSH,
    REPOSITORY,
    Scope,
    intersect,
    merge,
)

ADMIN = "admin"
WRITER = "writer"
READER = "reader"

# The resources that are not repositories: the list of them, and the administration API.
REGISTRY = "registry"
CATALOG = "catalog"
API = "api"

_ROLE_ACTIONS = {
    ADMIN: frozenset({PULL, PUSH, DELETE}),
    WRITER: frozenset({PULL, PUSH, DELETE}),
    READER: frozenset({PULL}),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks."""

    #: The account's name; empty for somebody without credentials.
    name: str
    #: ADMIN, WRITER or READER; empty for somebody without credentials.
    role: str

    @property
    def is_admin(self) -> bool:
        return self.role == ADMIN


ANONYMOUS = Subject("", "")


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one registry."""

    #: Whether somebody without credentials may pull from every repository.
    anonymous_pull: bool = False

    def actions(self, subject: Subject, repository: str) -> frozenset[str]:
        """All that the subject may do to a repository, existing or not."""
        if subject == ANONYMOUS:
            return frozenset({PULL}) if self.anonymous_pull else frozenset()
        return _ROLE_ACTIONS.get(subject.role, frozenset())

    def may_list(self, subject: Subject) -> bool:
        """Whether the subject may read the catalog; it is shown what it may pull."""
        return subject.role in _ROLE_ACTIONS

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
        if scope.type == REGISTRY and scope.name == API and subject != ANONYMOUS:
            return frozenset({ANY})  # what it opens is the account's live policy
        return frozenset()
