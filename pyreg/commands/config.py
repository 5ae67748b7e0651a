"""`pyreg config`: what is wrong with the configuration, what can be set, and what holds."""

from __future__ import annotations

from pyreg.cli import TEXT, Command, Flag
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.configuration import Effective, Layer, Problem
    from registry.settings import Settings

_FORMAT = Flag("format", "", TEXT, "Output: text or json", default="text")

CHECK = Command(
    name="config check",
    usage="[OPTIONS] [FILE]",
    summary="Say everything that is wrong with the configuration; fails if anything is",
    flags=(_FORMAT, *WHERE),
    maximum=1,
    details=(
        "Checks the file, the PYREG_* variables and, without starting anything, what they name:\n"
        "certificate and key, the data directory, the database's address."
    ),
)
SCHEMA = Command(
    name="config schema",
    usage="",
    summary="Print the JSON Schema of pyreg.toml: every setting with its type, default and limits",
)
SHOW = Command(
    name="config show",
    usage="[OPTIONS]",
    summary="Print the registry's settings in effect and where each comes from",
    flags=(_FORMAT, *WHERE),
)

HIDDEN = "(hidden)"


def check(options: Options, context: Context) -> int:
    """Print the problems."""
    from registry.configuration import merge

    file = options.arguments[0] if options.arguments else ""
    is_json = _is_json(options)
    named = file or options.text("config") or context.environment.config_file
    problems = _client_problems(named)
    layers = _layers(options, context, file, problems)
    if layers is not None:
        effective = merge(layers)
        problems += effective.problems
        if effective.settings is not None:
            problems += _surroundings_problems(effective.settings, effective.sources)
    if is_json:
        found = [
            {"key": each.key, "place": each.place, "message": each.message} for each in problems
        ]
        _print(context, {"file": named, "problems": found})
    else:
        for problem in problems:
            context.console.out(f"{problem.place or 'default'}: {problem.message}")
        if not problems:
            context.console.out(f"{named}: nothing is wrong")
    return 1 if problems else 0


def schema(options: Options, context: Context) -> int:
    """Print the schema of the whole file: the client's keys and the [registry] table."""
    from pyreg.environment import DEFAULT_REGISTRY, DESCRIPTIONS, KEYS
    from registry.configuration import schema as registry_schema

    types: dict[type, dict[str, Any]] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        list: {"type": "array", "items": {"type": "string"}},
    }
    properties = {
        key: {"description": DESCRIPTIONS[key], **types[kind], "default": kind()}
        for key, kind in KEYS.items()
    }
    properties["default_registry"]["default"] = DEFAULT_REGISTRY
    properties["registry"] = {"description": "Read by `pyreg serve`.", **registry_schema()}
    _print(
        context,
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "pyreg.toml",
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
        },
    )
    return 0


def show(options: Options, context: Context) -> int:
    """Print values and sources; secrets are only said to be there."""
    from dataclasses import fields

    from pyreg.registry_settings import registry_layers
    from registry.configuration import merge, settings_of
    from registry.settings import SECRETS

    is_json = _is_json(options)
    layers = registry_layers(options, context, {})
    settings = settings_of(layers)
    effective: Effective = merge(layers)
    rows = []
    for each in fields(settings):
        value = getattr(settings, each.name)
        if each.name in SECRETS and value:
            value = HIDDEN
        rows.append((each.name, value, effective.sources[each.name]))
    if is_json:
        _print(context, {name: {"value": value, "from": place} for name, value, place in rows})
    else:
        shown = [(name, _text(value), place) for name, value, place in rows]
        context.console.table(("SETTING", "VALUE", "FROM"), shown)
    return 0


SUBCOMMANDS = {"check": (CHECK, check), "schema": (SCHEMA, schema), "show": (SHOW, show)}


def _client_problems(file: str) -> list[Problem]:
    """What is wrong with the keys outside of [registry]. A broken file is told elsewhere."""
    import tomllib
    from os.path import isfile

    from pyreg.environment import key_problems
    from registry.configuration import MAX_FILE, Problem, line_of

    if not isfile(file):
        return []
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_FILE).decode()
        keys = tomllib.loads(text)
    except (OSError, ValueError):
        return []
    keys.pop("registry", None)
    return [
        Problem(key, f"{file}:{line_of(text, '', key)}", message)
        for key, message in key_problems(keys)
    ]


def _layers(
    options: Options, context: Context, file: str, problems: list[Problem]
) -> list[Layer] | None:
    from pyreg.registry_settings import registry_layers
    from registry.configuration import Problem
    from registry.errors import InvalidSettings

    try:
        return registry_layers(options, context, {}, file=file)
    except InvalidSettings as error:
        problems.append(Problem("", file or context.environment.config_file, str(error)))
        return None


def _surroundings_problems(settings: Settings, sources: Mapping[str, str]) -> list[Problem]:
    """What can be seen of the machine without starting or changing anything."""
    import os

    from registry.configuration import Problem
    from registry.errors import RegistryError
    from registry.server.tls import load_context

    found = []
    if settings.tls_certificate:
        try:
            load_context(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
        except RegistryError as error:
            found.append(Problem("tls_certificate", sources["tls_certificate"], str(error)))
    place = os.path.abspath(settings.data)
    while not os.path.exists(place) and place != "/":
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK | os.X_OK):
        message = f"cannot write to {place}, which the data directory {settings.data} needs"
        found.append(Problem("root", sources["root"], message))
    if settings.database:
        from registry.metadata.location import Location

        try:
            Location.parse(settings.database)
        except RegistryError as error:
            found.append(Problem("database", sources["database"], str(error)))
    return found


def _is_json(options: Options) -> bool:
    from pyreg.cli import FlagError

    if options.text("format") not in ("text", "json"):
        raise FlagError(f'invalid argument "{options.text("format")}" for "--format": text or json')
    return options.text("format") == "json"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value)


def _print(context: Context, document: object) -> None:
    import json

    context.console.out(json.dumps(document, indent=2))
