"""Which tags retention rules let go. Pure: no clock, no database.

A rule governs the tags that its globs match and says what of them to keep: the newest N, those
younger than so long, those pulled within so long. A tag goes if a rule governs it and no rule that
governs it keeps it. What counts as its age is the newest of pushed, moved and pulled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True)
class Rule:
    """Times in seconds; 0 keeps nothing by that measure, and at least one keeps something."""

    repositories: str
    tags: tuple[str, ...] = ("*",)
    keep_last: int = 0
    younger_s: int = 0
    pulled_s: int = 0

    def governs(self, repository: str, tag: str) -> bool:
        return fnmatchcase(repository, self.repositories) and any(
            fnmatchcase(tag, glob) for glob in self.tags
        )


@dataclass(frozen=True, slots=True)
class TagState:
    """When a tag was moved last, and its manifest pushed and pulled; 0 is never."""

    name: str
    moved_at: int
    pushed_at: int
    pulled_at: int

    @property
    def newest(self) -> int:
        return max(self.moved_at, self.pushed_at, self.pulled_at)


def to_go(
    rules: Iterable[Rule], repository: str, tags: Sequence[TagState], now: int
) -> tuple[str, ...]:
    """Names of the tags that the rules let go, in order."""
    governed: set[str] = set()
    kept: set[str] = set()
    for rule in rules:
        mine = [tag for tag in tags if rule.governs(repository, tag.name)]
        governed.update(tag.name for tag in mine)
        newest = sorted(mine, key=lambda tag: (-tag.newest, tag.name))
        kept.update(tag.name for tag in newest[: rule.keep_last])
        kept.update(tag.name for tag in mine if tag.newest > now - rule.younger_s)
        kept.update(
            tag.name for tag in mine if tag.pulled_at and tag.pulled_at > now - rule.pulled_s
        )
    return tuple(sorted(governed - kept))


def name_of(rules: Iterable[Rule]) -> str:
    """A name for exactly these rules: what a preview was made of, and what may run."""
    document = sorted(json.dumps(asdict(rule), sort_keys=True) for rule in rules)
    return hashlib.sha256("\n".join(document).encode()).hexdigest()[:16]
