"""pyreg rmi: remove names, and images with their last name."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="rmi",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    summary="Remove one or more images",
    flags=(
        Flag("force", "f", BOOL, "Remove an image with all its names; do not fail if it is absent"),
    ),
    minimum=1,
    maximum=None,
)


def run(options: Options, context: Context) -> int:
    from client.errors import ImageNotFound, LocalStoreError
    from ocispec.errors import SpecError
    from pyreg.remotes import local_store

    console, env = context.console, context.environment
    store = local_store(env)
    status = 0
    for wanted in options.arguments:
        try:
            done = store.remove(wanted, force=options.flag("force"))
        except (LocalStoreError, SpecError) as error:
            console.error(str(error), error.hint)
            if not (isinstance(error, ImageNotFound) and options.flag("force")):
                status = 1
            continue
        for name in done.untagged:
            console.out(f"Untagged: {_familiar(name, env.default_registry)}")
        if done.image is not None:
            console.out(f"Deleted: {done.image.id}")
            for digest in done.deleted:
                if digest != done.image.id:
                    console.out(f"Deleted: {digest}")
    return status


def _familiar(name: str, default_registry: str) -> str:
    from ocispec.distribution.reference import Reference

    return Reference.parse(name, default_registry=default_registry).familiar(default_registry)
