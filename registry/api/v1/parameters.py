"""The parameters that paths of the administration API may have, each with its grammar."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ocispec import grammar

ACCOUNT_NAME = r"[a-z0-9](?:[a-z0-9._@+-]{0,62}[a-z0-9])?"
_ID = r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,62}[A-Za-z0-9])?"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One kind of thing a path can name."""

    name: str
    #: The whole of it.
    pattern: str
    maximum: int
    description: str
    #: Whether it may hold slashes.
    slashes: bool = False

    @property
    def group(self) -> str:
        """Its place in the expression of a path; what stands there is checked by `problem`."""
        return f"(?P<{self.name}>{'[^_/][^/]*(?:/[^_/][^/]*)*' if self.slashes else '[^/]+'})"

    def problem(self, text: str) -> str:
        """Why this cannot be; empty if it can."""
        if len(text) > self.maximum:
            return f"{self.name} has {len(text)} characters, the limit is {self.maximum}"
        if re.fullmatch(self.pattern, text) is None:
            return f"{text[:80]!a} cannot be a {self.name}: {self.description}"
        return ""


_ALL = (
    Parameter(
        "repository",
        grammar.NAME,
        grammar.NAME_MAX,
        "a repository's name, its slashes as they are or as %2F",
        slashes=True,
    ),
    Parameter("account", ACCOUNT_NAME, 64, "the name of a user or robot"),
    Parameter("user", ACCOUNT_NAME, 64, "the name of a user"),
    Parameter("robot", ACCOUNT_NAME, 64, "the name of a robot account"),
    Parameter("group", ACCOUNT_NAME, 64, "the name of a group"),
    Parameter("member", ACCOUNT_NAME, 64, "the name of a user or robot in a group"),
    Parameter("namespace", grammar.NAME, grammar.NAME_MAX, "the first parts of names", True),
    Parameter("tag", grammar.TAG, 128, "a tag"),
    Parameter("digest", r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})", 135, "a digest"),
    Parameter("session", r"[0-9a-f]{20}", 20, "a session's id, as listings show it"),
    Parameter("id", _ID, 64, "an id, as listings show it"),
    Parameter("number", r"[1-9][0-9]{0,14}", 15, "a number, as listings show it"),
    Parameter("name", r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", 64, "a name"),
)

PARAMETERS = {parameter.name: parameter for parameter in _ALL}
