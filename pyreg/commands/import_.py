"""pyreg import: make an image from the contents of a tarball."""

from __future__ import annotations

from pyreg.cli import LIST, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="import",
    usage="[OPTIONS] FILE|- [REPOSITORY[:TAG]]",
    summary="Make an image from the contents of a tarball",
    flags=(
        Flag("change", "c", LIST, "Apply a Dockerfile instruction to the created image"),
        Flag("message", "m", help="Set the comment of the created image"),
        Flag("platform", "", help="Platform of the image, such as linux/arm64"),
    ),
    minimum=1,
    maximum=2,
)


def run(options: Options, context: Context) -> int:
    import sys

    from client.rootfs import import_rootfs
    from pyreg.pulling import wanted_platform
    from pyreg.remotes import local_store, reference

    env = context.environment
    source, *rest = options.arguments
    if "://" in source:
        raise UsageError("URLs are not fetched: pipe one in, curl URL | pyreg import -")
    name = reference(env, rest[0]) if rest else None
    if name is not None and name.digest is not None:
        raise UsageError("an image cannot be given a digest: name a tag")
    with sys.stdin.buffer if source == "-" else open(source, "rb") as file:
        image = import_rootfs(
            file,
            local_store(env),
            platform=wanted_platform(options.text("platform")),
            created=_now(env.variables.get("SOURCE_DATE_EPOCH", "")),
            source=source,
            names=() if name is None else (name,),
            changes=options.texts("change"),
            message=options.text("message"),
        )
    context.console.out(str(image.id))
    return 0


def _now(epoch: str) -> str:
    """RFC 3339; SOURCE_DATE_EPOCH makes it the same every time, for reproducible images."""
    import time

    moment = time.gmtime(int(epoch)) if epoch.isdigit() else time.gmtime()
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
