"""pyreg save: images as a tar archive."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.local import LocalStore
    from client.localimage import LocalImage
    from client.save import SavedImage
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="save",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    summary="Save one or more images to a tar archive",
    details=(
        "The archive is an OCI image layout that docker, podman and containerd load as well.\n"
        "A repository without a tag means all its tags. Names keep no default registry, so that\n"
        "another machine finds them in its own."
    ),
    flags=(
        Flag("output", "o", help="Write to a file, instead of STDOUT", metavar="FILE"),
        Flag("quiet", "q", BOOL, "Show no progress"),
    ),
    minimum=1,
    maximum=None,
)


def run(options: Options, context: Context) -> int:
    import os
    import sys

    from client.save import save
    from pyreg.progress import Counter
    from pyreg.remotes import local_store

    path = options.text("output")
    if not path and sys.stdout.isatty():
        raise UsageError("refusing to save to a terminal: use -o FILE, or redirect")
    store = local_store(context.environment)
    images = wanted_images(options.arguments, store, context.environment.default_registry)
    shown = context.console.stderr.isatty() and not options.flag("quiet")
    counter = Counter(context.console, "Saving") if shown else None
    on_bytes = counter.add if counter is not None else None
    try:
        if not path:
            save(images, store, sys.stdout.buffer, on_bytes=on_bytes)
            sys.stdout.buffer.flush()
            return 0
        # Beside its place, so that a file of this name is a whole archive, whatever happens.
        partial = f"{path}.{os.getpid()}.partial"
        try:
            with open(partial, "xb") as file:
                save(images, store, file, on_bytes=on_bytes)
                file.flush()
                os.fdatasync(file.fileno())
            os.rename(partial, path)
        except BaseException:
            if os.path.exists(partial):
                os.unlink(partial)
            raise
    finally:
        if counter is not None:
            counter.close()
    return 0


def wanted_images(
    words: Iterable[str], store: LocalStore, default_registry: str
) -> tuple[SavedImage, ...]:
    """The images that the words mean, with the names each is saved under, as docker does it:

    name:tag → that name; name → every tag of the repository; id or digest → no name.
    """
    from client.save import SavedImage
    from ocispec.distribution.reference import Reference
    from ocispec.errors import SpecError
    from pyreg.remotes import familiar

    found: dict[str, tuple[LocalImage, list[str]]] = {}
    for word in words:
        try:
            reference = Reference.parse(word, default_registry=default_registry)
        except SpecError:
            reference = None
        names: list[str] = []
        if reference is not None and reference.tag is None and reference.digest is None:
            repository = f"{reference.registry}/{reference.repository}:"
            for image in store.images():
                tags = [name for name in image.names if name.startswith(repository)]
                if tags:
                    _add(found, image, tags)
                    names += tags
        if names:
            continue
        image = store.resolve(word)
        full = "" if reference is None else str(reference.with_default_tag())
        _add(found, image, [full] if full in image.names and "@" not in full else [])
    return tuple(
        SavedImage(image, tuple(familiar(name, default_registry) for name in names))
        for image, names in found.values()
    )


def _add(
    found: dict[str, tuple[LocalImage, list[str]]], image: LocalImage, names: list[str]
) -> None:
    key = str(image.descriptor.digest)
    known = found.setdefault(key, (image, []))[1]
    known += [name for name in names if name not in known]
