"""JSON documents from strangers: parsed with limits, read field by field.

`parse_object` answers only with a document that every other JSON reader understands the same way:
UTF-8, no key twice, no NaN, bounded in size, depth, items and digits. `Fields` then reads members
with a type and collects everything found wrong, so that one error names all of it.
"""

from __future__ import annotations

import json
import re

from ocispec.errors import InvalidDocument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any, NoReturn

# Nested objects and arrays.  Image documents need 6; Python's own recursion ends near 1000, so
# that whoever walks a parsed document may recurse.
MAX_DEPTH = 64
# Members and elements.  4 MiB of `[],[],…` would otherwise become 100 MB of objects.
MAX_ITEMS = 500_000
# Digits of a number.  2**63 has 19; int() of a million digits takes seconds.
MAX_DIGITS = 40
# A string, ended or not: one that only matched when ended would be tried from every quote anew.
_STRING = rb'(?s)"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)'
# Problems listed in one error; a hostile document has one per byte.
MAX_PROBLEMS = 20


def parse_object(
    raw: bytes, *, limit: int, depth: int = MAX_DEPTH, what: str = "document"
) -> dict[str, Any]:
    """The JSON object in `raw`, which is at most `limit` bytes and nested at most `depth` deep.

    `what` names the document in messages. Integers stay exact and floats are finite.
    Raises: InvalidDocument, whatever the bytes are.
    Spec: RFC 8259; I-JSON (RFC 7493) for duplicate names and lone surrogates.
    """
    if len(raw) > limit:
        raise InvalidDocument(f"{what} has {len(raw)} bytes, the limit is {limit}")
    # The first count includes commas in texts: an overestimate at the speed of memchr, that is
    # nearly always small enough.
    if _items(raw) > MAX_ITEMS and _items(re.sub(_STRING, b"", raw)) > MAX_ITEMS:
        raise InvalidDocument(f"{what} has more than {MAX_ITEMS} items")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidDocument(f"{what} is not UTF-8 at byte {error.start}") from error
    try:
        document = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        raise InvalidDocument(
            f"{what} is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except RecursionError as error:
        raise InvalidDocument(f"{what} is nested deeper than {depth}") from error
    except InvalidDocument as error:
        raise InvalidDocument(f"{what}: {error}") from error
    if not isinstance(document, dict):
        raise InvalidDocument(f"{what} is not a JSON object")
    _check_tree(document, depth, escapes="\\u" in text, what=what)
    return document


def canonical(document: Mapping[str, Any]) -> bytes:
    """A document of ours as bytes: compact, members in the order given, no trailing newline."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


class Fields:
    """The members of one JSON object, read with a type.

    A member that is absent or null reads as its empty value. A member of the wrong type reads as
    its empty value too and adds a line to `problems`, which is shared with the objects nested in
    this one; call `check` when everything has been read.
    """

    __slots__ = ("members", "path", "problems")

    def __init__(
        self, members: Mapping[str, Any], path: str = "", problems: list[str] | None = None
    ) -> None:
        self.members = members
        self.path = path
        self.problems: list[str] = [] if problems is None else problems

    def check(self, what: str) -> None:
        """Raises: InvalidDocument listing the problems found so far, if there are any."""
        if self.problems:
            raise InvalidDocument(f"invalid {what}", problems=tuple(self.problems))

    def problem(self, name: str, message: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(f"{self._where(name)} {message}")

    def has(self, name: str) -> bool:
        """Whether the member is there, null or not."""
        return name in self.members

    def refuse_lookalikes(self, names: Iterable[str]) -> None:
        """Refuse members that differ from one of `names` only by case.

        Go's JSON reader takes `Layers` for `layers`: such a document means two things.
        """
        folded = {name.casefold(): name for name in names}
        for name in self.members:
            meant = folded.get(name.casefold(), name)
            if meant != name:
                self.problem(name, f"could be read as {meant!r}")

    def text(self, name: str, *, required: bool = False) -> str:
        item = self._member(name, str, "a text", required)
        return "" if item is None else self._clean(name, item)

    def integer(
        self, name: str, *, minimum: int = 0, maximum: int = 2**63 - 1, required: bool = False
    ) -> int:
        item = self._member(name, int, "a whole number", required)
        if item is None:
            return 0
        if not minimum <= item <= maximum:
            self.problem(name, f"is {item}, not between {minimum} and {maximum}")
            return 0
        return int(item)

    def boolean(self, name: str) -> bool:
        return bool(self._member(name, bool, "true or false"))

    def texts(self, name: str) -> tuple[str, ...]:
        return self.optional_texts(name) or ()

    def optional_texts(self, name: str) -> tuple[str, ...] | None:
        """A list of texts; None if the member is absent or null."""
        items = self._member(name, list, "a list of texts")
        if items is None:
            return None
        return tuple(
            self._clean(f"{name}[{i}]", item)
            for i, item in enumerate(items)
            if self._is_text(f"{name}[{i}]", item)
        )

    def text_map(self, name: str) -> dict[str, str]:
        """An object whose members are all texts, such as annotations and labels."""
        items = self._member(name, dict, "an object of texts") or {}
        return {
            self._clean(name, key): self._clean(f"{name}.{key}", item)
            for key, item in items.items()
            if self._is_text(f"{name}.{key}", item)
        }

    def keys(self, name: str) -> tuple[str, ...]:
        """The names in an object that is used as a set, such as `ExposedPorts`."""
        items = self._member(name, dict, "an object") or {}
        return tuple(self._clean(name, key) for key in items)

    def child(self, name: str, *, required: bool = False) -> Fields | None:
        item = self._member(name, dict, "an object", required)
        return None if item is None else Fields(item, self._where(name), self.problems)

    def children(self, name: str) -> tuple[Fields, ...]:
        """A list of objects; one that is not an object is a problem and is left out."""
        items = self._member(name, list, "a list of objects") or ()
        found = []
        for i, item in enumerate(items):
            if isinstance(item, dict):
                found.append(Fields(item, self._where(f"{name}[{i}]"), self.problems))
            else:
                self.problem(f"{name}[{i}]", "is not an object")
        return tuple(found)

    def _where(self, name: str) -> str:
        shown = name if len(name) <= 80 else name[:80] + "…"
        shown = shown if shown.isascii() and shown.isprintable() else ascii(shown)
        return f"{self.path}.{shown}" if self.path else shown

    def _member(self, name: str, kind: type, said: str, required: bool = False) -> Any:
        item = self.members.get(name)
        if item is None:
            if required:
                self.problem(name, "is missing")
            return None
        if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
            self.problem(name, f"is not {said}")
            return None
        return item

    def _is_text(self, name: str, item: object) -> bool:
        if isinstance(item, str):
            return True
        self.problem(name, "is not a text")
        return False

    def _clean(self, name: str, item: str) -> str:
        # No argument, environment, path, header or SQL text can carry a NUL.
        if "\0" in item:
            self.problem(name, "contains a NUL character")
            return ""
        return item


def _items(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"[") + raw.count(b"{")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InvalidDocument(f"the name {name[:80]!a} occurs twice in one object")
            seen.add(name)
    return members


def _constant(name: str) -> NoReturn:
    raise InvalidDocument(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise InvalidDocument(f"a number has more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits) if len(digits) <= MAX_DIGITS else float("inf")
    if number - number != 0:  # infinite
        raise InvalidDocument(f"the number {digits[:MAX_DIGITS]} is too large or too long")
    return number


def _check_tree(document: dict[str, Any], depth: int, *, escapes: bool, what: str) -> None:
    """Bound the nesting, and refuse lone surrogates, which only `\\ud800` escapes can make."""
    level: list[Any] = [document]
    for _ in range(depth):
        below: list[Any] = []
        for item in level:
            inside = item.values() if isinstance(item, dict) else item
            if escapes:
                texts = [child for child in inside if isinstance(child, str)]
                texts += item if isinstance(item, dict) else ()
                for text in texts:
                    if not _is_encodable(text):
                        raise InvalidDocument(f"{what} has half of a surrogate pair in a text")
            below += [child for child in inside if isinstance(child, dict | list)]
        if not below:
            return
        level = below
    raise InvalidDocument(f"{what} is nested deeper than {depth}")


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
