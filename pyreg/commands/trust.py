"""`pyreg trust`: let a robot log in with tokens of another issuer, such as a CI system's."""

from __future__ import annotations

from pyreg.administration import AT, LISTED
from pyreg.cli import TEXT, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

AUDIENCE = Flag("audience", "", TEXT, "Whom the tokens are made for", metavar="TEXT")
HEADINGS = {"Id": "ID", "Issuer": "ISSUER", "Audience": "AUDIENCE", "Claims": "CLAIMS"}

ADD = Command(
    name="trust add", usage="--audience TEXT ROBOT ISSUER CLAIM=PATTERN [CLAIM=PATTERN...]",
    flags=(AUDIENCE, *AT), minimum=3, maximum=None,
    summary="Let a robot log in with tokens of an issuer",
    details="In a PATTERN * stands for anything but / and :, and ** for anything.",
)  # fmt: skip
LIST = Command(
    name="trust list", usage="[OPTIONS] ROBOT", flags=LISTED, minimum=1, maximum=1,
    summary="List whose tokens a robot logs in with",
)  # fmt: skip
REMOVE = Command(
    name="trust remove", usage="[OPTIONS] ROBOT ID [ID...]", flags=AT, minimum=2,
    maximum=None, summary="Trust such tokens no more, at once",
)  # fmt: skip


def add(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    robot, issuer, *conditions = options.arguments
    audience = options.text("audience")
    if not audience:
        raise UsageError("--audience is missing: what the tokens are made for")
    claims = dict(each.split("=", 1) for each in conditions if "=" in each)
    if len(claims) != len(conditions):
        raise UsageError("conditions look like CLAIM=PATTERN, each claim once")
    with administration(options, context) as admin:
        document = {"issuer": issuer, "audience": audience, "claims": claims}
        made = admin.post(path_of("robots", robot, "trust"), document)
    context.console.out(f"Added trust rule {made['id']} of {robot}")
    return 0


def list_(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, show_list

    with administration(options, context) as admin:
        found = list(admin.items(path_of("robots", options.arguments[0], "trust")))
    rows = [
        {
            "Id": str(rule["id"]),
            "Issuer": rule["issuer"],
            "Audience": rule["audience"],
            "Claims": " ".join(f"{claim}={value}" for claim, value in rule["claims"].items()),
        }
        for rule in found
    ]
    show_list(options, context, rows, HEADINGS, name="Id")
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    robot, *ids = options.arguments
    with administration(options, context) as admin:
        for id in ids:
            admin.delete(path_of("robots", robot, "trust", id))
            context.console.out(f"Removed trust rule {id} of {robot}")
    return 0


SUBCOMMANDS = {
    "add": (ADD, add),
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}
