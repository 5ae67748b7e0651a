"""`pyreg token`: personal access tokens, to log in with in place of a password.

A token may do less than its account, ends by itself, and can be taken back alone.
"""

from __future__ import annotations

from pyreg.administration import AT, LISTED, QUIET
from pyreg.cli import LIST as MANY
from pyreg.cli import NUMBER, TEXT, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

DAYS = Flag("expires", "", NUMBER, "Days until it ends; 0 for never", default=90)
USER = Flag("user", "u", TEXT, "Whose; yourself if not given", metavar="NAME")
ACTION = Flag("action", "", MANY, "pull, create, overwrite, delete or admin; all if not given")
REPOSITORY = Flag(
    "repository", "", MANY, "Only where names fit this pattern, like 'team/*'", metavar="GLOB"
)
HEADINGS = {
    "Id": "TOKEN ID",
    "Name": "NAME",
    "Scope": "SCOPE",
    "ExpiresAt": "EXPIRES",
    "LastUsedAt": "LAST USED",
    "CreatedAt": "CREATED",
}

ADD = Command(
    name="token add", usage="[OPTIONS] NAME",
    flags=(USER, ACTION, REPOSITORY, DAYS, QUIET, *AT), minimum=1, maximum=1,
    summary="Make a personal access token; it is shown this once",
)  # fmt: skip
LIST = Command(
    name="token list", usage="[OPTIONS]", flags=(USER, *LISTED),
    summary="List the personal access tokens of an account",
)  # fmt: skip
REMOVE = Command(
    name="token remove", usage="[OPTIONS] ID [ID...]", flags=(USER, *AT), minimum=1, maximum=None,
    summary="Take tokens back; they end at once",
)  # fmt: skip


def add(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import account_of, administration, when

    with administration(options, context) as admin:
        account = account_of(options, admin)
        made = admin.post(
            path_of("accounts", account, "tokens"),
            {
                "name": options.arguments[0],
                "actions": list(options.texts("action")),
                "repositories": list(options.texts("repository")),
                "expires_days": options.number("expires"),
            },
        )
    if not options.flag("quiet"):
        ends = made["expires_at"]
        until = f", good until {when(ends)}" if ends is not None else ""
        context.console.note(f"Made token {made['id']} for {account}{until}. Shown only now:")
    context.console.out(made["secret"])
    return 0


def list_(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import account_of, administration, show_list, when

    with administration(options, context) as admin:
        account = account_of(options, admin)
        rows = [
            {
                "Id": token["id"],
                "Name": token["name"],
                "Scope": _scope(token["actions"], token["repositories"]),
                "ExpiresAt": when(token["expires_at"]),
                "LastUsedAt": when(token["last_used_at"]),
                "CreatedAt": when(token["created_at"]),
            }
            for token in admin.items(path_of("accounts", account, "tokens"))
        ]
    show_list(options, context, rows, HEADINGS, name="Id")
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import account_of, administration

    with administration(options, context) as admin:
        account = account_of(options, admin)
        for id in options.arguments:
            admin.delete(path_of("accounts", account, "tokens", id))
            context.console.out(f"Removed {id}")
    return 0


def _scope(actions: list[str], repositories: list[str]) -> str:
    what = ",".join(actions) or "all"
    return f"{what} on {' '.join(repositories)}" if repositories else what


SUBCOMMANDS = {
    "add": (ADD, add),
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}
