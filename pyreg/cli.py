"""The command line's grammar: commands, their flags, and one parser with pflag's rules.

A table parser of our own because argparse costs as much as starting a container (9 ms), and because
a Docker user's habits are pflag's: `-it`, `-p80:80`, `--flag=value`, `--flag=false`, flags after
arguments, except where the rest belongs to somebody else (`run IMAGE COMMAND --its-flags`).
"""

from __future__ import annotations

from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    FlagValue: TypeAlias = bool | int | str | tuple[str, ...]

BOOL = "bool"
TEXT = "string"
LIST = "list"  # may be repeated; the values keep their order
NUMBER = "int"


EMPTY: Mapping[str, FlagValue] = {BOOL: False, TEXT: "", LIST: (), NUMBER: 0}


class UsageError(Exception):
    """The words do not fit the command; `str(error)` says which, in one line."""

    exit_status = 1
    hint = ""


class FlagError(UsageError):
    """A flag that is unknown, or whose value is bad or missing; docker exits with 125 then."""

    exit_status = 125


@value
class Flag:
    """One flag of one command."""

    name: str  # long name without dashes
    short: str = ""  # one letter, or empty
    kind: str = TEXT  # BOOL, TEXT, LIST or NUMBER
    help: str = ""  # one line, as in `docker COMMAND --help`
    default: FlagValue | None = None  # None means False, "", () or 0 by kind
    metavar: str = ""  # what help calls the value; the kind when empty

    @property
    def initial(self) -> FlagValue:
        return EMPTY[self.kind] if self.default is None else self.default


@value
class Command:
    """One command: how it is called and what its flags are."""

    name: str  # as typed, "user add" for a nested one
    summary: str  # one line
    usage: str = ""  # after the name: "[OPTIONS] IMAGE [COMMAND] [ARG...]"
    flags: tuple[Flag, ...] = ()
    minimum: int = 0  # fewest arguments
    maximum: int | None = 0  # most arguments; None is no limit
    interspersed: bool = True  # False: the first argument ends the flags, as for `run`
    details: str = ""  # further paragraphs of the help text
    explain: Callable[[str], str] | None = None  # a sentence for a flag we lack on purpose, or ""


class Options:
    """The parsed words of one call; every accessor checks that the flag is of its kind."""

    __slots__ = ("_flags", "_values", "arguments")

    def __init__(
        self, flags: Mapping[str, Flag], values: Mapping[str, FlagValue], arguments: Sequence[str]
    ) -> None:
        self._flags = flags
        self._values = values
        self.arguments = tuple(arguments)

    def given(self, name: str) -> bool:
        """Was the flag on the command line, whatever its value?"""
        return self._flags[name].name in self._values

    def flag(self, name: str) -> bool:
        found = self._value(name)
        assert isinstance(found, bool), name
        return found

    def text(self, name: str) -> str:
        found = self._value(name)
        assert isinstance(found, str), name
        return found

    def number(self, name: str) -> int:
        found = self._value(name)
        assert isinstance(found, int), name
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        found = self._value(name)
        assert isinstance(found, tuple), name
        return found

    def _value(self, name: str) -> FlagValue:
        return self._values.get(name, self._flags[name].initial)


HELP = Flag("help", "", BOOL, "Print usage")


def parse(command: Command, words: Sequence[str]) -> Options | None:
    """Read the words after the command's name; None when help was asked for.

    Raises: FlagError for an unknown flag, a bad or missing value; UsageError for a wrong number of
    arguments.
    """
    by_name = {flag.name: flag for flag in (*command.flags, HELP)}
    by_short = {flag.short: flag for flag in command.flags if flag.short}
    values: dict[str, FlagValue] = {}
    arguments: list[str] = []
    rest = list(reversed(words))

    def take(flag: Flag, shown: str) -> str:
        if not rest:
            raise FlagError(f"flag needs an argument: {shown}")
        return rest.pop()

    while rest:
        word = rest.pop()
        if word == "--":
            arguments += reversed(rest)
            break
        if word.startswith("--"):
            name, equals, given = word[2:].partition("=")
            found = by_name.get(name)
            if found is None:
                known = command.explain(name) if command.explain is not None else ""
                raise FlagError(known or f"unknown flag: --{name}{_similar(name, by_name)}")
            if not equals:
                given = "true" if found.kind == BOOL else take(found, word)
            _store(found, f"--{name}", given, values)
        elif word.startswith("-") and word != "-":
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                found = by_short.get(letter)
                if found is None and letter == "h":
                    found = HELP
                if found is None:
                    known = command.explain(letter) if command.explain is not None else ""
                    raise FlagError(known or f"unknown shorthand flag: '{letter}' in {word}")
                if found.kind == BOOL and not letters.startswith("="):
                    _store(found, f"-{letter}", "true", values)
                    continue
                given = (
                    letters.removeprefix("=") if letters else take(found, f"'{letter}' in {word}")
                )
                _store(found, f"-{letter}", given, values)
                break
        else:
            arguments.append(word)
            if not command.interspersed:
                arguments += reversed(rest)
                break
    if values.pop("help", False):
        return None
    _check_count(command, len(arguments))
    return Options(by_name, values, arguments)


def _store(flag: Flag, shown: str, given: str, values: dict[str, FlagValue]) -> None:
    if flag.kind == BOOL:
        if given.lower() not in ("true", "false", "1", "0", "t", "f"):
            raise FlagError(f'invalid argument "{given}" for "{shown}" flag: not true or false')
        values[flag.name] = given.lower() in ("true", "1", "t")
    elif flag.kind == NUMBER:
        digits = given.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            raise FlagError(f'invalid argument "{given}" for "{shown}" flag: not a whole number')
        values[flag.name] = int(given)
    elif flag.kind == LIST:
        earlier = values.get(flag.name, ())
        assert isinstance(earlier, tuple)
        values[flag.name] = (*earlier, given)
    else:
        values[flag.name] = given


def _check_count(command: Command, count: int) -> None:
    low, high = command.minimum, command.maximum
    if count >= low and (high is None or count <= high):
        return
    if high == 0:
        wanted = "accepts no arguments"
    elif high is None or count < low:
        exactly = "exactly" if high == low else "at least"
        wanted = f"requires {exactly} {low} argument{'s' if low != 1 else ''}"
    else:
        wanted = f"requires at most {high} argument{'s' if high != 1 else ''}"
    raise UsageError(f"'pyreg {command.name}' {wanted}")


def _similar(name: str, known: Mapping[str, Flag]) -> str:
    starts = [other for other in known if other.startswith(name) or name.startswith(other)]
    return f" (did you mean --{starts[0]}?)" if starts and name else ""


def help_text(command: Command) -> str:
    """What `pyreg COMMAND --help` prints, in Docker's shape."""
    called = " ".join(("pyreg", command.name, command.usage)).replace("  ", " ")
    lines = [f"Usage:  {called.rstrip()}", "", command.summary]
    if command.details:
        lines += ["", command.details.strip()]
    if command.flags:
        lines += ["", "Options:"]
        rows = [(_flag_column(flag), flag.help) for flag in command.flags]
        width = max(len(left) for left, _ in rows) + 3
        lines += [f"{left.ljust(width)}{right}".rstrip() for left, right in rows]
    return "\n".join(lines) + "\n"


def _flag_column(flag: Flag) -> str:
    start = f"  -{flag.short}, " if flag.short else "      "
    shown = "" if flag.kind == BOOL else f" {flag.metavar or flag.kind}"
    return f"{start}--{flag.name}{shown}"
