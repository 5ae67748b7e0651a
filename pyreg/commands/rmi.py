"""pyreg rmi: remove names, and images with their last name."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from client.local import LocalStore
    from client.localimage import LocalImage
    from ocispec.digest import Digest
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
    from pyreg.remotes import familiar, local_store

    console, env = context.console, context.environment
    store = local_store(env)
    status = 0
    for wanted in options.arguments:
        try:
            diff_ids = _diff_ids(store, wanted)
            done = store.remove(
                wanted, force=options.flag("force"), guard=_guard(context, options.flag("force"))
            )
        except (LocalStoreError, SpecError) as error:
            console.error(str(error), error.hint)
            if not (isinstance(error, ImageNotFound) and options.flag("force")):
                status = 1
            continue
        for name in done.untagged:
            console.out(f"Untagged: {familiar(name, env.default_registry)}")
        if done.image is not None:
            console.out(f"Deleted: {done.image.id}")
            for digest in done.deleted:
                if digest != done.image.id:
                    console.out(f"Deleted: {digest}")
            _remove_layers(diff_ids, store, context)
    return status


def _diff_ids(store: LocalStore, wanted: str) -> tuple[Digest, ...]:
    """The layers of an image that may be about to go; none if its config is lost already."""
    from client.errors import ImageNotFound, LocalStoreError

    try:
        return store.resolve(wanted).config.diff_ids
    except ImageNotFound:
        raise
    except LocalStoreError:
        return ()


def _guard(context: Context, force: bool) -> Callable[[LocalImage], None]:
    """Refuses an image that a container stands on: a running one always, a stopped without -f."""

    def check(image: LocalImage) -> None:
        import os

        from client.errors import ImageInUse
        from runtime.engine import Engine
        from runtime.paths import Paths

        paths = Paths(context.environment.root, context.environment.run)
        if not os.path.isdir(paths.containers):
            return
        containers = Engine(paths, rootless=os.geteuid() != 0).containers
        for record, state in containers.all():
            if record.image_id != str(image.id):
                continue
            if state.status in ("running", "paused"):
                raise ImageInUse(
                    f"container {record.id[:12]} ({record.name}) is using image {_short(image)}",
                    hint="stop and remove the container first",
                )
            if not force:
                raise ImageInUse(
                    f"stopped container {record.id[:12]} ({record.name}) is using image "
                    f"{_short(image)}",
                    hint="remove the container first, or use --force",
                )

    return check


def _short(image: LocalImage) -> str:
    return image.id.encoded[:12]


def _remove_layers(diff_ids: tuple[Digest, ...], store: LocalStore, context: Context) -> None:
    """Remove the unpacked layers that no other image and no container stands on."""
    from client.errors import LocalStoreError
    from runtime.errors import LayerInUse
    from runtime.images.store import LayerStore
    from runtime.paths import Paths, layer_name

    env = context.environment
    paths = Paths(env.root, env.run)
    paths.create()
    layers = LayerStore(paths)
    try:
        used = frozenset(
            layer_name(diff_id) for image in store.images() for diff_id in image.config.diff_ids
        )
    except LocalStoreError:
        return  # some image cannot be read: nothing is known to be unused then
    for diff_id in diff_ids:
        try:
            layers.remove(diff_id, used=used)
        except LayerInUse:
            continue  # it goes with its last container or image
