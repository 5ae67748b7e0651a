"""pyreg ps: which containers there are, and how they are."""

from __future__ import annotations

import os
import time

from pyreg.cli import BOOL, LIST, NUMBER, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from runtime.container.state import ContainerRecord, ContainerState

    Found: TypeAlias = tuple[ContainerRecord, ContainerState]

COMMAND = Command(
    name="ps",
    usage="[OPTIONS]",
    summary="List containers",
    flags=(
        Flag("all", "a", BOOL, "Show all containers (default shows just running)"),
        Flag("filter", "f", LIST, "Filter output: id, name, label, status, exited, ancestor"),
        Flag("format", "", help="'table', 'table TEMPLATE', 'json', or a Go template"),
        Flag("last", "n", NUMBER, "Show n last created containers", default=-1),
        Flag("latest", "l", BOOL, "Show the latest created container"),
        Flag("no-trunc", "", BOOL, "Don't truncate output"),
        Flag("quiet", "q", BOOL, "Only display container IDs"),
    ),
)

COLUMNS = ("ID", "Image", "Command", "CreatedAt", "Status", "Ports", "Names")
HEADINGS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "State": "STATE",
    "Status": "STATUS",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Size": "SIZE",
}
COMMAND_WIDTH = 20


def run(options: Options, context: Context) -> int:
    from runtime.engine import Engine
    from runtime.paths import Paths

    env = context.environment
    engine = Engine(Paths(env.root, env.run), rootless=os.geteuid() != 0)
    engine.containers.collect()
    tests = [_filter(text) for text in options.texts("filter")]
    last = 1 if options.flag("latest") else options.number("last")
    every = (
        options.flag("all")
        or last >= 0
        or any(text.startswith(("status=", "exited=")) for text in options.texts("filter"))
    )
    existing = engine.containers.all(lambda damage: context.console.warn(str(damage)))
    found = sorted(existing, key=lambda one: one[0].created_ns, reverse=True)
    if last >= 0:
        found = found[:last]
    found = [
        one
        for one in found
        if (every or one[1].status == "running") and all(test(one) for test in tests)
    ]
    whole = options.flag("no-trunc")
    if options.flag("quiet"):
        for record, _ in found:
            context.console.out(record.id if whole else record.id[:12])
        return 0
    from pyreg.listing import show

    now = time.time()
    show(
        context.console,
        [row(one, now, whole=whole) for one in found],
        columns=("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
        headings=HEADINGS,
        template=options.text("format"),
    )
    return 0


def row(one: Found, now: float, *, whole: bool) -> dict[str, Any]:
    """What docker shows of a container, by its field names."""
    from pyreg import human

    record, state = one
    created = record.created_ns / 1e9
    return {
        "ID": record.id if whole else record.id[:12],
        "Image": record.image,
        "Command": quoted(record.command, 0 if whole else COMMAND_WIDTH),
        "RunningFor": human.ago(created, now),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)),
        "State": state.status,
        "Status": status(state, now),
        "Ports": "",
        "Names": record.name,
        "Labels": ",".join(f"{key}={text}" for key, text in record.labels),
        "Mounts": ",".join(record.mounts),
        "Networks": record.network,
        "LocalVolumes": str(len(record.anonymous_volumes)),
        "Size": "N/A",
    }


def quoted(words: tuple[str, ...], width: int) -> str:
    """A command line in docker's quotes, its inside cut to `width` letters; 0 is no limit."""
    first, *others = words
    text = " ".join([first, *(f"'{word}'" if " " in word else word for word in others)])
    if width and len(text) > width:
        text = text[: width - 1] + "…"
    return '"' + "".join(_ESCAPES.get(letter) or _printed(letter) for letter in text) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _printed(letter: str) -> str:
    if letter.isprintable():
        return letter
    return f"\\x{ord(letter):02x}" if letter.isascii() else f"\\u{ord(letter):04x}"


def status(state: ContainerState, now: float) -> str:
    """Docker's words: "Up 5 minutes", "Exited (0) 2 seconds ago", "Created"."""
    from pyreg import human

    if state.status == "running":
        return "Up " + human.duration(now - state.started_ns / 1e9)
    if state.status == "exited":
        ended = state.finished_ns or state.started_ns
        return f"Exited ({state.exit_code}) {human.ago(ended / 1e9, now)}"
    return "Created"


def _filter(text: str) -> Callable[[Found], bool]:
    name, equals, wanted = text.partition("=")
    if not equals:
        raise UsageError(f"invalid filter '{text}': write name=value")
    if name == "id":
        return lambda one: one[0].id.startswith(wanted)
    if name == "name":
        return lambda one: wanted.removeprefix("/") in one[0].name
    if name == "status":
        if wanted not in ("created", "running", "exited", "paused", "restarting", "dead"):
            raise UsageError(f"invalid filter 'status={wanted}'")
        return lambda one: one[1].status == wanted
    if name == "exited":
        if not wanted.isdigit():
            raise UsageError(f"invalid filter 'exited={wanted}'")
        return lambda one: one[1].status == "exited" and one[1].exit_code == int(wanted)
    if name == "ancestor":
        return lambda one: (
            wanted in (one[0].image, one[0].image.partition(":")[0])
            or (len(wanted) > 3 and one[0].image_id.removeprefix("sha256:").startswith(wanted))
        )
    if name == "label":
        key, has_value, content = wanted.partition("=")

        def labelled(one: Found) -> bool:
            labels = dict(one[0].labels)
            return key in labels and (not has_value or labels[key] == content)

        return labelled
    raise UsageError(f"invalid filter '{name}'")
