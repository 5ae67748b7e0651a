"""`pyreg db`: the registry's database, whether the registry serves meanwhile or not."""

from __future__ import annotations

from pyreg.cli import BOOL, TEXT, Command, Flag
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.settings import Settings

_FORMAT = Flag("format", "", TEXT, "Output: text or json", default="text")

UPGRADE = Command(
    name="db upgrade",
    usage="[OPTIONS]",
    summary="Create the database or bring its tables up to date",
    flags=(_FORMAT, *WHERE),
    details="`pyreg serve` does the same at its start, unless --no-upgrade is given.",
)
CURRENT = Command(
    name="db current",
    usage="[OPTIONS]",
    summary="Print the revision of the database's tables; fails if it is not this pyreg's",
    flags=(_FORMAT, *WHERE),
)
CHECK = Command(
    name="db check",
    usage="[OPTIONS]",
    summary="Look for damage in the database; fails if there is any",
    flags=(
        Flag("blobs", "", BOOL, "Also look whether every blob has its bytes, by their size"),
        _FORMAT,
        *WHERE,
    ),
)
BACKUP = Command(
    name="db backup",
    usage="[OPTIONS] FILE",
    summary="Copy the database to a new file while the registry serves",
    flags=(_FORMAT, *WHERE),
    minimum=1,
    maximum=1,
    details=(
        "A copy of SQLite is a database: put it in the place of metadata.db to restore it. A copy\n"
        "of PostgreSQL is made by pg_dump and restored by pg_restore. Copy the blobs afterwards:\n"
        "what is deleted meanwhile is missing, what the database names is there."
    ),
)


def upgrade(options: Options, context: Context) -> int:
    """Create or upgrade."""
    from registry import maintenance

    settings = _settings(options, context)
    before, after = maintenance.upgrade(settings)
    if _is_json(options):
        _print(context, {"before": before.found, "after": after.found})
    elif before.is_current:
        context.console.out(f"{maintenance.place(settings)} is up to date ({after.found})")
    else:
        origin = f"from {before.found}" if before.found else "from nothing"
        context.console.out(f"Upgraded {maintenance.place(settings)} {origin} to {after.found}")
    return 0


def current(options: Options, context: Context) -> int:
    """Print the revision."""
    from registry import maintenance

    schema = maintenance.schema_of(_settings(options, context))
    if _is_json(options):
        _print(
            context, {"found": schema.found, "wanted": schema.wanted, "current": schema.is_current}
        )
    else:
        verdict = "" if schema.is_current else f", this pyreg needs {schema.wanted}"
        context.console.out(f"{schema.found or 'none'}{verdict}")
    return 0 if schema.is_current else 1


def check(options: Options, context: Context) -> int:
    """Print what is wrong."""
    from registry import maintenance

    settings = _settings(options, context)
    findings = maintenance.check(settings, blobs=options.flag("blobs"))
    if _is_json(options):
        found = [{"kind": finding.kind, "message": finding.message} for finding in findings]
        _print(context, {"database": maintenance.place(settings), "problems": found})
    else:
        for finding in findings:
            context.console.out(f"{finding.kind}: {finding.message}")
        if not findings:
            context.console.out(f"{maintenance.place(settings)}: nothing is wrong")
    return 1 if findings else 0


def backup(options: Options, context: Context) -> int:
    """Copy."""
    from pathlib import Path

    from pyreg.human import size
    from registry import maintenance

    target = Path(options.arguments[0])
    count = maintenance.backup(_settings(options, context), target)
    if _is_json(options):
        _print(context, {"file": str(target), "bytes": count})
    else:
        context.console.out(f"Wrote {target}, {size(count)}")
    return 0


SUBCOMMANDS = {
    "upgrade": (UPGRADE, upgrade),
    "current": (CURRENT, current),
    "check": (CHECK, check),
    "backup": (BACKUP, backup),
}


def _settings(options: Options, context: Context) -> Settings:
    from pyreg.registry_settings import registry_settings

    _is_json(options)
    return registry_settings(options, context, {})


def _is_json(options: Options) -> bool:
    from pyreg.cli import FlagError

    if options.text("format") not in ("text", "json"):
        raise FlagError(f'invalid argument "{options.text("format")}" for "--format": text or json')
    return options.text("format") == "json"


def _print(context: Context, document: object) -> None:
    import json

    context.console.out(json.dumps(document, indent=2))
