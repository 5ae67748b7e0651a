"""Settings from where an operator wrote them: a TOML file, variables, the command line.

Each source is a *layer*; a later layer wins. A secret may be given as the name of a file that holds
it: `<setting>_file`. All problems are found at once, each with its place.
"""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from registry.errors import InvalidSettings
from registry.settings import SECRETS, Settings, broken_rules, ranges

# A secret is a password, a key or a URL.
MAX_SECRET = 64 << 10
MAX_FILE = 1 << 20

TABLE = "registry"


@dataclass(frozen=True, slots=True)
class Layer:
    """Values from one source, raw; text is converted where a number or a list is wanted."""

    #: Setting → value.
    values: Mapping[str, Any]
    #: Where they were found: a file, or empty if each has a place of its own.
    place: str = ""
    #: Setting → where exactly, such as "PYREG_PORT" or "pyreg.toml:12".
    places: Mapping[str, str] = field(default_factory=dict)

    def place_of(self, key: str) -> str:
        return self.places.get(key, self.place)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that stops the start."""

    #: The setting, or empty if it is none.
    key: str
    #: Where it was given; empty for a default.
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.message} ({self.place})" if self.place else self.message


@dataclass(frozen=True, slots=True)
class Effective:
    """What the layers come to."""

    #: None if there are problems.
    settings: Settings | None
    #: Setting → its place, "default" if nobody gave it.
    sources: Mapping[str, str]
    problems: tuple[Problem, ...]


def load_settings(
    file: Path | None,
    overrides: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """Settings from the [registry] table of a TOML file, if any, between defaults and overrides.

    Other tables and keys of the file belong to others.
    Raises: InvalidSettings for a missing or broken file, an unknown key or a wrong value.
    """
    layers = [Layer(defaults)]
    if file is not None:
        layers.append(read_layer(file))
    return settings_of([*layers, Layer(overrides)])


def settings_of(layers: Sequence[Layer]) -> Settings:
    """Raises: InvalidSettings, naming every problem."""
    found = merge(layers)
    if found.settings is None:
        raise InvalidSettings(
            "; ".join(map(str, found.problems)),
            hint="see all settings with: pyreg config schema",
        )
    return found.settings


def read_layer(file: Path) -> Layer:
    """The [registry] table of a TOML file. Raises: InvalidSettings if it cannot be read."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_FILE).decode()
        table = tomllib.loads(text).get(TABLE, {})
    except OSError as error:
        raise InvalidSettings(
            f"cannot read the configuration {file}: {error.strerror}",
            hint="name an existing TOML file with --config",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{file} is not valid TOML: {error}") from error
    if not isinstance(table, dict):
        raise InvalidSettings(f"'registry' in {file} must be a table", hint="write [registry]")
    places = {key: f"{file}:{line}" for key in table if (line := line_of(text, TABLE, key))}
    return Layer(table, str(file), places)


def merge(layers: Sequence[Layer]) -> Effective:
    """Put layers on top of each other and check everything."""
    known = {each.name: each.default for each in fields(Settings)}
    problems: list[Problem] = []
    values: dict[str, Any] = {}
    sources = dict.fromkeys(known, "default")
    for layer in layers:
        for key, raw in layer.values.items():
            place = layer.place_of(key)
            name = key
            if key not in known and key.removesuffix("_file") in SECRETS:
                name = key.removesuffix("_file")
                if name in layer.values:
                    message = f"settings {name!r} and {key!r} are both given; one must go"
                    problems.append(Problem(name, place, message))
                    continue
                try:
                    raw = read_secret(raw)
                except ValueError as error:
                    problems.append(Problem(name, place, f"setting {key!r} {error}"))
                    continue
            if name not in known:
                problems.append(Problem(key, place, f"unknown setting {key!r}{_similar(key)}"))
                continue
            try:
                values[name] = convert(raw, known[name], secret=name in SECRETS)
            except ValueError as error:
                problems.append(Problem(name, place, f"setting {name!r} {error}"))
                continue
            sources[name] = place or "default"
    wrong = {problem.key for problem in problems}
    for message in broken_rules(_unchecked({**known, **values})):
        named = re.findall(r"setting '(\w+)'", message)
        if not wrong.intersection(named):
            key = named[0] if named else ""
            source = sources.get(key, "")
            problems.append(Problem(key, "" if source == "default" else source, message))
    return Effective(None if problems else Settings(**values), sources, tuple(problems))


def read_secret(name: object) -> str:
    """What a file holds, without the end of its last line. Raises: ValueError."""
    if not isinstance(name, str) or not name:
        raise ValueError("must name a file")
    try:
        with open(name, "rb") as file:
            raw = file.read(MAX_SECRET + 1)
        if len(raw) > MAX_SECRET:
            raise ValueError(f"names {name}, which is too large for a secret")
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"names {name}, which is not text") from None
    except OSError as error:
        raise ValueError(f"names {name}: {error.strerror}") from None
    return text.removesuffix("\n").removesuffix("\r")


def convert(value: Any, default: Any, *, secret: bool = False) -> Any:
    """A raw value as the type that the default has. Raises: ValueError, which says what it must be.

    A secret is not repeated in the message.
    """
    shown = "that" if secret else f"{value!r}"
    if isinstance(default, bool):
        if isinstance(value, str) and value.lower() in ("true", "1", "yes", "on"):
            return True
        if isinstance(value, str) and value.lower() in ("false", "0", "no", "off"):
            return False
        if isinstance(value, bool):
            return value
        raise ValueError(f"must be true or false, not {shown}")
    if isinstance(default, int):
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ValueError(f"must be a whole number, not {shown}")
    if isinstance(default, tuple):
        items = value.replace(",", " ").split() if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(items)
        raise ValueError(f"must be a list of texts, not {shown}")
    if isinstance(value, str):
        return value
    raise ValueError(f"must be text, not {shown}")


def line_of(text: str, table: str, key: str) -> int:
    """The line, from 1, on which a table of a TOML text gives this key; 0 if it is not plain."""
    inside = not table
    wanted = re.compile(rf"""\s*(["']?){re.escape(key)}\1\s*[=.]""")
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[+\s*([^\]]*?)\s*\]", line)
        if header:
            inside = header[1].strip("\"'") == table
        elif inside and wanted.match(line):
            return number
    return 0


def descriptions() -> dict[str, str]:
    """What the docstring of `Settings` says of each setting, as one line."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(Settings.__doc__ or "").splitlines():
        start = re.match(r"([a-z0-9_]+(?:, [a-z0-9_]+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif names and line.startswith(" "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return found


def schema() -> dict[str, Any]:
    """The [registry] table as JSON Schema (2020-12): types, defaults, limits, descriptions.

    `x-pyreg-secret` marks what is hidden when settings are shown; its value may also be given as
    `<name>_file`. `x-pyreg-variable` is the environment variable that overrides the file.
    """
    said, limits = descriptions(), ranges()
    properties: dict[str, Any] = {}
    for each in fields(Settings):
        name, default = each.name, each.default
        entry: dict[str, Any] = {"description": said.get(name, "")}
        if isinstance(default, bool):
            entry |= {"type": "boolean", "default": default}
        elif isinstance(default, int):
            entry |= {"type": "integer", "default": default}
            if name in limits:
                entry |= {"minimum": limits[name].minimum, "maximum": limits[name].maximum}
        elif isinstance(default, tuple):
            entry |= {"type": "array", "items": {"type": "string"}, "default": list(default)}
        else:
            entry |= {"type": "string", "default": default}
        entry["x-pyreg-variable"] = f"PYREG_{name.upper()}"
        if name in SECRETS:
            entry |= {"x-pyreg-secret": True, "writeOnly": True}
            properties[f"{name}_file"] = {
                "type": "string",
                "description": f"A file that holds the setting {name}.",
                "x-pyreg-variable": f"PYREG_{name.upper()}_FILE",
            }
        properties[name] = entry
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _unchecked(values: Mapping[str, Any]) -> Settings:
    """Settings whose rules were not asked, to ask them of values of which some are defaults."""
    settings = object.__new__(Settings)
    for name, value in values.items():
        object.__setattr__(settings, name, value)
    return settings


def _similar(key: str) -> str:
    names = [each.name for each in fields(Settings)]
    close = difflib.get_close_matches(key, names, 1)
    return f", did you mean {close[0]!r}?" if close else ""
