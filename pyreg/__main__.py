"""The `pyreg` command: find the command, parse its words, run it, turn errors into one line."""

from __future__ import annotations

import gc
import os
import sys

from pyreg import cli, environment
from pyreg.console import Console
from pyreg.registration import COMMANDS, GROUPS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from pyreg.cli import Command, Options

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
BROKEN_PIPE = 141  # 128 + SIGPIPE

GLOBAL = cli.Command(
    name="",
    usage="[OPTIONS] COMMAND",
    summary="Registry, client and container runtime for people who host their own images",
    flags=(
        cli.Flag("root", "", cli.TEXT, "Directory of all data", metavar="DIR"),
        cli.Flag("config", "", cli.TEXT, "Configuration file", metavar="FILE"),
        cli.Flag("debug", "D", cli.BOOL, "Show where an error came from"),
        cli.Flag("version", "v", cli.BOOL, "Print the version"),
    ),
    maximum=None,
    interspersed=False,
)


class Context:
    """What a command is given beside its options."""

    __slots__ = ("console", "environment")

    def __init__(self, console: Console, env: environment.Environment) -> None:
        self.console = console
        self.environment = env


# These start, look and go: collecting garbage on the way costs them a tenth of their time.
SHORT = ("run", "ps", "logs", "rm")


def entry() -> NoReturn:
    """The whole life of the process. Ends it at once: taking an interpreter apart takes 5 ms."""
    gc.disable()
    fill_standard_streams()
    try:
        status = main()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = BROKEN_PIPE
    os._exit(status)


def fill_standard_streams() -> None:
    """Put /dev/null where the caller closed 0, 1 or 2.

    Python has no stream there, and a pipe of a container's start must not get such a number.
    """
    for fd, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, open(fd, mode, encoding="utf-8"))  # noqa: SIM115  for good


def main(words: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status of the process."""
    console = Console()
    debug = bool(os.environ.get("PYREG_DEBUG"))
    words = sys.argv[1:] if words is None else words
    failed = 1
    called = "pyreg"
    try:
        options = cli.parse(GLOBAL, words)
        if options is None or not (options.arguments or options.flag("version")):
            console.raw(overview())
            return 0
        if options.flag("version"):
            from pyreg.version import VERSION

            console.out(f"pyreg version {VERSION}")
            return 0
        debug = debug or options.flag("debug")
        env = environment.read(
            os.environ,
            root=options.text("root"),
            config_file=options.text("config"),
            lenient=options.arguments[0] == "config",
        )
        command, run, rest = find(options.arguments)
        if command.name not in SHORT:
            gc.enable()
        called = f"pyreg {command.name}"
        failed = 125 if command.name in ("run", "exec", "create") else 1
        parsed = cli.parse(command, rest)
        if parsed is None:
            console.raw(cli.help_text(command))
            return 0
        status = run(parsed, Context(console, env))
        console.stdout.flush()
        return status
    except cli.UsageError as error:
        console.error(str(error), f"See '{called} --help'.")
        return max(failed, error.exit_status)
    except KeyboardInterrupt:
        if console.stderr.isatty():
            console.note("")  # the terminal has shown ^C: the shell's prompt starts a line
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away (`pyreg images | head -1`); nothing of ours is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if debug:
            raise
        return explain(error, console, failed)


def explain(error: Exception, console: Console, failed: int) -> int:
    """Say in one line what happened; errors of our layers carry a hint and maybe a status."""
    hint = getattr(error, "hint", None)
    if hint is not None:
        console.error(str(error), hint)
        status = int(getattr(error, "exit_status", failed))
        # 125 to 127 are what `run` and `exec` say of themselves; others fail with 1.
        return status if (status >= 125) == (failed == 125) else failed
    if isinstance(error, ModuleNotFoundError) and error.name in SERVER_MODULES:
        console.error(
            f"the server is not installed here: '{error.name}' is missing",
            "Install it: pip install 'pyreg[server]'.",
        )
    elif isinstance(error, OSError) and error.strerror:
        where = f": {os.fsdecode(error.filename)}" if error.filename else ""
        console.error(f"{error.strerror}{where}")
    else:
        console.error(
            f"internal error: {type(error).__name__}: {error}",
            "This is a bug of pyreg; run again with PYREG_DEBUG=1 to see where.",
        )
    return failed


SERVER_MODULES = (
    "registry",
    "starlette",
    "uvicorn",
    "httptools",
    "sqlalchemy",
    "alembic",
    "jwt",
    "argon2",
)


def find(words: Sequence[str]) -> tuple[Command, Callable[[Options, Context], int], Sequence[str]]:
    """The command named by the first words, loaded; with the words that remain.

    `image ls`, `container run` and the like are other names of the plain commands.
    """
    name, rest = words[0], words[1:]
    if name in GROUPS and rest and rest[0] in GROUPS[name]:
        name, rest = GROUPS[name][rest[0]], rest[1:]
    entry = COMMANDS.get(name)
    if entry is None:
        raise cli.UsageError(f"'{name}' is not a pyreg command")
    from importlib import import_module

    module = import_module(f"pyreg.commands.{entry[0]}")
    nested = getattr(module, "SUBCOMMANDS", None)
    if nested is None:
        return module.COMMAND, module.run, rest
    if not rest or rest[0] not in nested:
        known = ", ".join(nested)
        raise cli.UsageError(f"'pyreg {name}' needs one of: {known}")
    command, run = nested[rest[0]]
    return command, run, rest[1:]


def overview() -> str:
    """What `pyreg --help` prints."""
    width = max(len(name) for name in COMMANDS) + 3
    lines = [cli.help_text(GLOBAL), "Commands:"]
    lines += [f"  {name.ljust(width)}{summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "Run 'pyreg COMMAND --help' for more information on a command.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    entry()
