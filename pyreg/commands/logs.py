"""pyreg logs: what a container wrote, its two streams kept apart."""

from __future__ import annotations

import os

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from runtime.container.logs import Entry

COMMAND = Command(
    name="logs",
    usage="[OPTIONS] CONTAINER",
    summary="Fetch the logs of a container",
    flags=(
        Flag("follow", "f", BOOL, "Follow log output"),
        Flag("since", "", help="Show logs since a timestamp or relative (42m)"),
        Flag("tail", "n", help="Number of lines to show from the end of the logs", default="all"),
        Flag("timestamps", "t", BOOL, "Show timestamps"),
        Flag("until", "", help="Show logs before a timestamp or relative"),
    ),
    minimum=1,
    maximum=1,
)


def run(options: Options, context: Context) -> int:
    from runtime.container import logs
    from runtime.container.state import RUNNING
    from runtime.engine import Engine
    from runtime.paths import Paths

    env = context.environment
    engine = Engine(Paths(env.root, env.run), rootless=os.geteuid() != 0)
    record = engine.containers.find(options.arguments[0])
    path = engine.paths.container_log(record.id)
    tail = options.text("tail")
    if tail != "all" and not tail.removeprefix("-").isdigit():
        raise UsageError(f'invalid argument "{tail}" for "-n, --tail" flag')
    since, until = _moment(options.text("since")), _moment(options.text("until"))
    end = logs.open_end(path)
    everything = tail == "all" or tail.startswith("-")
    entries: Iterable[Entry] = (
        logs.read_log(path, end) if everything else logs.read_tail(path, int(tail), end)
    )
    show = _Printer(context, since, until, options.flag("timestamps"))
    for entry in entries:
        show(entry)

    def is_running() -> bool:
        try:
            return engine.containers.state(record.id).status == RUNNING
        except FileNotFoundError:
            return False

    if options.flag("follow") and end is not None:
        context.console.stdout.flush()
        for entry in logs.follow(path, is_running, end=end):
            show(entry)
            context.console.stdout.flush()
    return 0


class _Printer:
    def __init__(self, context: Context, since: str, until: str, timestamps: bool) -> None:
        self._out = context.console.stdout
        self._error = context.console.stderr
        self._since = since
        self._until = until
        self._timestamps = timestamps

    def __call__(self, entry: Entry) -> None:
        # Times in UTC with nine digits compare as text.
        if entry.time < self._since or (self._until and entry.time > self._until):
            return
        stream = self._out if entry.stream == "stdout" else self._error
        # As bytes: a container may write what the terminal's encoding cannot say.
        prefix = f"{entry.time} " if self._timestamps else ""
        stream.flush()
        stream.buffer.write((prefix + entry.text).encode(errors="surrogateescape"))


def _moment(text: str) -> str:
    """A point in time in the log's own spelling; empty for none."""
    if not text:
        return ""
    import time

    from pyreg.human import parse_time
    from runtime.container.logs import format_time

    seconds = _span(text)
    if seconds is not None:
        moment = time.time() - seconds
    elif text.replace(".", "", 1).isdigit():
        moment = float(text)
    else:
        whole = text if "T" in text else text + "T00:00:00"
        zoned = (
            whole if whole[-1] in "zZ" or "+" in whole[10:] or "-" in whole[10:] else whole + "Z"
        )
        moment = parse_time(zoned)
        if not moment:
            raise UsageError(f"invalid value for a time: {text!r}")
    return format_time(int(moment * 1_000_000_000))


def _span(text: str) -> float | None:
    """Seconds of a Go duration such as `1h30m`; None if it is none."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    total, digits = 0.0, ""
    for letter in text:
        if letter.isdigit() or letter == ".":
            digits += letter
        elif letter in units and digits.replace(".", "", 1).isdigit():
            total += float(digits) * units[letter]
            digits = ""
        else:
            return None
    return total if not digits else None
