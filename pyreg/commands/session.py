"""`pyreg session`: where an account is logged in, and logging it out there."""

from __future__ import annotations

from pyreg.administration import AT, LISTED
from pyreg.cli import BOOL, TEXT, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

USER = Flag("user", "u", TEXT, "Whose; your own if not given", metavar="NAME")
ALL = Flag("all", "a", BOOL, "Every session of the account")
HEADINGS = {
    "Id": "SESSION ID",
    "Client": "CLIENT",
    "Device": "DEVICE",
    "CreatedAt": "CREATED",
    "LastUsedAt": "LAST USED",
    "ExpiresAt": "EXPIRES",
}

LIST = Command(
    name="session list", usage="[OPTIONS]", flags=(USER, *LISTED),
    summary="List where an account is logged in",
)  # fmt: skip
REMOVE = Command(
    name="session remove", usage="[OPTIONS] ID [ID...]", flags=(USER, ALL, *AT), maximum=None,
    summary="Log an account out on a device, at once",
)  # fmt: skip


def list_(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import account_of, administration, show_list, when

    with administration(options, context) as admin:
        account = account_of(options, admin)
        found = sorted(
            admin.items(path_of("accounts", account, "sessions")),
            key=lambda session: session["created_at"],
        )
    rows = [
        {
            "Id": session["id"],
            "Client": session["client_id"] + (" (this one)" if session["current"] else ""),
            "Device": session["user_agent"],
            "CreatedAt": when(session["created_at"]),
            "LastUsedAt": when(session["last_used_at"]),
            "ExpiresAt": when(session["expires_at"]),
        }
        for session in found
    ]
    show_list(options, context, rows, HEADINGS, name="Id")
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import account_of, administration

    if options.flag("all") == bool(options.arguments):
        raise UsageError("name sessions by their ids, or say --all")
    with administration(options, context) as admin:
        account = account_of(options, admin)
        if options.flag("all"):
            admin.delete(path_of("accounts", account, "sessions"))
            context.console.out(f"Logged {account} out everywhere")
        for id in options.arguments:
            admin.delete(path_of("accounts", account, "sessions", id))
            context.console.out(f"Removed {id}")
    return 0


SUBCOMMANDS = {
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}
