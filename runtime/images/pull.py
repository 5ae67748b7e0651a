"""From blobs in the image store to layers that can be mounted.

`run` calls `ensure_layers`, which is one look at a directory for each layer when all is there. A
pull unpacks while it downloads: make an `Unpacking` before anything heavy is imported, and give its
two methods to the client's pull.
"""

from __future__ import annotations

from ocispec.value import value
from runtime.errors import EngineError, LayerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from client.localimage import LocalImage
    from ocispec.descriptor import Descriptor
    from ocispec.digest import Digest
    from ocispec.image.config import ImageConfig
    from ocispec.image.layout import Layout
    from ocispec.image.manifest import ImageManifest
    from runtime.images.store import LayerStore


@value
class ImageLayer:
    """A layer as its image names it twice: the blob in the manifest, the archive in the config."""

    blob: Descriptor
    diff_id: Digest


def image_layers(manifest: ImageManifest, config: ImageConfig) -> tuple[ImageLayer, ...]:
    """The layers of an image, the base first.

    Raises: LayerError if manifest and config do not name the same number.
    """
    if len(manifest.layers) != len(config.diff_ids):
        raise LayerError(
            f"the manifest has {len(manifest.layers)} layers and the config "
            f"{len(config.diff_ids)}: this is not one image",
            hint="the image is broken where it was made",
        )
    pairs = zip(manifest.layers, config.diff_ids, strict=True)
    return tuple(ImageLayer(blob, diff_id) for blob, diff_id in pairs)


def ensure_layers(
    image: LocalImage,
    layout: Layout,
    layers: LayerStore,
    *,
    rootless: bool | None = None,
    on_left_out: Callable[[str], None] = lambda _: None,
) -> tuple[Digest, ...]:
    """The diff ids of an image, the base first, with every layer unpacked in the store.

    What is missing is unpacked from the blobs; the calling process must have one thread then.
    `on_left_out` is told, once each, what these layers have that is not on disk.
    Raises: LayerError and its kinds, NotEnoughSpace; LocalStoreError if a blob is missing too.
    """
    wanted = image_layers(image.manifest, image.config)
    missing = {layer.diff_id: layer for layer in wanted if not layers.has(layer.diff_id)}
    if missing:
        from runtime.images.pool import UnpackJob, UnpackPool

        with UnpackPool(layers, rootless=rootless) as pool:
            for layer in missing.values():
                pool.submit(_job(layer, layout, UnpackJob))
            pool.finish()
        for what in dict.fromkeys(pool.left_out):
            on_left_out(what)
    return tuple(layer.diff_id for layer in wanted)


class Unpacking:
    """The unpacking side of a pull: `on_image` and `on_layer` are what the client's pull calls.

    Make it first, while the process is small and has one thread, and use it in a `with`. It unpacks
    each layer as soon as its blob is committed. The last `on_layer` returns when all layers are
    unpacked, so the image gets its name only when it can run; any may raise what went wrong.
    """

    def __init__(
        self,
        layers: LayerStore,
        layout: Layout,
        *,
        rootless: bool | None = None,
        on_unpacked: Callable[[Descriptor], None] | None = None,
    ) -> None:
        """`on_unpacked` is told each layer that is ready, also one that was before."""
        from runtime.images.pool import UnpackPool

        self._layers = layers
        self._layout = layout
        self._on_unpacked = on_unpacked
        self._pool = UnpackPool(layers, rootless=rootless)
        self._wanted: tuple[ImageLayer, ...] = ()
        self._seen = 0
        self._submitted: set[Digest] = set()

        import threading  # after the fork

        self._lock = threading.Lock()

    def on_image(self, manifest: ImageManifest, config: ImageConfig) -> None:
        """Raises: LayerError if this is no image, NotEnoughSpace if it cannot fit."""
        self._wanted = image_layers(manifest, config)
        self._seen = 0
        # Compressed sizes are the least that is needed: for the blob, and once more unpacked.
        todo = {
            layer.diff_id: layer.blob.size
            for layer in self._wanted
            if not self._layers.has(layer.diff_id)
        }
        if todo:  # the reserve is for what is new: an image that is here may be pulled again
            self._layers.require_space(2 * sum(todo.values()))

    def on_layer(self, position: int, descriptor: Descriptor) -> None:
        """The blob of this layer is in the store. Called from any thread, once per position.

        Raises: LayerError and its kinds, NotEnoughSpace: of this layer or of another.
        """
        from runtime.images.pool import UnpackJob

        with self._lock:
            layer = self._wanted[position]
            self._seen += 1
            if layer.diff_id not in self._submitted:
                self._submitted.add(layer.diff_id)
                self._pool.submit(_job(layer, self._layout, UnpackJob))
            last = self._seen == len(self._wanted)
            while (ended := self._pool.collect(None if last else 0)) is not None:
                self._tell(*ended)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the layers had that is not on disk, for a warning; see `UnpackPool`."""
        return tuple(dict.fromkeys(self._pool.left_out))

    def close(self) -> None:
        """End what still runs. A second time does nothing."""
        self._pool.close()

    def _tell(self, diff_id: Digest, error: EngineError | None) -> None:
        if error is not None:
            raise error
        if self._on_unpacked is not None:
            for layer in self._wanted:
                if layer.diff_id == diff_id:
                    self._on_unpacked(layer.blob)

    def __enter__(self) -> Unpacking:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


if TYPE_CHECKING:
    from runtime.images.pool import UnpackJob


def _job(layer: ImageLayer, layout: Layout, make: type[UnpackJob]) -> UnpackJob:
    path = layout.blob_path(layer.blob.digest)
    return make(path, layer.blob.digest, layer.blob.size, layer.diff_id)
