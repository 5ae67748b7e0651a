"""What people type into a search: words and `kind:value` filters, all of which must fit.

    nginx 1.27                  words: parts of a name or description
    tag:1.*                     a tag; `*` stands for anything
    label:key=value  label:key  of an image's configuration
    annotation:key=value        of a manifest or index
    platform:linux/arm64        or `platform:linux`
    base:debian                 org.opencontainers.image.base.name or its digest
    type:application/spdx+json  artifact type, or media type of the configuration

Quotes keep spaces: `label:"maintainer=A B"`; one that is not closed ends with the text. A filter
without a value takes any. Anything else with a colon is a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import RegistryError

TAG = "tag"
LABEL = "label"
ANNOTATION = "annotation"
PLATFORM = "platform"
BASE = "base"
TYPE = "type"
KINDS = (TAG, LABEL, ANNOTATION, PLATFORM, BASE, TYPE)

MAX_QUERY = 1024
MAX_PARTS = 16
MAX_WILDCARDS = 4

_PART = re.compile(r'\s*((?:[^\s"]|"[^"]*")+)')


class BadQuery(RegistryError):
    """A search that cannot be read."""


@dataclass(frozen=True, slots=True)
class Filter:
    kind: str
    #: `*` stands for anything, any number of times.
    pattern: str

    @property
    def prefix(self) -> str:
        """What every value that fits begins with."""
        return self.pattern.partition("*")[0]

    @property
    def is_exact(self) -> bool:
        return "*" not in self.pattern


@dataclass(frozen=True, slots=True)
class Query:
    #: In lower case.
    words: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()


def parse_query(text: str) -> Query:
    """Raises: BadQuery with what is wrong."""
    if len(text) > MAX_QUERY:
        raise BadQuery(f"a search has at most {MAX_QUERY} characters")
    if any((ord(c) < 32 and c not in "\t\n\r") or 0x7F <= ord(c) < 0xA0 for c in text):
        raise BadQuery("a search has no control characters")
    if any(0xD800 <= ord(c) < 0xE000 for c in text):
        raise BadQuery("a search is text in UTF-8")
    if text.count('"') % 2:
        text += '"'
    words: list[str] = []
    filters: list[Filter] = []
    for match in _PART.finditer(text):
        part = match[1].replace('"', "")
        kind, colon, value = part.partition(":")
        if colon and kind in KINDS:
            filters.append(_filter(kind, value or "*"))
        elif part:
            words.append(part.lower())
    if len(words) + len(filters) > MAX_PARTS:
        raise BadQuery(f"a search has at most {MAX_PARTS} words and filters")
    return Query(tuple(words), tuple(filters))


def _filter(kind: str, value: str) -> Filter:
    value = re.sub(r"\*+", "*", value)
    if kind in (LABEL, ANNOTATION) and "=" not in value:
        value = value if value.endswith("*") else value + "=*"
    if kind == PLATFORM:
        value = value.lower()
        if value.count("/") == 0 and not value.endswith("*"):
            value += "/*"
    if value.count("*") > MAX_WILDCARDS:
        raise BadQuery(f"{kind}: has more than {MAX_WILDCARDS} wildcards")
    return Filter(kind, value)
