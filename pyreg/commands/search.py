"""pyreg search: look for repositories in a registry."""

from __future__ import annotations

from pyreg.cli import BOOL, LIST, NUMBER, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client.remote import Registry
    from client.search import Found
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="search",
    usage="[OPTIONS] [HOST/]TERM...",
    summary="Search a registry for images",
    flags=(
        Flag("filter", "f", LIST, "stars=N, is-official=BOOL or is-automated=BOOL"),
        Flag("format", "", help="'table', 'table TEMPLATE', 'json', or a Go template"),
        Flag("limit", "", NUMBER, "Max number of search results", default=25),
        Flag("no-trunc", "", BOOL, "Don't truncate output"),
        Flag("wide", "", BOOL, "Show platforms, and when something was pushed last (pyreg only)"),
        Flag("reindex", "", BOOL, "Have a pyreg registry index everything anew (administrators)"),
    ),
    minimum=0,
    maximum=None,
    details="Without HOST the default registry is asked. A registry that has no search is asked\n"
    "for its catalog. HOST/ alone lists everything.\n"
    "A pyreg registry also knows tag:1.*, label:key=value, annotation:key=value,\n"
    "platform:linux/arm64, base:debian and type:application/…; all must fit.",
)
HEADINGS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
}
WIDE = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "Platforms": "PLATFORMS",
    "Updated": "LAST PUSH",
}


def run(options: Options, context: Context) -> int:
    from client.search import search
    from pyreg.listing import show
    from pyreg.remotes import Remotes

    default = context.environment.default_registry
    host, term = _where(options.arguments, default)
    limit = options.number("limit")
    if not 1 <= limit <= 100:
        raise UsageError(f"Limit {limit} is outside the range of [1, 100]")
    wanted = _filters(options.texts("filter"))
    if not options.arguments and not options.flag("reindex"):
        raise UsageError("say what to look for, or HOST/ for everything")
    prefix = "" if host == default else f"{host}/"
    is_whole, is_wide = options.flag("no-trunc"), options.flag("wide")
    with Remotes(context.environment) as remotes:
        registry = remotes.registry(host.lower())
        if options.flag("reindex"):
            return _reindex(registry, context)
        if is_wide:
            rows = _wide(registry, term, limit, prefix, is_whole)
        else:
            rows = [
                {
                    "Name": prefix + found.name,
                    "Description": _short(found.description, is_whole),
                    "StarCount": str(found.stars),
                    "IsOfficial": "[OK]" if found.is_official else "",
                }
                for found in search(registry, term, limit)
                if wanted(found)
            ]
    headings = WIDE if is_wide else HEADINGS
    show(
        context.console,
        rows,
        columns=tuple(headings),
        headings=headings,
        template=options.text("format"),
    )
    return 0


def _where(arguments: Sequence[str], default: str) -> tuple[str, str]:
    """The registry and what to look for; the first argument may name a host."""
    from ocispec.distribution.reference import is_host

    words = list(arguments)
    host, slash, rest = words[0].partition("/") if words else ("", "", "")
    # `label:a=b/c` has a slash, too, and `platform:linux/arm64` is no host with a port.
    known = ("tag", "label", "annotation", "platform", "base", "type")
    if slash and is_host(host) and host.partition(":")[0] not in known:
        words[0] = rest
    else:
        host = default
    # What one argument holds together stays together.
    quoted = [f'"{word}"' if " " in word and '"' not in word else word for word in words]
    return host, " ".join(quoted if len(quoted) > 1 else words).strip()


def _filters(given: Sequence[str]) -> Callable[[Found], bool]:
    """docker's filters. Raises: UsageError."""
    stars, official, automated = 0, None, None
    for one in given:
        key, equals, text = one.partition("=")
        if key == "stars" and equals and text.isascii() and text.isdigit():
            stars = max(stars, int(text[:9]))
        elif key in ("is-official", "is-automated") and text.lower() in _BOOLS:
            if key == "is-official":
                official = _BOOLS[text.lower()]
            else:
                automated = _BOOLS[text.lower()]
        else:
            raise UsageError(f"invalid filter '{one}'")

    def wanted(found: Found) -> bool:
        # Nothing is automated any more: docker.io ended it.
        return (
            found.stars >= stars
            and official in (None, found.is_official)
            and automated in (None, False)
        )

    return wanted


_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def _wide(
    registry: Registry, term: str, limit: int, prefix: str, is_whole: bool
) -> list[dict[str, str]]:
    import time

    from client.admin import Admin, HttpCarrier

    found = Admin(HttpCarrier(registry)).get("/search", q=term, n=limit)
    return [
        {
            "Name": prefix + str(item["name"]),
            "Description": _short(str(item["description"]), is_whole),
            "Platforms": _short(", ".join(map(str, item["platforms"])), is_whole),
            "Updated": time.strftime("%Y-%m-%d %H:%M", time.localtime(int(item["updated_at"]))),
        }
        for item in found["items"]
    ]


def _reindex(registry: Registry, context: Context) -> int:
    from client.admin import Admin, HttpCarrier

    Admin(HttpCarrier(registry)).post("/search/index/rebuild")
    context.console.out(f"{registry.name} indexes everything anew; it is searched meanwhile")
    return 0


def _short(text: str, whole: bool) -> str:
    text = " ".join(text.split())
    return text if whole or len(text) <= 45 else text[:44] + "…"
