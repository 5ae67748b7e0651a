"""Rules of who may do what, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from registry.auth.globs import check_repositories, check_tags
from registry.errors import PolicyInvalid

PULL = "pull"
CREATE = "create"
OVERWRITE = "overwrite"
DELETE = "delete"
ADMIN = "admin"
ACTIONS = (PULL, CREATE, OVERWRITE, DELETE, ADMIN)

ALLOW = "allow"
DENY = "deny"

USER = "user"
GROUP = "group"
ROBOT = "robot"
ANONYMOUS = "anonymous"
AUTHENTICATED = "authenticated"
NAMED = (USER, GROUP, ROBOT)
KINDS = (*NAMED, ANONYMOUS, AUTHENTICATED)


@dataclass(frozen=True, slots=True)
class Rule:
    """`effect` for what `actions` say, on repositories like this, for whom `subject` means."""

    id: int
    #: A pattern; see `registry.auth.globs`.
    repositories: str
    subject_kind: str
    #: Empty for ANONYMOUS and AUTHENTICATED.
    subject_name: str
    actions: frozenset[str]
    effect: str
    created_at: int = 0

    @property
    def subject(self) -> str:
        """As people write it: user:ann, group:team, anonymous."""
        kind, name = self.subject_kind, self.subject_name
        return f"{kind}:{name}" if kind in NAMED else kind

    def __str__(self) -> str:
        actions = ",".join(action for action in ACTIONS if action in self.actions)
        return f"{self.effect} {self.subject} {actions} on {self.repositories}"


@dataclass(frozen=True, slots=True)
class ImmutableRule:
    """Tags like this, in repositories like this, are neither overwritten nor deleted."""

    id: int
    repositories: str
    tags: str
    #: Whether a retention rule may remove them.
    may_expire: bool = False
    created_at: int = 0


class WantedRule(NamedTuple):
    """A rule that shall be there."""

    repositories: str
    #: As people write it.
    subject: str
    actions: frozenset[str]
    effect: str


class WantedImmutable(NamedTuple):
    """An immutable rule that shall be there."""

    repositories: str
    tags: str
    may_expire: bool


@dataclass(frozen=True, slots=True)
class Limit:
    """What a personal access token is good for, of all that its owner may; empty: no limit."""

    actions: frozenset[str] = frozenset()
    repositories: tuple[str, ...] = ()


def parse_subject(text: str) -> tuple[str, str]:
    """Kind and name of `user:NAME`, `group:NAME`, `robot:NAME`, `anonymous`, `authenticated`.

    Raises: PolicyInvalid.
    """
    kind, _, name = text.partition(":")
    if kind not in KINDS or (kind in NAMED) != bool(name):
        raise PolicyInvalid(
            f"{text[:80]!r} is nobody",
            hint="user:NAME, group:NAME, robot:NAME, anonymous or authenticated",
        )
    return kind, name


def check_actions(actions: frozenset[str]) -> frozenset[str]:
    """Raises: PolicyInvalid."""
    if not actions or not actions <= set(ACTIONS):
        raise PolicyInvalid("which actions?", hint="some of " + ", ".join(ACTIONS))
    return actions


def check_effect(effect: str) -> str:
    """Raises: PolicyInvalid."""
    if effect not in (ALLOW, DENY):
        raise PolicyInvalid(f"a rule does not {effect[:40]!r}", hint="allow or deny")
    return effect


def check_limit(limit: Limit) -> Limit:
    """Raises: PolicyInvalid."""
    if limit.actions:
        check_actions(limit.actions)
    if len(limit.repositories) > 32:
        raise PolicyInvalid("a token has at most 32 patterns of repositories")
    for glob in limit.repositories:
        check_repositories(glob)
    return limit


def check_immutable(repositories: str, tags: str) -> None:
    """Raises: PolicyInvalid."""
    check_repositories(repositories)
    check_tags(tags)
