"""`pyreg du`: who takes how many bytes of the registry."""

from __future__ import annotations

from pyreg.administration import AT, FORMAT
from pyreg.cli import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="du",
    usage="[OPTIONS] [REPOSITORY|NAMESPACE]",
    summary="Show the bytes of tags, repositories and namespaces of the registry",
    flags=(FORMAT, *AT),
    minimum=0,
    maximum=1,
)


def run(options: Options, context: Context) -> int:
    from pyreg.administration import administration, show_document
    from pyreg.human import size
    from pyreg.listing import show

    name = options.arguments[0] if options.arguments else ""
    with administration(options, context) as admin:
        found = admin.get("/usage", name=name)
        page = found
        while page["more"]:
            page = admin.get("/usage", name=name, last=page["items"][-1]["name"])
            found["items"] += page["items"]
    found["more"] = False
    if options.text("format") not in ("", "table"):
        show_document(options, context, found)
        return 0
    rows = [
        {
            "Name": each["name"] or "(all)",
            "Manifests": str(each["manifests"]),
            "Logical": size(each["logical"]),
            "Unique": size(each["unique"]),
            "Exclusive": size(each["exclusive"]),
        }
        for each in (*found["items"], found["total"])
    ]
    headings = {key: key.upper() for key in rows[0]}
    show(context.console, rows, columns=tuple(headings), headings=headings, template="")
    return 0
