"""Pull as `pull` and `run` do it: the client fetches, the display shows it."""

from __future__ import annotations

import os

from client.progress import PULLED, Silence
from client.pull import pull
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
    """Fetch one image, showing progress on stderr unless `quiet`."""
    console = context.console
    store = local_store(context.environment)
    source = remotes.registry(reference.registry).repository(reference.repository)
    shown = None if quiet else display(console)
    if not quiet:
        console.note(f"{reference.target}: Pulling from {reference.repository}")

    def on_image(manifest: ImageManifest, config: ImageConfig) -> None:
        if shown is not None:
            shown.announce(layer.digest for layer in manifest.layers)

    def on_layer(position: int, layer: Descriptor) -> None:
        if shown is not None:
            shown.step(layer.digest, PULLED)

    try:
        return pull(
            reference,
            source,
            store,
            platform,
            progress=shown or Silence(),
            on_image=on_image,
            on_layer=on_layer,
            parallel_blobs=remotes.options.parallel,
            attempts=remotes.options.attempts,
            pause=remotes.transport.pause,
        )
    finally:
        if shown is not None:
            shown.close()
