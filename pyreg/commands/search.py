"""pyreg search: look for repositories in a registry."""

from __future__ import annotations

from pyreg.cli import BOOL, NUMBER, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="search",
    usage="[OPTIONS] [HOST/]TERM",
    summary="Search a registry for images",
    flags=(
        Flag("format", "", help="'table', 'table TEMPLATE', 'json', or a Go template"),
        Flag("limit", "", NUMBER, "Max number of search results", default=25),
        Flag("no-trunc", "", BOOL, "Don't truncate output"),
    ),
    minimum=1,
    maximum=1,
    details="Without HOST the default registry is asked. A registry that has no search is asked\n"
    "for its catalog. HOST/ alone lists everything.",
)
HEADINGS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
}


def run(options: Options, context: Context) -> int:
    from client.search import search
    from ocispec.distribution.reference import is_host
    from pyreg.listing import show
    from pyreg.remotes import Remotes

    default = context.environment.default_registry
    word = options.arguments[0]
    host, slash, term = word.partition("/")
    if not slash or not is_host(host):
        host, term = default, word
    limit = options.number("limit")
    if not 1 <= limit <= 100:
        raise UsageError(f"Limit {limit} is outside the range of [1, 100]")
    with Remotes(context.environment) as remotes:
        results = search(remotes.registry(host.lower()), term, limit)
    prefix = "" if host == default else f"{host}/"
    rows = [
        {
            "Name": prefix + found.name,
            "Description": _short(found.description, options.flag("no-trunc")),
            "StarCount": str(found.stars),
            "IsOfficial": "[OK]" if found.is_official else "",
        }
        for found in results
    ]
    show(
        context.console,
        rows,
        columns=tuple(HEADINGS),
        headings=HEADINGS,
        template=options.text("format"),
    )
    return 0


def _short(text: str, whole: bool) -> str:
    text = " ".join(text.split())
    return text if whole or len(text) <= 45 else text[:44] + "…"
