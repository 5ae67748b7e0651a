"""`pyreg robot`: accounts for machines, which log in with a secret that is made, never chosen."""

from __future__ import annotations

from pyreg.administration import AT, FORMAT, LISTED, QUIET
from pyreg.cli import NUMBER, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyreg.__main__ import Context
    from pyreg.cli import Options

DAYS = Flag("expires", "", NUMBER, "Days until the secret ends; 0 for never", default=90)
HEADINGS = {
    "Name": "NAME",
    "Status": "STATUS",
    "ExpiresAt": "EXPIRES",
    "LastUsedAt": "LAST USED",
    "CreatedAt": "CREATED",
}
_MANY = "[OPTIONS] NAME [NAME...]"

ADD = Command(
    name="robot add", usage="[OPTIONS] NAME", flags=(DAYS, QUIET, *AT), minimum=1, maximum=1,
    summary="Add a robot; its secret is shown this once",
)  # fmt: skip
ROTATE = Command(
    name="robot rotate", usage="[OPTIONS] NAME", flags=(DAYS, QUIET, *AT), minimum=1, maximum=1,
    summary="Give a robot another secret; the old one ends at once",
)  # fmt: skip
LIST = Command(name="robot list", usage="[OPTIONS]", flags=LISTED, summary="List the robots")
INSPECT = Command(
    name="robot inspect", usage=_MANY, flags=(FORMAT, *AT), minimum=1, maximum=None,
    summary="Show what is known of robots",
)  # fmt: skip
DISABLE = Command(
    name="robot disable", usage=_MANY, flags=AT, minimum=1, maximum=None,
    summary="Keep robots out; what they hold ends at once",
)  # fmt: skip
ENABLE = Command(
    name="robot enable", usage=_MANY, flags=AT, minimum=1, maximum=None,
    summary="Let robots in again",
)  # fmt: skip
REMOVE = Command(
    name="robot remove", usage=_MANY, flags=AT, minimum=1, maximum=None,
    summary="Remove robots; what they hold ends at once",
)  # fmt: skip


def add(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    name, days = options.arguments[0], options.number("expires")
    with administration(options, context) as admin:
        made = admin.post("/robots", {"name": name, "expires_days": days})
    _show_secret(options, context, made, f"Added robot {name}")
    return 0


def rotate(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    name, days = options.arguments[0], options.number("expires")
    with administration(options, context) as admin:
        made = admin.post(path_of("robots", name, "rotate"), {"expires_days": days})
    _show_secret(options, context, made, f"Rotated the secret of {name}")
    return 0


def _show_secret(options: Options, context: Context, made: dict[str, Any], said: str) -> None:
    """The secret alone on standard output, to be put into a file or a vault."""
    from pyreg.administration import when

    if not options.flag("quiet"):
        ends = made["expires_at"]
        until = f", good until {when(ends)}" if ends is not None else ""
        context.console.note(f"{said}{until}. Its secret, shown only now:")
    context.console.out(made["secret"])


def list_(options: Options, context: Context) -> int:
    from pyreg.administration import administration, show_list, when

    with administration(options, context) as admin:
        rows = [
            {
                "Name": robot["name"],
                "Status": "disabled" if robot["disabled"] else "active",
                "ExpiresAt": when(robot["expires_at"]),
                "LastUsedAt": when(robot["last_used_at"]),
                "CreatedAt": when(robot["created_at"]),
            }
            for robot in admin.items("/robots")
        ]
    show_list(options, context, rows, HEADINGS)
    return 0


def inspect(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, show_document

    with administration(options, context) as admin:
        found = [admin.get(path_of("robots", name)) for name in options.arguments]
    show_document(options, context, found)
    return 0


def disable(options: Options, context: Context) -> int:
    return _set_disabled(options, context, True)


def enable(options: Options, context: Context) -> int:
    return _set_disabled(options, context, False)


def _set_disabled(options: Options, context: Context, disabled: bool) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for name in options.arguments:
            admin.patch(path_of("robots", name), {"disabled": disabled})
            context.console.out(f"{name} is {'disabled' if disabled else 'enabled'}")
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for name in options.arguments:
            admin.delete(path_of("robots", name))
            context.console.out(f"Removed {name}")
    return 0


SUBCOMMANDS = {
    "add": (ADD, add),
    "rotate": (ROTATE, rotate),
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "inspect": (INSPECT, inspect),
    "disable": (DISABLE, disable),
    "enable": (ENABLE, enable),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}
