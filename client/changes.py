"""Changes to an image's settings, written as Dockerfile instructions: `import -c 'CMD ["sh"]'`."""

from __future__ import annotations

import json
import re
import shlex

from client.errors import ClientError
from ocispec.value import replace, value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

SHELL = ("/bin/sh", "-c")
_NONE: Mapping[str, str] = {}


class InvalidChange(ClientError):
    def __init__(self, line: str, reason: str) -> None:
        super().__init__(f"cannot apply {line[:200]!r}: {reason}", hint=HINT)


HINT = "known are CMD ENTRYPOINT ENV EXPOSE LABEL USER VOLUME WORKDIR, as in a Dockerfile"


@value
class Settings:
    """How an image is started, as far as changes reach. The fields are those of `new_config`."""

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = _NONE
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()


def apply(settings: Settings, lines: Iterable[str]) -> Settings:
    """Apply instructions in order. Raises InvalidChange, with the line."""
    for line in lines:
        name, _, rest = line.strip().partition(" ")
        change = INSTRUCTIONS.get(name.upper())
        if change is None:
            raise InvalidChange(line, f"unknown instruction {name[:40]!r}")
        if not rest.strip():
            raise InvalidChange(line, "it needs an argument")
        if "\n" in line or "\0" in line:
            raise InvalidChange(line, "one instruction is one line")
        try:
            settings = replace(settings, **change(settings, rest.strip()))
        except ValueError as error:
            raise InvalidChange(line, str(error)) from error
    return settings


def _command(text: str) -> tuple[str, ...]:
    """The exec form (a JSON list), or the shell form (anything else)."""
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError:
            words = None
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return tuple(words)
    return (*SHELL, text)


def _pairs(text: str) -> list[tuple[str, str]]:
    words = shlex.split(text)
    if "=" not in words[0]:
        key, _, rest = text.partition(" ")
        if not rest:
            raise ValueError("write NAME=value")
        return [(key, rest.strip())]
    pairs = []
    for word in words:
        key, equals, found = word.partition("=")
        if not key or not equals:
            raise ValueError(f"{word!r} is not NAME=value")
        pairs.append((key, found))
    return pairs


def _list(text: str) -> list[str]:
    if text.startswith("["):
        words = json.loads(text)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("not a list of strings")
        return words
    return shlex.split(text)


def _env(settings: Settings, text: str) -> dict[str, Any]:
    env = dict(entry.partition("=")[::2] for entry in settings.env)
    env.update(_pairs(text))
    return {"env": tuple(f"{key}={found}" for key, found in env.items())}


def _expose(settings: Settings, text: str) -> dict[str, Any]:
    ports = list(settings.exposed_ports)
    for word in shlex.split(text):
        match = re.fullmatch(r"(\d{1,5})(?:/(tcp|udp|sctp))?", word.lower())
        if match is None or not 0 < int(match[1]) < 65536:
            raise ValueError(f"{word!r} is not PORT[/tcp|/udp]")
        ports.append(f"{int(match[1])}/{match[2] or 'tcp'}")
    return {"exposed_ports": tuple(dict.fromkeys(ports))}


def _workdir(settings: Settings, text: str) -> dict[str, Any]:
    if text.startswith("/"):
        return {"working_dir": text}
    return {"working_dir": f"{settings.working_dir.rstrip('/')}/{text}"}


def _volume(settings: Settings, text: str) -> dict[str, Any]:
    return {"volumes": tuple(dict.fromkeys((*settings.volumes, *_list(text))))}


INSTRUCTIONS: Mapping[str, Callable[[Settings, str], dict[str, Any]]] = {
    "CMD": lambda settings, text: {"cmd": _command(text)},
    "ENTRYPOINT": lambda settings, text: {"entrypoint": _command(text)},
    "ENV": _env,
    "EXPOSE": _expose,
    "LABEL": lambda settings, text: {"labels": {**settings.labels, **dict(_pairs(text))}},
    "USER": lambda settings, text: {"user": text},
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
