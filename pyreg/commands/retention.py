"""`pyreg retention`: rules that let old tags go, always previewed, run by the server each hour."""

from __future__ import annotations

from pyreg.administration import AT, YES
from pyreg.cli import LIST, NUMBER, TEXT, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from client.admin import Admin
    from pyreg.__main__ import Context
    from pyreg.cli import Options

SHOW = Command(name="retention list", usage="[OPTIONS]", summary="List the rules", flags=AT)
SET = Command(
    name="retention set",
    usage="[OPTIONS] REPOSITORY-GLOB",
    summary="Add a rule: which tags of which repositories stay",
    flags=(
        Flag("tags", "", LIST, "Tags that the rule is about, as 'pr-*'; default all"),
        Flag("keep-last", "", NUMBER, "Keep so many of the newest"),
        Flag("younger-than", "", TEXT, "Keep what is younger, as 90d or 12h"),
        Flag("pulled-within", "", TEXT, "Keep what was pulled since, as 30d"),
        *AT,
    ),
    minimum=1,
    maximum=1,
)
RM = Command(
    name="retention rm",
    usage="[OPTIONS] RULE...",
    summary="Remove rules",
    flags=AT,
    minimum=1,
    maximum=None,
)
PREVIEW = Command(
    name="retention preview",
    usage="[OPTIONS]",
    summary="Show what the rules would delete now",
    flags=AT,
)
RUN = Command(
    name="retention run",
    usage="[OPTIONS]",
    summary="Show what the rules delete, and let them run from now on",
    flags=(YES, *AT),
)

_UNITS = {"h": 3600, "d": 86400, "w": 7 * 86400}


def list_(options: Options, context: Context) -> int:
    from pyreg.administration import administration, when

    with administration(options, context) as admin:
        found = admin.get("/retention")
    rows = [
        (
            str(rule["id"]),
            rule["repositories"],
            " ".join(rule["tags"]),
            str(rule["keep_last"] or "-"),
            _days(rule["younger_s"]),
            _days(rule["pulled_s"]),
        )
        for rule in found["rules"]
    ]
    titles = ("RULE", "REPOSITORIES", "TAGS", "KEEP LAST", "YOUNGER THAN", "PULLED WITHIN")
    context.console.table(titles, rows)
    if found["acknowledged"]:
        ran = when(found["ran_at"] or None)
        context.console.note(f"They run; last {ran}, {found['deleted']} tags deleted")
    elif rows:
        context.console.note("They do not run yet: pyreg retention run shows and starts them")
    return 0


def set_(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    rule = {
        "repositories": options.arguments[0],
        "tags": list(options.texts("tags")) or ["*"],
        "keep_last": options.number("keep-last"),
        "younger_s": _seconds(options.text("younger-than")),
        "pulled_s": _seconds(options.text("pulled-within")),
    }
    with administration(options, context) as admin:
        added = admin.post("/retention/rules", rule)["rules"][-1]
    context.console.out(f"Added rule {added['id']}; nothing runs before: pyreg retention run")
    return 0


def rm(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration

    with administration(options, context) as admin:
        for rule in options.arguments:
            admin.delete(path_of("retention", "rules", rule))
            context.console.out(f"Removed rule {rule}")
    return 0


def preview(options: Options, context: Context) -> int:
    from pyreg.administration import administration

    with administration(options, context) as admin:
        _preview(context, admin)
    return 0


def run(options: Options, context: Context) -> int:
    from pyreg.administration import administration, confirmed

    with administration(options, context) as admin:
        name = _preview(context, admin)
        if not confirmed(options, context, "Delete these, and let the rules run each hour?"):
            return 1
        admin.post("/retention/acknowledge", {"name": name})
        done: dict[str, Any] = admin.post("/retention/run")
    context.console.out(f"Deleted {done['deleted']} tags; pyreg undo takes them back")
    return 0


def _preview(context: Context, admin: Admin) -> str:
    last, count = "", 0
    while True:
        page = admin.get("/retention/preview", **({"last": last} if last else {}))
        for going in page["going"]:
            context.console.out(f"{going['repository']}:{going['tag']}")
        count += len(page["going"])
        last = page["last"]
        if not last:
            context.console.note(f"{count} tags would be deleted")
            return str(page["name"])


def _seconds(text: str) -> int:
    if not text:
        return 0
    if text[:-1].isdecimal() and text[:-1].isascii() and text[-1] in _UNITS and len(text) < 8:
        return int(text[:-1]) * _UNITS[text[-1]]
    raise UsageError(f"'{text}' is no time span; write 12h, 30d or 8w")


def _days(seconds: int) -> str:
    if not seconds:
        return "-"
    return f"{seconds // 86400}d" if seconds % 86400 == 0 else f"{seconds // 3600}h"


SUBCOMMANDS = {
    "list": (SHOW, list_),
    "ls": (SHOW, list_),
    "set": (SET, set_),
    "rm": (RM, rm),
    "preview": (PREVIEW, preview),
    "run": (RUN, run),
}
