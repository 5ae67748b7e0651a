"""Push: an image of the local store to a registry. Blobs, then manifests, then the tag."""

from __future__ import annotations

import os
import threading

from client import parallel
from client.errors import LocalStoreError
from client.local_transfer import LocalSource
from client.progress import Silence, Stoppable
from client.sources import Sources
from ocispec.image.manifest import ImageIndex
from ocispec.mediatype import is_foreign
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.local import LocalStore
    from client.progress import Progress
    from client.remote import RemoteRepository
    from ocispec.descriptor import Descriptor
    from ocispec.distribution.reference import Reference
    from ocispec.image.manifest import ImageManifest


@value
class Pushed:
    """The outcome of a push.

    target: what the tag points at in the registry now
    left_out: platforms of the index that are not in the store: then only the image was pushed
    """

    target: Descriptor
    left_out: tuple[str, ...]


def push(
    reference: Reference,
    store: LocalStore,
    sink: RemoteRepository,
    *,
    progress: Progress | None = None,
    parallel_blobs: int = 4,
) -> Pushed:
    """Send the image that has this name to the registry in the name.

    An index whose platforms are all here is pushed whole and keeps its digest. Of one that was
    pulled for this machine only, the image is pushed by itself.

    Raises: ImageNotFound, and what the registry's refusals translate to.
    """
    progress = progress or Silence()
    image = store.resolve(reference)
    source = LocalSource(store)
    with store.lease() as lease:
        indexes, manifests, missing = _closure(image.target, source)
        if missing:
            indexes, manifests = [], [image.manifest]
        wanted: dict[str, Descriptor] = {}
        configs = {manifest.config.digest for manifest in manifests}
        for manifest in manifests:
            for descriptor in (manifest.config, *manifest.layers):
                if not (is_foreign(descriptor.media_type) and descriptor.urls):
                    wanted[str(descriptor.digest)] = descriptor
        lease.hold(d.digest for d in wanted.values())
        sources = Sources(os.path.join(store.root, "sources"))

        stop = threading.Event()

        def send(descriptor: Descriptor) -> None:
            # A config is a few kilobytes: nobody wants a line about it.
            told = Silence() if descriptor.digest in configs else progress
            sink.put_blob(descriptor, source, Stoppable(told, stop))
            sources.note(descriptor.digest, (str(sink),))

        ordered = sorted(wanted.values(), key=lambda d: d.size, reverse=True)
        parallel.run(send, ordered, parallel_blobs, stop)
        tag = str(reference.tag or "") or ("" if reference.digest else "latest")
        target = None
        in_order: list[ImageManifest | ImageIndex] = [*manifests, *reversed(indexes)]
        for position, document in enumerate(in_order, 1):
            target = sink.put_manifest(document, tag if position == len(in_order) else "")
        assert target is not None  # there is at least the image itself
    if target.digest == image.target.digest:
        store.confirm(reference, target.digest)
    return Pushed(target=target, left_out=tuple(missing))


def _closure(
    target: Descriptor, source: LocalSource
) -> tuple[list[ImageIndex], list[ImageManifest], list[str]]:
    """Indexes from the root, manifests, and what is missing of them here."""
    indexes: list[ImageIndex] = []
    manifests: list[ImageManifest] = []
    missing: list[str] = []
    pending = [target]
    while pending:
        descriptor = pending.pop(0)
        try:
            found = source.manifest(str(descriptor.digest))
        except LocalStoreError:
            missing.append(str(descriptor.platform or descriptor.digest))
            continue
        if isinstance(found, ImageIndex):
            indexes.append(found)
            pending += found.manifests
        else:
            manifests.append(found)
            missing += [
                f"layer {d.digest}"
                for d in (found.config, *found.layers)
                if not source.has(d) and not is_foreign(d.media_type)
            ]
    return indexes, manifests, missing
