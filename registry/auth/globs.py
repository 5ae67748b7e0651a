"""Patterns of repository names and of tags.

    ?     one character of a path component
    *     any number of them: `team*` is `team1`, never `team/app`
    **    any number of components, as a component of its own: `team/**` is everything below
          `team`, not `team` itself; `**/app` is `app` and `team/app`; `**` is everything

Compiled so that no pattern takes long: a `*` never gives back what it took before a literal that
was found, so a match costs at most the product of the two lengths.
"""

from __future__ import annotations

import re
from functools import lru_cache

from registry.errors import PolicyInvalid

MAX_GLOB = 255

_REPOSITORIES = re.compile(r"[a-z0-9._/?*:-]+")
_TAGS = re.compile(r"[A-Za-z0-9._?*-]+")


def check_repositories(glob: str) -> str:
    """The pattern itself, of repository names. Raises: PolicyInvalid."""
    parts = glob.split("/")
    if (
        len(glob) > MAX_GLOB
        or _REPOSITORIES.fullmatch(glob) is None
        or any(not part or ("**" in part and part != "**") for part in parts)
    ):
        raise PolicyInvalid(
            f"the pattern {glob[:80]!r} matches no repositories",
            hint="for example team/* for one level, team/** for all below, ** for everything",
        )
    return glob


def check_tags(glob: str) -> str:
    """The pattern itself, of tags. Raises: PolicyInvalid."""
    if len(glob) > MAX_GLOB or _TAGS.fullmatch(glob) is None:
        raise PolicyInvalid(
            f"the pattern {glob[:80]!r} matches no tags", hint="for example v* or release-?"
        )
    return glob


@lru_cache(maxsize=4096)
def compiled(glob: str) -> re.Pattern[str]:
    """To be asked with `fullmatch`."""
    return re.compile(pattern(glob))


def matches(glob: str, text: str) -> bool:
    return compiled(glob).fullmatch(text) is not None


def pattern(glob: str) -> str:
    """The regular expression of a checked pattern; it matches whole texts."""
    parts = glob.split("/")
    tail = parts[-1] == "**"
    runs: list[list[str]] = [[]]
    for part in parts[:-1] if tail else parts:
        if part == "**":
            runs.append([])
        else:
            runs[-1].append(_component(part))
    # The first run is anchored; each further one is looked for, the leftmost being as good as any.
    first, *others = [run for place, run in enumerate(runs) if run or not place]
    words = "".join(f"{each}/" for each in first)
    if tail:
        sought, end = others, "[^/]+(?:/[^/]+)*"
    elif others:
        sought, end = others[:-1], "(?:[^/]+/)*?" + "/".join(others[-1])
    else:
        return words[:-1]
    for run in sought:
        words += "(?>(?:[^/]+/)*?" + "".join(f"{each}/" for each in run) + ")"
    return words + end


def _component(part: str) -> str:
    pieces = [_literal(piece) for piece in re.sub(r"\*+", "*", part).split("*")]
    if len(pieces) == 1:
        return pieces[0]
    middle = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1])
    return f"{pieces[0]}{middle}[^/]*{pieces[-1]}(?![^/])"


def _literal(piece: str) -> str:
    return "".join("[^/]" if character == "?" else re.escape(character) for character in piece)
