"""`pyreg gc`: how collection goes, what it would do, and when it must not.

On the machine of the registry it needs no login; with `--registry HOST` it asks over HTTP.
"""

from __future__ import annotations

from pyreg.administration import AT, FORMAT
from pyreg.cli import TEXT, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyreg.__main__ import Context
    from pyreg.cli import Options

_FOR = Flag("for", "", TEXT, "For so many seconds; else until resumed", metavar="SECONDS")
_IN = Flag("in", "", TEXT, "As of so many seconds from now", metavar="SECONDS")


def _command(name: str, summary: str, *flags: Flag) -> Command:
    return Command(
        name=f"gc {name}",
        usage="[OPTIONS]",
        summary=summary,
        flags=(*flags, FORMAT, *AT),
        minimum=0,
        maximum=0,
    )


STATUS = _command("status", "Show how garbage collection goes")
RUN = _command("run", "Collect what is due, now")
SIMULATE = _command("simulate", "Show what would be collected, changing nothing", _IN)
PAUSE = _command("pause", "Let no replica collect anything", _FOR)
RESUME = _command("resume", "Let collection go on")


def status(options: Options, context: Context) -> int:
    """Print queue, doomed bytes, counters and lost blobs."""
    from pyreg.administration import administration, when
    from pyreg.human import size

    with administration(options, context) as admin:
        found = admin.get("/gc")
    if _shown(options, context, found):
        return 0
    state = "on" if found["enabled"] else "off (gc = false)"
    if found["paused"]:
        until = found["paused"]["until"]
        end = f"until {when(until)}" if until else "until it is resumed"
        state = f"paused by {found['paused']['by'] or '-'}, {end}"
    out = context.console.out
    out(f"Collection: {state}")
    for queue in found["queues"]:
        out(
            f"Queue: {queue['entries']} {queue['kind']}s, {queue['due']} due"
            f" ({queue['event']}; oldest {when(queue['oldest_due_at'])})"
        )
    out(f"Doomed: {found['doomed_objects']} objects, {size(found['doomed_bytes'])}")
    for counter in found["counters"]:
        out(f"{counter['name'].capitalize()}: {counter['value']}")
    for lost in found["lost"]:
        out(f"Lost: {lost['digest']} {lost['reason']}, used by {', '.join(lost['used_by'])}")
    return 0


def run(options: Options, context: Context) -> int:
    """Collect until nothing is due."""
    from pyreg.administration import administration
    from pyreg.human import size

    total: dict[str, Any] = {"manifests": 0, "blobs": 0, "objects": 0, "bytes_freed": 0}
    with administration(options, context) as admin:
        more = True
        while more:
            done = admin.post("/gc/run")
            more = done["more"]
            for key in total:
                total[key] += done[key]
    if not _shown(options, context, total):
        context.console.out(
            f"Removed {total['manifests']} manifests, {total['blobs']} blobs,"
            f" {total['objects']} objects; freed {size(total['bytes_freed'])}"
        )
    return 0


def simulate(options: Options, context: Context) -> int:
    """Print what would go, now or at a time to come."""
    import time

    from pyreg.administration import administration, when
    from pyreg.human import size

    seconds = _seconds(options, "in")
    query = {"at": int(time.time()) + seconds} if seconds else {}
    with administration(options, context) as admin:
        found = admin.get("/gc/simulation", **query)
    if _shown(options, context, found):
        return 0
    out = context.console.out
    for item in found["items"]:
        name = f"{item['repository']}@" if item["repository"] else ""
        out(f"{item['kind']} {name}{item['digest']} {size(item['size'])} ({item['event']})")
    out(
        f"{when(found['at'])}: {found['manifests']} manifests and {found['blobs']} blobs"
        f" ({size(found['bytes'])}) would go; later {found['later_blobs']} blobs"
        f" ({size(found['later_bytes'])})" + (", and more" if found["more"] else "")
    )
    return 0


def pause(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    with administration(options, context) as admin:
        admin.put("/gc/pause", {"seconds": _seconds(options, "for")})
    context.console.out("Collection is paused")
    return 0


def resume(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    with administration(options, context) as admin:
        admin.delete("/gc/pause")
    context.console.out("Collection goes on")
    return 0


def _seconds(options: Options, flag: str) -> int:
    from pyreg.cli import UsageError

    text = options.text(flag)
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 365 * 24 * 3600:
        raise UsageError(f"--{flag} must be a number of seconds, at most a year, not {text!r}")
    return int(text)


def _shown(options: Options, context: Context, document: Any) -> bool:
    """Whether `--format` asked for something else than words."""
    from pyreg.administration import show_document

    if options.text("format") in ("", "table"):
        return False
    show_document(options, context, document)
    return True


SUBCOMMANDS = {
    "status": (STATUS, status),
    "run": (RUN, run),
    "simulate": (SIMULATE, simulate),
    "pause": (PAUSE, pause),
    "resume": (RESUME, resume),
}
