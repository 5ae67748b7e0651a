"""`pyreg policy`: who may do what to which repositories, and why.

A rule: REPOSITORY SUBJECT ACTIONS, as in `team/* group:dev pull,create`. Deny wins over allow.
"""

from __future__ import annotations

from pyreg.administration import AT, FORMAT, LISTED, YES
from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyreg.__main__ import Context
    from pyreg.cli import Options

HEADINGS = {
    "Id": "RULE ID",
    "Effect": "EFFECT",
    "Repository": "REPOSITORY",
    "Subject": "SUBJECT",
    "Actions": "ACTIONS",
}
_DENY = Flag("deny", "", BOOL, "Forbid it, whatever else allows it")

LIST = Command(
    name="policy list", usage="[OPTIONS]", flags=LISTED, summary="List the rules of the policy"
)
ADD = Command(
    name="policy add", usage="[OPTIONS] REPOSITORY SUBJECT ACTION[,ACTION...]",
    flags=(_DENY, *AT), minimum=3, maximum=3,
    summary="Add a rule: who may do what to which repositories",
    details="REPOSITORY is a name or a pattern: 'team/*'. SUBJECT is user:NAME, group:NAME,\n"
    "robot:NAME, anonymous or authenticated. ACTION is pull, create, overwrite, delete or admin.",
)  # fmt: skip
REMOVE = Command(
    name="policy remove", usage="[OPTIONS] ID [ID...]", flags=AT, minimum=1, maximum=None,
    summary="Remove rules",
)  # fmt: skip
EXPORT = Command(
    name="policy show", usage="[OPTIONS]", flags=(FORMAT, *AT),
    summary="Print the whole policy as JSON, as `policy set` takes it",
)  # fmt: skip
SET = Command(
    name="policy set", usage="[OPTIONS] FILE", flags=(YES, *AT), minimum=1, maximum=1,
    summary="Put the policy in FILE (- for standard input) in place of the present one",
)  # fmt: skip
EXPLAIN = Command(
    name="policy explain", usage="[OPTIONS] USER REPOSITORY ACTION", flags=(FORMAT, *AT),
    minimum=3, maximum=3, summary="Say whether somebody may do something, and which rule decides",
)  # fmt: skip
TEST = Command(
    name="policy test", usage="[OPTIONS] USER REPOSITORY ACTION", flags=AT, minimum=3, maximum=3,
    summary="End with status 0 if somebody may do something, else with 1",
)  # fmt: skip


def list_(options: Options, context: Context) -> int:
    from pyreg.administration import administration, show_list

    with administration(options, context) as admin:
        rows = [
            {
                "Id": rule["id"],
                "Effect": rule["effect"],
                "Repository": rule["repositories"],
                "Subject": rule["subject"],
                "Actions": ",".join(rule["actions"]),
            }
            for rule in admin.get("/policy")["rules"]
        ]
    show_list(options, context, rows, HEADINGS, name="Id")
    return 0


def add(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    repository, subject, actions = options.arguments
    with administration(options, context) as admin:
        rule = admin.post(
            "/policy/rules",
            {
                "repositories": repository,
                "subject": subject,
                "actions": actions.split(","),
                "effect": "deny" if options.flag("deny") else "allow",
            },
        )
    context.console.out(str(rule["id"]))
    return 0


def remove(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for id in options.arguments:
            admin.delete(path_of("policy", "rules", id))
            context.console.out(f"Removed rule {id}")
    return 0


def show(options: Options, context: Context) -> int:
    from pyreg.administration import administration, show_document

    with administration(options, context) as admin:
        policy = admin.get("/policy")
    for kind in ("rules", "immutable"):
        policy[kind] = [
            {name: each for name, each in rule.items() if name != "id"} for rule in policy[kind]
        ]
    show_document(options, context, policy)
    return 0


def set_(options: Options, context: Context) -> int:
    """Refused if somebody else changed the policy between the look and the change."""
    import json

    from pyreg.administration import administration, confirmed, read_text

    raw = read_text(options.arguments[0])
    try:
        wanted = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{options.arguments[0]} is not JSON: {error}") from None
    if not isinstance(wanted, dict):
        raise UsageError(f"{options.arguments[0]} is not a policy: an object with 'rules'")
    with administration(options, context) as admin:
        present, etag = admin.get_with_etag("/policy")
        count, new = len(present["rules"]), len(wanted.get("rules") or ())
        if not confirmed(options, context, f"Replace {count} rules by {new}?"):
            return 1
        admin.put("/policy", wanted, etag=etag)
    context.console.out(f"The policy has {new} rules")
    return 0


def explain(options: Options, context: Context) -> int:
    from pyreg.administration import show_document

    found = _explained(options, context)
    if options.text("format"):
        show_document(options, context, found)
        return 0
    context.console.out(f"{'allowed' if found['allowed'] else 'denied'}: {found['reason']}")
    return 0


def test(options: Options, context: Context) -> int:
    return 0 if _explained(options, context)["allowed"] else 1


def _explained(options: Options, context: Context) -> dict[str, Any]:
    from pyreg.administration import administration

    user, repository, action = options.arguments
    with administration(options, context) as admin:
        found: dict[str, Any] = admin.get(
            "/policy/explain", account=user, repository=repository, action=action
        )
    return found


SUBCOMMANDS = {
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "add": (ADD, add),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
    "show": (EXPORT, show),
    "set": (SET, set_),
    "explain": (EXPLAIN, explain),
    "test": (TEST, test),
}
