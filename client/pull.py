"""Pull: from a name to a recorded image in the local store.

    manifest (index → platform) → config → layers, a few at once → record

`on_image` is told manifest and config before the layers, and `on_layer` each layer as soon as its
blob is committed, so that unpacking runs beside the downloads. Nothing is visible under the name
before all of it is there.
"""

from __future__ import annotations

import threading

from client import parallel
from client.errors import ContentMismatch, RefusedContent
from client.local_transfer import LocalSink
from client.localimage import MAX_CONFIG_BYTES, read_blob
from client.progress import Silence, Stoppable
from client.select import choose
from ocispec.descriptor import Descriptor
from ocispec.errors import SpecError
from ocispec.image.config import ImageConfig
from ocispec.image.manifest import ImageIndex, ImageManifest
from ocispec.mediatype import DOCKER_CONFIG, MANIFEST_TYPES, OCI_CONFIG
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from client.local import LocalStore
    from client.localimage import LocalImage
    from client.progress import Progress
    from client.source import ImageSource
    from ocispec.distribution.reference import Reference
    from ocispec.image.platform import Platform

MAX_LAYERS = 512  # docker stops at 127, overlayfs at 500
MAX_LAYER_BYTES = 256 << 30  # against a descriptor that claims to fill any disk
MAX_NESTING = 3  # an index of indexes is legal, an endless chain is not


@value
class Pulled:
    """The outcome of a pull.

    image: as recorded in the store
    target: what the name pointed at: the manifest, or the index
    is_new: the store did not have it under this name before
    """

    image: LocalImage
    target: Descriptor
    is_new: bool


def pull(
    reference: Reference,
    source: ImageSource,
    store: LocalStore,
    platform: Platform,
    *,
    progress: Progress | None = None,
    on_image: Callable[[ImageManifest, ImageConfig], None] | None = None,
    on_layer: Callable[[int, Descriptor], None] | None = None,
    parallel_blobs: int = 4,
    attempts: int = 5,
    pause: Callable[[int], None] | None = None,
) -> Pulled:
    """Fetch an image and record it under the reference.

    `on_layer(position, descriptor)` is called from the transfer's threads, once per layer, also
    for those that were here already. What it raises ends the pull.

    Raises: NotFound, RefusedContent, ContentMismatch, TransferInterrupted, … Blobs that are
    complete then stay for the next try, and so does the partial one.
    """
    progress = progress or Silence()
    sink = LocalSink(store, attempts=attempts, **({"pause": pause} if pause else {}))
    with store.lease() as lease:
        root = source.manifest(reference.target)
        chain, manifest = _descend(root, source, platform, str(reference))
        _check(manifest, str(reference))
        lease.hold(document.digest for document in chain)
        lease.hold((manifest.digest, *(d.digest for d in manifest.references())))
        before = store.find(reference)
        sink.put_blob(manifest.config, source, Silence())
        config = _config(store, manifest)
        if on_image is not None:
            on_image(manifest, config)
        _fetch_layers(manifest, source, sink, progress, on_layer, parallel_blobs)
        leaf = sink.put_manifest(manifest)
        target = leaf
        for index in reversed(chain):
            target = sink.put_manifest(index)
        image = store.record(target, names=(reference,), manifest=leaf, from_registry=True)
    same = before is not None and before.descriptor.digest == leaf.digest
    is_new = not same or before is None or before.target.digest != target.digest
    return Pulled(image=image, target=target, is_new=is_new)


def _descend(
    root: ImageManifest | ImageIndex, source: ImageSource, platform: Platform, name: str
) -> tuple[list[ImageIndex], ImageManifest]:
    """From what the name points at to the platform's manifest, with the indexes passed."""
    chain: list[ImageIndex] = []
    found = root
    while isinstance(found, ImageIndex):
        if len(chain) == MAX_NESTING:
            raise RefusedContent(f"{name}: indexes are nested deeper than {MAX_NESTING}")
        chain.append(found)
        entry = choose(found, platform, name)
        child = source.manifest(str(entry.digest))
        if len(child.raw) != entry.size:
            raise ContentMismatch(
                f"size of manifest {entry.digest}", expected=entry.size, found=len(child.raw)
            )
        if child.media_type != entry.media_type:
            # The same bytes under two types could mean two things: CVE-2021-41190.
            raise RefusedContent(
                f"manifest {entry.digest} is {child.media_type}, its index says {entry.media_type}"
            )
        found = child
    return chain, found


def _check(manifest: ImageManifest, name: str) -> None:
    """Refuse what could not become an image, before anything is transferred."""
    if manifest.config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise RefusedContent(
            f"{name} is not an image: its config is {manifest.config.media_type}",
            hint="an artifact, such as a chart or a signature, cannot be pulled as an image",
        )
    if manifest.config.size > MAX_CONFIG_BYTES:
        raise RefusedContent(f"{name}: its config is larger than {MAX_CONFIG_BYTES} bytes")
    if len(manifest.layers) > MAX_LAYERS:
        raise RefusedContent(
            f"{name} has {len(manifest.layers)} layers, more than the {MAX_LAYERS} allowed"
        )
    sizes: dict[object, int] = {}
    for layer in manifest.layers:
        if layer.media_type in MANIFEST_TYPES or layer.size > MAX_LAYER_BYTES:
            raise RefusedContent(f"{name}: layer {layer.digest} is not a layer we can take")
        if sizes.setdefault(layer.digest, layer.size) != layer.size:
            raise RefusedContent(f"{name}: layer {layer.digest} is named with two sizes")


def _config(store: LocalStore, manifest: ImageManifest) -> ImageConfig:
    try:
        return ImageConfig.parse(read_blob(store.layout, manifest.config, MAX_CONFIG_BYTES))
    except SpecError as error:
        raise RefusedContent(f"the image's config is refused: {error}") from error


def _fetch_layers(
    manifest: ImageManifest,
    source: ImageSource,
    sink: LocalSink,
    progress: Progress,
    on_layer: Callable[[int, Descriptor], None] | None,
    count: int,
) -> None:
    positions: dict[str, list[int]] = {}
    for position, layer in enumerate(manifest.layers):
        positions.setdefault(str(layer.digest), []).append(position)
    stop = threading.Event()
    told = Stoppable(progress, stop)

    def fetch(layer: Descriptor) -> None:
        sink.put_blob(layer, source, told)
        for position in positions[str(layer.digest)]:
            if on_layer is not None:
                on_layer(position, layer)

    # Largest first: the pull ends when the largest does, so it must not start last.
    once = {str(layer.digest): layer for layer in manifest.layers}
    ordered = sorted(once.values(), key=lambda layer: layer.size, reverse=True)
    parallel.run(fetch, ordered, count, stop)
