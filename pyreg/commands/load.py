"""pyreg load: images from a tar archive."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="load",
    usage="[OPTIONS]",
    summary="Load images from a tar archive",
    details="Reads what pyreg save, docker save, podman save and OCI tools write, also compressed.",
    flags=(
        Flag("input", "i", help="Read from a file, instead of STDIN", metavar="FILE"),
        Flag("platform", "", help="Platform to take where the archive has several"),
        Flag("quiet", "q", BOOL, "Show no progress"),
    ),
    maximum=0,
)


def run(options: Options, context: Context) -> int:
    import sys

    from client.load import load
    from pyreg.progress import Counter
    from pyreg.pulling import wanted_platform
    from pyreg.remotes import local_store

    env, console = context.environment, context.console
    path = options.text("input")
    if not path and sys.stdin.isatty():
        raise UsageError("nothing to load: use -i FILE, or redirect an archive to this command")
    shown = console.stderr.isatty() and not options.flag("quiet")
    counter = Counter(console, "Loading") if shown else None
    try:
        with open(path, "rb") if path else sys.stdin.buffer as file:
            done = load(
                file,
                local_store(env),
                wanted_platform(options.text("platform")),
                source=path or "the archive",
                on_bytes=counter.add if counter is not None else None,
            )
    finally:
        if counter is not None:
            counter.close()
    for each in done:
        for name in each.names:
            console.out(f"Loaded image: {name.familiar(env.default_registry)}")
        if not each.names:
            console.out(f"Loaded image ID: {each.image.id}")
    return 0
