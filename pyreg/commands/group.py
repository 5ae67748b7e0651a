"""`pyreg group`: names for several users and robots, to write policy rules about."""

from __future__ import annotations

from pyreg.administration import AT, FORMAT, LISTED, YES
from pyreg.cli import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

HEADINGS = {"Name": "NAME", "Members": "MEMBERS", "CreatedAt": "CREATED"}

ADD = Command(
    name="group add", usage="[OPTIONS] GROUP [ACCOUNT...]", flags=AT, minimum=1, maximum=None,
    summary="Make a group, or put users and robots into one",
)  # fmt: skip
LIST = Command(name="group list", usage="[OPTIONS]", flags=LISTED, summary="List the groups")
INSPECT = Command(
    name="group inspect", usage="[OPTIONS] GROUP [GROUP...]", flags=(FORMAT, *AT),
    minimum=1, maximum=None, summary="Show groups with their members",
)  # fmt: skip
REMOVE = Command(
    name="group remove", usage="[OPTIONS] GROUP [ACCOUNT...]", flags=(YES, *AT),
    minimum=1, maximum=None, summary="Take users and robots out of a group, or remove it",
)  # fmt: skip


def add(options: Options, context: Context) -> int:
    from client.admin import Conflict, path_of
    from pyreg.administration import administration

    group, *members = options.arguments
    with administration(options, context) as admin:
        try:
            admin.post("/groups", {"name": group})
            context.console.out(f"Added group {group}")
        except Conflict:
            if not members:
                raise
        for member in members:
            admin.put(path_of("groups", group, "members", member))
            context.console.out(f"{member} is in {group}")
    return 0


def list_(options: Options, context: Context) -> int:
    from pyreg.administration import administration, show_list, when

    with administration(options, context) as admin:
        rows = [
            {
                "Name": group["name"],
                "Members": ", ".join(group["members"]),
                "CreatedAt": when(group["created_at"]),
            }
            for group in admin.items("/groups")
        ]
    show_list(options, context, rows, HEADINGS)
    return 0


def inspect(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, show_document

    with administration(options, context) as admin:
        found = [admin.get(path_of("groups", name)) for name in options.arguments]
    show_document(options, context, found)
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, confirmed

    group, *members = options.arguments
    with administration(options, context) as admin:
        for member in members:
            admin.delete(path_of("groups", group, "members", member))
            context.console.out(f"{member} is not in {group}")
        if not members:
            question = f"Remove the group {group}, and every policy rule about it?"
            if not confirmed(options, context, question):
                return 1
            admin.delete(path_of("groups", group))
            context.console.out(f"Removed {group}")
    return 0


SUBCOMMANDS = {
    "add": (ADD, add),
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "inspect": (INSPECT, inspect),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}
