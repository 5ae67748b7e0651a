"""Environment variables of a container: lists of `NAME=value`, merged as Docker merges them."""

from __future__ import annotations

from runtime.errors import EngineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def merge_environment(*layers: Iterable[str]) -> tuple[str, ...]:
    """Later layers win, but a name keeps its first place; a name without `=` removes it."""
    merged: dict[str, str | None] = {}
    for layer in layers:
        for entry in layer:
            name, equals, _ = entry.partition("=")
            if not name or "\0" in entry:
                raise EngineError(f"invalid environment variable: {entry!r}")
            merged[name] = entry if equals else None
    return tuple(entry for entry in merged.values() if entry is not None)


def read_variables(entries: Iterable[str], caller: Mapping[str, str]) -> tuple[str, ...]:
    """Complete the values of `-e`: a bare NAME takes the caller's value.

    A bare name the caller does not have stays bare, which removes the image's variable.
    """
    return tuple(
        entry if "=" in entry or entry not in caller else f"{entry}={caller[entry]}"
        for entry in entries
    )


def parse_env_file(text: str, where: str) -> tuple[str, ...]:
    """The entries of an `--env-file`: one a line, `#` comments, no quoting.

    Raises: EngineError naming `where` and the line.
    """
    entries = []
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = line.lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name or any(letter.isspace() for letter in name):
            raise EngineError(f"{where}:{number}: variable {name!r} contains whitespaces")
        entries.append(line)
    return tuple(entries)
