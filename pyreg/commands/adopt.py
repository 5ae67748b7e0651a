"""pyreg adopt: take over the directory of another registry, without copying its blobs."""

from __future__ import annotations

from pyreg.cli import BOOL, NUMBER, Command, Flag, UsageError
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.adopt.adoption import Summary

COMMAND = Command(
    name="adopt",
    usage="[OPTIONS] DIR",
    summary="Take over a docker/registry/v2 directory without copying its blobs",
    flags=(
        Flag("dry-run", "", BOOL, "Only say what would be taken; hashes nothing"),
        Flag("no-verify", "", BOOL, "Believe that every blob has the bytes its name says"),
        Flag("jobs", "j", NUMBER, "Blobs to hash at once (as many as there are processors)"),
        *WHERE,
    ),
    minimum=1,
    maximum=1,
    details="DIR is the old registry's rootdirectory. Its blobs are hashed and get a second name\n"
    "in the registry's directory: hard links, so on the same file system. The old tree stays\n"
    "as it is. Stop the old registry, or pushes to it: what comes later is taken by running this\n"
    "again, as after an interruption. Exits with 1 if anything had to be left out.",
)
SHOWN = 50


def run(options: Options, context: Context) -> int:
    from pathlib import Path

    from pyreg.human import size
    from pyreg.registry_settings import registry_settings
    from registry.adopt.take import adopt

    jobs = options.number("jobs")
    if not 0 <= jobs <= 64:
        raise UsageError("--jobs is from 1 to 64")
    console = context.console
    shows = console.stderr.isatty()
    last = 0.0

    def progress(summary: Summary) -> None:
        nonlocal last
        import time

        if shows and time.monotonic() - last > 0.1:
            last = time.monotonic()
            text = f"{summary.repositories} repositories, {summary.manifests} manifests, "
            text += f"{summary.blobs} blobs, {size(summary.bytes)}"
            console.stderr.write(f"\r\x1b[K{text[: console.width - 1]}")
            console.stderr.flush()

    is_dry = options.flag("dry-run")
    try:
        summary = adopt(
            Path(options.arguments[0]),
            registry_settings(options, context, {}),
            is_dry=is_dry,
            verify=not options.flag("no-verify"),
            jobs=jobs,
            progress=progress,
        )
    finally:
        if shows:
            console.stderr.write("\r\x1b[K")
    console.out(
        f"{'Would adopt' if is_dry else 'Adopted'} {summary.repositories} repositories,"
        f" {summary.manifests} manifests, {summary.tags} tags,"
        f" {summary.blobs} blobs ({size(summary.bytes)})"
    )
    if summary.present:
        console.out(f"{summary.present} blobs were here already")
    if summary.unused:
        console.out(f"{summary.unused} layers that no manifest uses were left")
    for where, why in summary.skipped[:SHOWN]:
        console.warn(f"left out {where}: {why}")
    count = sum(summary.reasons.values())
    if count > SHOWN:
        console.warn(f"{count} left out in all:")
        for why, number in summary.reasons.most_common(20):
            console.warn(f"{number} × {why}")
    return 1 if count else 0
