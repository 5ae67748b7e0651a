"""Frozen dataclasses as JSON: read with bounds, written, and described as JSON Schema.

One description serves all three, so that what the document says is what the server does. A field is
`str`, `int`, `bool`, `X | None`, `Literal[...]`, `tuple[X, ...]`, `dict[str, str]`, another such
dataclass, or one of these with its bounds: `Annotated[str, Text(maximum=64)]`. A field without a
default must be given. Unknown fields are refused by name.
"""

from __future__ import annotations

import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

# NUL is in no text: PostgreSQL has none.
NO_NUL = r"^[^\x00]*$"
MAX_WHOLE = 2**53 - 1  # what every JSON reader keeps exactly (RFC 7493)


@dataclass(frozen=True, slots=True)
class Text:
    """Bounds of a text, in characters. `pattern` is matched against the whole text."""

    minimum: int = 0
    maximum: int = 1024
    pattern: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Whole:
    """Bounds of a whole number, both included."""

    minimum: int = 0
    maximum: int = MAX_WHOLE
    description: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """Bounds of a list or of a map's members."""

    minimum: int = 0
    maximum: int = 1000
    description: str = ""


# Who has which name among the OpenAPI document's components.
_named: dict[str, type] = {}


class NotInShape(Exception):
    """`problems` are lines of what and where."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read(kind: type[T], value: object) -> T:
    """`value`, parsed JSON, as the dataclass `kind`. Raises: NotInShape."""
    problems: list[str] = []
    found = _read_fields(kind, value, "", problems)
    if problems:
        raise NotInShape(tuple(problems[:20]))
    assert isinstance(found, kind)
    return found


def read_texts(kind: type[T], given: Mapping[str, str]) -> T:
    """A query's parameters as the dataclass `kind`, whose fields are simple. Raises: NotInShape."""
    typed: dict[str, object] = {}
    plain: type = kind
    for name, annotation in _hints(plain).items():
        if name in given:
            typed[name] = _from_text(_plain(annotation), given[name])
    return read(kind, {**given, **typed})


def write(value: object) -> Any:
    """A dataclass, or whatever its fields may be, as what json.dumps takes."""
    if is_dataclass(value):
        return {field.name: write(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [write(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): write(item) for key, item in value.items()}
    return value


def schema(annotation: Any, components: dict[str, Any], *, closed: bool) -> dict[str, Any]:
    """The JSON Schema of a type; dataclasses go to `components` by name.

    closed: whether further members are refused; answers may grow, requests may not.
    """
    base, bounds = _bounded(annotation)
    described = {"description": bounds.description} if bounds and bounds.description else {}
    if is_dataclass(base):
        assert isinstance(base, type)
        name = base.__name__
        if _named.setdefault(name, base) is not base:  # two nouns may use one word
            name = base.__module__.rpartition(".")[2].title() + name
        if name not in components:
            components[name] = {}
            components[name] = object_schema(base, components, closed)
        return {"$ref": f"#/components/schemas/{name}"}
    inner = _optional(base)
    if inner is not None:
        return {"anyOf": [schema(inner, components, closed=closed), {"type": "null"}], **described}
    origin = get_origin(base)
    if origin is Literal:
        return {"type": "string", "enum": list(get_args(base)), **described}
    if origin is tuple or origin is dict:
        limits = bounds if isinstance(bounds, Items) else Items()
        if origin is dict:
            return {
                "type": "object",
                "additionalProperties": {"type": "string", "maxLength": 4096, "pattern": NO_NUL},
                "propertyNames": {"maxLength": 255, "pattern": NO_NUL},
                "maxProperties": limits.maximum,
                **described,
            }
        item = schema(get_args(base)[0], components, closed=closed)
        found = {"type": "array", "items": item, "maxItems": limits.maximum, **described}
        return {**found, "minItems": limits.minimum} if limits.minimum else found
    if base is bool:
        return {"type": "boolean", **described}
    if base is int:
        whole = bounds if isinstance(bounds, Whole) else Whole()
        return {
            "type": "integer",
            "minimum": whole.minimum,
            "maximum": whole.maximum,
            **described,
        }
    assert base is str, f"no JSON for {annotation}"
    text = bounds if isinstance(bounds, Text) else Text()
    pattern = f"^(?:{text.pattern})$" if text.pattern else NO_NUL
    return {
        "type": "string",
        "minLength": text.minimum,
        "maxLength": text.maximum,
        "pattern": pattern,
        **described,
    }


def object_schema(kind: type, components: dict[str, Any], closed: bool) -> dict[str, Any]:
    """Of a dataclass, in place."""
    hints = _hints(kind)
    document: dict[str, Any] = {
        "type": "object",
        "properties": {
            name: schema(hint, components, closed=closed) for name, hint in hints.items()
        },
    }
    required = [field.name for field in fields(kind) if _is_required(field)]
    if required:
        document["required"] = required
    if closed:
        document["additionalProperties"] = False
    if kind.__doc__ and not kind.__doc__.startswith(f"{kind.__name__}("):
        document["description"] = " ".join(kind.__doc__.split())
    return document


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _is_required(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _bounded(annotation: Any) -> tuple[Any, Text | Whole | Items | None]:
    if get_origin(annotation) is Annotated:
        base, *more = get_args(annotation)
        for bounds in more:
            if isinstance(bounds, Text | Whole | Items):
                return base, bounds
        return base, None
    return annotation, None


def _optional(annotation: Any) -> Any:
    """X of `X | None`; None for everything else."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        assert len(inner) == 1, f"only X | None is read, not {annotation}"
        return inner[0]
    return None


def _plain(annotation: Any) -> Any:
    base, _ = _bounded(annotation)
    inner = _optional(base)
    return base if inner is None else _plain(inner)


def _from_text(base: Any, text: str) -> object:
    if base is bool and text in ("true", "false"):
        return text == "true"
    # int() of a huge text would be slow; no bound has more than 16 digits.
    if base is int and re.fullmatch(r"-?[0-9]{1,17}", text):
        return int(text)
    return text


def _read(annotation: Any, value: object, where: str, problems: list[str]) -> Any:
    base, bounds = _bounded(annotation)
    if is_dataclass(base):
        assert isinstance(base, type)
        return _read_fields(base, value, where, problems)
    inner = _optional(base)
    if inner is not None:
        return None if value is None else _read(inner, value, where, problems)
    origin = get_origin(base)
    if origin is Literal:
        if value not in get_args(base) or not isinstance(value, str):
            problems.append(f"{where} must be one of {', '.join(get_args(base))}")
        return value
    if origin is tuple:
        return _read_items(base, bounds, value, where, problems)
    if origin is dict:
        return _read_map(bounds, value, where, problems)
    if base is bool:
        if not isinstance(value, bool):
            problems.append(f"{where} must be true or false")
        return value
    if base is int:
        return _read_whole(bounds, value, where, problems)
    return _read_text(bounds, value, where, problems)


def _read_fields(kind: type, value: object, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where or 'the document'} must be an object")
        return None
    hints = _hints(kind)
    before = len(problems)
    for name in value:
        if name not in hints:
            known = ", ".join(hints) or "none"
            problems.append(
                f"{ascii(_join(where, str(name)[:80]))[1:-1]} is not known; known are {known}"
            )
    found: dict[str, Any] = {}
    for field in fields(kind):
        place = _join(where, field.name)
        if field.name in value:
            found[field.name] = _read(hints[field.name], value[field.name], place, problems)
        elif _is_required(field):
            problems.append(f"{place} is missing")
    return None if len(problems) > before else kind(**found)


def _read_items(
    base: Any, bounds: object, value: object, where: str, problems: list[str]
) -> tuple[Any, ...]:
    limits = bounds if isinstance(bounds, Items) else Items()
    if not isinstance(value, list):
        problems.append(f"{where} must be a list")
        return ()
    if not limits.minimum <= len(value) <= limits.maximum:
        problems.append(f"{where} must have {limits.minimum} to {limits.maximum} items")
        return ()
    item = get_args(base)[0]
    return tuple(_read(item, each, f"{where}[{at}]", problems) for at, each in enumerate(value))


def _read_map(bounds: object, value: object, where: str, problems: list[str]) -> dict[str, str]:
    limits = bounds if isinstance(bounds, Items) else Items()
    if not isinstance(value, dict) or not all(
        isinstance(text, str)
        and len(name) <= 255
        and len(text) <= 4096
        and "\0" not in name
        and "\0" not in text
        for name, text in value.items()
    ):
        problems.append(f"{where} must be an object of texts")
        return {}
    if len(value) > limits.maximum:
        problems.append(f"{where} must have at most {limits.maximum} members")
    return dict(value)


def _read_whole(bounds: object, value: object, where: str, problems: list[str]) -> object:
    limits = bounds if isinstance(bounds, Whole) else Whole()
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON has one kind of number: 1.0 is 1
    if not isinstance(value, int) or isinstance(value, bool):
        problems.append(f"{where} must be a whole number")
    elif not limits.minimum <= value <= limits.maximum:
        problems.append(f"{where} must be from {limits.minimum} to {limits.maximum}")
    return value


def _read_text(bounds: object, value: object, where: str, problems: list[str]) -> object:
    limits = bounds if isinstance(bounds, Text) else Text()
    if not isinstance(value, str):
        problems.append(f"{where} must be a text")
    elif not limits.minimum <= len(value) <= limits.maximum:
        problems.append(f"{where} must have {limits.minimum} to {limits.maximum} characters")
    elif "\0" in value or (limits.pattern and re.fullmatch(limits.pattern, value) is None):
        problems.append(f"{where} is not possible: {value[:80]!a}")
    return value


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
