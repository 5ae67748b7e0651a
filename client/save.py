"""Save: images as one tar that pyreg, docker, podman, containerd and skopeo load.

    oci-layout, index.json      an OCI image layout: what was pulled, digest for digest
    manifest.json               the same images in the words of `docker load`
    blobs/sha256/<hex>          manifests, configs and layers, compressed as they were received

The same images and names give the same bytes. Spec: image-spec image-layout.md; for manifest.json
the docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format".
"""

from __future__ import annotations

import io
import json
import tarfile

from client.errors import LocalStoreError
from client.localimage import read_blob
from ocispec.descriptor import Descriptor
from ocispec.errors import SpecError
from ocispec.image.manifest import MAX_MANIFEST_BYTES, ImageIndex, parse_manifest
from ocispec.jsondoc import canonical
from ocispec.mediatype import OCI_INDEX
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import IO

    from client.local import LocalStore
    from client.localimage import LocalImage

REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
CHUNK = 1 << 20


@value
class SavedImage:
    """An image and the names it shall have when it is loaded, as a person writes them."""

    image: LocalImage
    names: tuple[str, ...]


def save(
    images: Iterable[SavedImage],
    store: LocalStore,
    out: IO[bytes],
    *,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Write the archive; `out` need not be seekable. `on_bytes` is told what was written.

    Raises: LocalStoreError if a blob is missing or damaged; OSError.
    """
    images = tuple(images)
    with store.lease() as lease:
        entries: list[dict[str, object]] = []
        docker: list[dict[str, object]] = []
        blobs: dict[str, Descriptor] = {}
        for saved in images:
            image = saved.image
            for descriptor in reachable(store, image):
                blobs[str(descriptor.digest)] = descriptor
            entries += [_entry(image.target, name) for name in saved.names or ("",)]
            manifest = image.manifest
            docker.append(
                {
                    "Config": _path(manifest.config),
                    "RepoTags": [name for name in saved.names if "@" not in name] or None,
                    "Layers": [_path(layer) for layer in manifest.layers],
                }
            )
        lease.hold(descriptor.digest for descriptor in blobs.values())
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            _add(archive, "oci-layout", canonical({"imageLayoutVersion": "1.0.0"}))
            _add(archive, "index.json", canonical(index))
            _add(archive, "manifest.json", json.dumps(docker, separators=(",", ":")).encode())
            for _, descriptor in sorted(blobs.items()):
                _add_blob(archive, store, descriptor, on_bytes)


def reachable(store: LocalStore, image: LocalImage) -> list[Descriptor]:
    """Every blob of an image that is here: of an index, the platforms that were pulled.

    Raises: LocalStoreError if something of the image itself is missing.
    """
    found: dict[str, Descriptor] = {}
    pending = [image.target, image.descriptor]
    while pending:
        descriptor = pending.pop()
        if str(descriptor.digest) in found:
            continue
        found[str(descriptor.digest)] = descriptor
        content = parse_manifest(
            read_blob(store.layout, descriptor, MAX_MANIFEST_BYTES), descriptor.media_type
        )
        if isinstance(content, ImageIndex):
            pending += [child for child in content.manifests if _is_whole(store, child)]
        else:
            found.update((str(each.digest), each) for each in content.references())
    return list(found.values())


def _is_whole(store: LocalStore, child: Descriptor) -> bool:
    """Whether this entry of an index was pulled, and not only its neighbour."""
    if not store.layout.has(child.digest):
        return False
    try:
        raw = read_blob(store.layout, child, MAX_MANIFEST_BYTES)
        content = parse_manifest(raw, child.media_type)
    except (LocalStoreError, SpecError):
        return False
    if isinstance(content, ImageIndex):
        return True
    return all(store.layout.has(each.digest) for each in content.references())


def _entry(target: Descriptor, name: str) -> dict[str, object]:
    entry: dict[str, object] = {
        "mediaType": target.media_type,
        "digest": str(target.digest),
        "size": target.size,
    }
    if name:
        tag = "" if "@" in name else name.rpartition(":")[2]
        entry["annotations"] = {IMAGE_NAME: name, **({REF_NAME: tag} if tag else {})}
    return entry


def _path(descriptor: Descriptor) -> str:
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.encoded}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _add_blob(
    archive: tarfile.TarFile,
    store: LocalStore,
    descriptor: Descriptor,
    on_bytes: Callable[[int], None] | None,
) -> None:
    try:
        file = store.layout.open(descriptor.digest)
    except FileNotFoundError:
        raise LocalStoreError(
            f"blob {descriptor.digest} is missing from the local store",
            hint="pull the image again",
        ) from None
    with file:
        member = tarfile.TarInfo(_path(descriptor))
        member.size = descriptor.size
        checked = _Checked(file, descriptor, on_bytes)
        archive.addfile(member, checked)  # type: ignore[arg-type]
        checked.finish()


class _Checked:
    """A blob as it is read, hashed on the way: what rotted on this disk is not passed on."""

    def __init__(
        self, file: IO[bytes], descriptor: Descriptor, on_bytes: Callable[[int], None] | None
    ) -> None:
        self._file = file
        self._descriptor = descriptor
        self._hasher = descriptor.digest.hasher()
        self._on_bytes = on_bytes
        self._left = descriptor.size

    def read(self, count: int) -> bytes:
        part = self._file.read(count)
        if len(part) < min(count, self._left):
            raise self._damaged()
        self._left -= len(part)
        self._hasher.update(part)
        if self._on_bytes is not None:
            self._on_bytes(len(part))
        return part

    def finish(self) -> None:
        if self._file.read(1) or self._hasher.hexdigest() != self._descriptor.digest.encoded:
            raise self._damaged()

    def _damaged(self) -> LocalStoreError:
        return LocalStoreError(
            f"blob {self._descriptor.digest} in the local store is damaged",
            hint="remove the image and pull it again",
        )
