"""`pyreg user`: who may log in to a registry with a password.

On the machine of the registry it needs no login; with `--registry HOST` it asks over HTTP. It takes
effect in running servers at once.
"""

from __future__ import annotations

from pyreg.administration import AT, FORMAT, LISTED, STDIN
from pyreg.cli import TEXT, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

_ROLE = Flag(
    "role", "", TEXT, "admin, writer (pull, push, delete), reader (pull) or user (by policy)",
    default="writer",
)  # fmt: skip
_THEIR_ROLE = Flag("role", "", TEXT, "What the new users may do", default="reader")
HEADINGS = {"Name": "NAME", "Role": "ROLE", "Status": "STATUS", "CreatedAt": "CREATED"}


def _command(
    name: str, summary: str, usage: str = "NAME", flags: tuple[Flag, ...] = AT, least: int = 1
) -> Command:
    many = usage.endswith("...]")
    most = None if many else len(usage.split())
    return Command(
        name=f"user {name}",
        usage=f"[OPTIONS] {usage}".rstrip(),
        summary=summary,
        flags=flags,
        minimum=least,
        maximum=most,
    )


ADD = _command("add", "Add a user of the registry", flags=(STDIN, _ROLE, *AT))
PASSWD = _command("passwd", "Change a user's password; ends the user's logins", flags=(STDIN, *AT))
LIST = _command("list", "List the users of the registry", "", LISTED, 0)
INSPECT = _command("inspect", "Show what is known of users", "NAME [NAME...]", (FORMAT, *AT))
ROLE = _command(
    "role", "Give a user another role: admin, writer, reader or user", "NAME ROLE", least=2
)
DISABLE = _command("disable", "Keep users from logging in; tokens end at once", "NAME [NAME...]")
ENABLE = _command("enable", "Let users log in again", "NAME [NAME...]")
IMPORT = _command(
    "import", "Add the users of a htpasswd file (bcrypt)", "FILE|-", (_THEIR_ROLE, *AT)
)
REMOVE = _command("remove", "Remove users; tokens end at once", "NAME [NAME...]")


def add(options: Options, context: Context) -> int:
    """Add an account with a password from the terminal or standard input."""
    from pyreg.administration import administration, new_password

    name, role = options.arguments[0], options.text("role")
    _check(name, role)
    password = new_password(options, context, name)
    with administration(options, context, begins=True) as admin:
        admin.post("/users", {"name": name, "password": password, "role": role})
    context.console.out(f"Added {role} {name}")
    return 0


def passwd(options: Options, context: Context) -> int:
    """Give an account another password."""
    from client.admin import path_of
    from pyreg.administration import administration, new_password

    name = options.arguments[0]
    with administration(options, context) as admin:
        admin.get(path_of("users", name))  # before somebody types a password for nobody
        document = {"password": new_password(options, context, name)}
        me = admin.get("/me")
        if me["name"] == name:
            document["current"] = context.console.ask_secret(f"Current password for {name}: ")
        admin.put(path_of("users", name, "password"), document)
    context.console.out(f"Changed the password of {name}")
    return 0


def list_(options: Options, context: Context) -> int:
    """Print the accounts as a table."""
    from pyreg.administration import administration, show_list, when

    with administration(options, context) as admin:
        rows = [
            {
                "Name": user["name"],
                "Role": user["role"],
                "Status": "disabled" if user["disabled"] else "active",
                "CreatedAt": when(user["created_at"]),
            }
            for user in admin.items("/users")
        ]
    show_list(options, context, rows, HEADINGS)
    return 0


def inspect(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, show_document

    with administration(options, context) as admin:
        found = [admin.get(path_of("users", name)) for name in options.arguments]
    show_document(options, context, found)
    return 0


def role(options: Options, context: Context) -> int:
    name, wanted = options.arguments
    _change(options, context, (name,), {"role": wanted}, f"is now {wanted}")
    return 0


def disable(options: Options, context: Context) -> int:
    _change(options, context, options.arguments, {"disabled": True}, "is disabled")
    return 0


def enable(options: Options, context: Context) -> int:
    _change(options, context, options.arguments, {"disabled": False}, "is enabled")
    return 0


def import_(options: Options, context: Context) -> int:
    """Exits with 1 if a line had to be left out; the others are added."""
    from pyreg.administration import administration, read_text

    role = options.text("role")
    text = read_text(options.arguments[0])
    with administration(options, context, begins=True) as admin:
        done = admin.post("/htpasswd", {"text": text, "role": role})
    for name in done["added"]:
        context.console.out(f"Added {role} {name}")
    for left in done["left"]:
        who = f"{left['name']}: " if left["name"] else ""
        context.console.warn(f"line {left['line']}: {who}{left['reason']}")
    return 1 if done["left"] else 0


def remove(options: Options, context: Context) -> int:
    """Remove accounts and everything they could log in with."""
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for name in options.arguments:
            admin.delete(path_of("users", name))
            context.console.out(f"Removed {name}")
    return 0


def _change(
    options: Options,
    context: Context,
    names: tuple[str, ...],
    document: dict[str, object],
    said: str,
) -> None:
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for name in names:
            admin.patch(path_of("users", name), document)
            context.console.out(f"{name} {said}")


def _check(name: str, role: str) -> None:
    """Before somebody types a password for nothing, where the server's parts are at hand."""
    try:
        from registry.metadata.accounts import check_name, check_role
    except ModuleNotFoundError:
        return
    check_name(name)
    check_role(role)


SUBCOMMANDS = {
    "add": (ADD, add),
    "passwd": (PASSWD, passwd),
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "inspect": (INSPECT, inspect),
    "role": (ROLE, role),
    "disable": (DISABLE, disable),
    "enable": (ENABLE, enable),
    "import": (IMPORT, import_),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}
