"""Pull as `pull` and `run` do it: fetched by the client, unpacked by the runtime, shown as bars."""

from __future__ import annotations

import os

from client.progress import EXTRACTING, PULLED, Silence
from ocispec.image.platform import Platform
from pyreg.progress import display
from pyreg.remotes import local_store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.pull import Pulled
    from ocispec.descriptor import Descriptor
    from ocispec.distribution.reference import Reference
    from ocispec.image.config import ImageConfig
    from ocispec.image.manifest import ImageManifest
    from pyreg.__main__ import Context
    from pyreg.remotes import Remotes


def wanted_platform(text: str) -> Platform:
    """The platform asked for, this machine's when the text is empty."""
    return Platform.parse(text) if text else Platform.of_machine(os.uname().machine)


def pull_image(
    reference: Reference,
    remotes: Remotes,
    context: Context,
    *,
    platform: Platform,
    quiet: bool,
) -> Pulled:
    """Fetch and unpack one image, showing progress on stderr unless `quiet`.

    Call it with one thread, and before anything was asked of `remotes`: it forks the processes
    that unpack. The image gets its name when every layer is ready to run.
    """
    from runtime.images.pull import Unpacking
    from runtime.images.store import LayerStore
    from runtime.paths import Paths

    console, env = context.console, context.environment
    store = local_store(env)
    layers = LayerStore(Paths(env.root, env.run))
    shown = None if quiet else display(console, env.variables.get("TERM", ""))
    progress = shown or Silence()

    def on_unpacked(layer: Descriptor) -> None:
        progress.step(layer.digest, PULLED)

    try:
        with Unpacking(layers, store.layout, on_unpacked=on_unpacked) as unpacking:
            from client.pull import pull

            def on_image(manifest: ImageManifest, config: ImageConfig) -> None:
                if shown is not None:
                    shown.announce(layer.digest for layer in manifest.layers)
                unpacking.on_image(manifest, config)

            def on_layer(position: int, layer: Descriptor) -> None:
                progress.step(layer.digest, EXTRACTING)
                unpacking.on_layer(position, layer)

            if not quiet:
                console.note(f"{reference.target}: Pulling from {reference.repository}")
            done = pull(
                reference,
                remotes.registry(reference.registry).repository(reference.repository),
                store,
                platform,
                progress=progress,
                on_image=on_image,
                on_layer=on_layer,
                parallel_blobs=remotes.options.parallel,
                attempts=remotes.options.attempts,
                pause=remotes.transport.pause,
            )
            notes = unpacking.left_out
    finally:
        if shown is not None:
            shown.close()
    for what in notes:
        console.note(left_out_note(what))
    return done


def left_out_note(what: str) -> str:
    """The sentence about something of an image's layers that is not on disk."""
    return f"Left out of the image: {what}"
