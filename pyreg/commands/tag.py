"""pyreg tag: give an image another name."""

from __future__ import annotations

from pyreg.cli import Command, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="tag",
    usage="SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
    summary="Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
    minimum=2,
    maximum=2,
)


def run(options: Options, context: Context) -> int:
    from pyreg.remotes import local_store, reference

    source, target = options.arguments
    name = reference(context.environment, target)
    if name.digest is not None:
        raise UsageError("refusing to create a tag with a digest reference")
    local_store(context.environment).tag(source, name)
    return 0
