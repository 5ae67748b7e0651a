"""Scopes: what a token allows, as challenges, token requests and tokens write it.

    scopes ::= scope *( " " scope )
    scope  ::= type [ "(" class ")" ] ":" name ":" [ action *( "," action ) ]

A name may itself contain `:` (`repository:host:5000/a/b:pull`), so the type is read from the left
and the actions from the right. Spec: distribution's "Docker Registry Token Scope and Access".
"""

from __future__ import annotations

import re

from ocispec.errors import InvalidScope
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = "repository"
PULL = "pull"
PUSH = "push"
DELETE = "delete"
ANY = "*"

# A push with many mounts asks for one scope per source.
MAX_SCOPES = 100
MAX_SCOPE_CHARACTERS = 1024

_TYPE = r"([a-z0-9]{1,64})(?:\([a-z0-9]{1,64}\))?"
_NAME = r"[!-~]+"
_ACTION = r"\*|[a-z][a-z0-9_-]{0,31}"
# The order in which every client writes them; others follow by name.
_ORDER = (PULL, PUSH, DELETE, ANY)


@value
class Scope:
    """Actions on one resource.

    type: `repository` or `registry`; a class, as in `repository(plugin)`, is dropped by `parse`.
    name: the repository, or `catalog`.
    actions: such as `pull`, `push`, `delete`, `*`; may be empty. Any iterable is taken.

    The constructor checks like `parse`.
    """

    type: str
    name: str
    actions: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "actions", frozenset(self.actions))
        well_formed = (
            re.fullmatch(r"[a-z0-9]{1,64}", self.type)
            and re.fullmatch(_NAME, self.name)
            and len(self.name) <= MAX_SCOPE_CHARACTERS
            and all(re.fullmatch(_ACTION, action) for action in self.actions)
        )
        if not well_formed:
            raise InvalidScope(
                f"{str(self)[:100]!a} is not a scope", hint="write type:name:action,action"
            )

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read one scope. Raises: InvalidScope"""
        kind, _, rest = text.partition(":")
        name, colon, actions = rest.rpartition(":")
        match = re.fullmatch(_TYPE, kind)
        if not colon or match is None or len(text) > MAX_SCOPE_CHARACTERS:
            raise InvalidScope(
                f"{text[:100]!a} is not a scope", hint="write type:name:action,action"
            )
        return cls(match[1], name, frozenset(actions.split(",")) if actions else frozenset())

    def allows(self, action: str) -> bool:
        """Whether the action is among these, `*` standing for every one."""
        return action in self.actions or ANY in self.actions

    def __str__(self) -> str:
        actions = sorted(self.actions, key=lambda a: (_ORDER.index(a) if a in _ORDER else 9, a))
        return f"{self.type}:{self.name}:{','.join(actions)}"


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Read scopes separated by spaces; those of one resource become one. Order is kept.

    Raises: InvalidScope if one is wrong or there are more than MAX_SCOPES.
    """
    if len(text) > MAX_SCOPES * MAX_SCOPE_CHARACTERS:
        raise InvalidScope("the list of scopes is too long")
    parts = text.split()
    if len(parts) > MAX_SCOPES:
        raise InvalidScope(f"there are more than {MAX_SCOPES} scopes")
    return merge(Scope.parse(part) for part in parts)


def format_scopes(scopes: Iterable[Scope]) -> str:
    """The text that `parse_scopes` reads."""
    return " ".join(str(scope) for scope in scopes)


def merge(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """The same permissions with one scope for each resource, in the order of first mention."""
    merged: dict[tuple[str, str], frozenset[str]] = {}
    for scope in scopes:
        resource = (scope.type, scope.name)
        merged[resource] = merged.get(resource, frozenset()) | scope.actions
    return tuple(Scope(kind, name, actions) for (kind, name), actions in merged.items())


def intersect(requested: Iterable[Scope], granted: Iterable[Scope]) -> tuple[Scope, ...]:
    """What is both asked for and allowed, in the order asked; a resource without any is left out.

    `*` on either side stands for every action.
    """
    allowed = {(scope.type, scope.name): scope for scope in merge(granted)}
    result = []
    for scope in merge(requested):
        grant = allowed.get((scope.type, scope.name))
        if grant is None:
            continue
        actions = {action for action in scope.actions if grant.allows(action)}
        actions |= {action for action in grant.actions if scope.allows(action)}
        if actions:
            result.append(Scope(scope.type, scope.name, frozenset(actions)))
    return tuple(result)
