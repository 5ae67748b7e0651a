"""`pyreg why`: what keeps a blob or manifest, or when it goes."""

from __future__ import annotations

from pyreg.administration import AT, FORMAT
from pyreg.cli import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="why",
    usage="[OPTIONS] [REPOSITORY@]DIGEST",
    summary="Show what keeps a blob or manifest in the registry",
    flags=(FORMAT, *AT),
    minimum=1,
    maximum=1,
)


def run(options: Options, context: Context) -> int:
    from client.admin import path_of
    from pyreg.administration import administration, show_document, when
    from pyreg.human import size

    name, _, digest = options.arguments[0].rpartition("@")
    query = {"repository": name} if name else {}
    with administration(options, context) as admin:
        found = admin.get(path_of("why", digest), **query)["items"]
    if options.text("format") not in ("", "table"):
        show_document(options, context, found)
        return 0
    for each in found:
        out = context.console.out
        out(f"{each['kind']} {each['digest']}: {each['state']}, {size(each['size'])}")
        for repository in each["repositories"]:
            out(f"  in {repository}")
        for reason in each["reasons"]:
            until = f" until {when(reason['until'])}" if reason["until"] else ""
            where = f" in {reason['repository']}" if reason["repository"] else ""
            out(f"  kept by {reason['kind']} {reason['what']}{where}{until}")
        if not each["reasons"] and each["state"] == "live":
            out("  nothing keeps it")
        if each["review_at"]:
            out(f"  looked at {when(each['review_at'])} ({each['event']})")
    return 0
