"""One image of the local store, with what `images`, `run` and `push` ask about it."""

from __future__ import annotations

from client.errors import ContentMismatch, LocalStoreError
from ocispec.digest import Digest
from ocispec.image.config import ImageConfig
from ocispec.image.manifest import MAX_MANIFEST_BYTES, ImageManifest, parse_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.descriptor import Descriptor
    from ocispec.image.layout import Layout

# Configs are small; containerd and docker cut at 8 MiB as well.
MAX_CONFIG_BYTES = 8 << 20


class LocalImage:
    """An image manifest in the store under the names it has here.

    `names` are full references (`host/repository:tag`, or `@digest`), sorted, empty for a
    dangling image. `target` is what the names point at: the manifest itself, or the index it was
    selected from. `descriptor` is the manifest. `id` is the digest of its config. `size` is the
    sum of its layers in bytes, unpacked where that is known. `created` is RFC 3339 text, or
    empty. `platform` is like `linux/amd64`. `repo_digests` are the `repository@digest` under
    which a registry is known to have it.

    Equal when manifest and names are. Reading `manifest` and `config` reads the blob each time:
    their digests were verified when they were committed, so only the size is checked here.
    """

    __slots__ = (
        "_layout",
        "created",
        "descriptor",
        "id",
        "names",
        "platform",
        "repo_digests",
        "size",
        "target",
    )

    def __init__(
        self,
        layout: Layout,
        *,
        names: tuple[str, ...],
        target: Descriptor,
        descriptor: Descriptor,
        id: Digest,
        size: int,
        created: str,
        platform: str,
        repo_digests: tuple[str, ...],
    ) -> None:
        self._layout = layout
        self.names = names
        self.target = target
        self.descriptor = descriptor
        self.id = id
        self.size = size
        self.created = created
        self.platform = platform
        self.repo_digests = repo_digests

    @property
    def manifest(self) -> ImageManifest:
        """Raises LocalStoreError if the blob is missing or is not an image manifest."""
        return read_manifest(self._layout, self.descriptor)

    @property
    def config(self) -> ImageConfig:
        """Raises LocalStoreError if the blob is missing."""
        return ImageConfig.parse(self.raw_config)

    @property
    def raw_config(self) -> bytes:
        return read_blob(self._layout, self.manifest.config, MAX_CONFIG_BYTES)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, LocalImage):
            return NotImplemented
        return self.descriptor.digest == other.descriptor.digest and self.names == other.names

    def __hash__(self) -> int:
        return hash((self.descriptor.digest, self.names))

    def __repr__(self) -> str:
        return f"LocalImage({self.names!r}, id={str(self.id)!r})"


def read_manifest(layout: Layout, descriptor: Descriptor) -> ImageManifest:
    """The image manifest of a descriptor. Raises LocalStoreError if it is anything else."""
    raw = read_blob(layout, descriptor, MAX_MANIFEST_BYTES)
    found = parse_manifest(raw, descriptor.media_type)
    if not isinstance(found, ImageManifest):
        raise LocalStoreError(f"{descriptor.digest} is an image index, not an image")
    return found


def read_blob(layout: Layout, descriptor: Descriptor, limit: int) -> bytes:
    """The whole of a small blob that was verified when it was committed.

    Raises LocalStoreError if it is missing or larger than `limit`, ContentMismatch if its size
    is not the descriptor's.
    """
    try:
        with open(layout.blob_path(descriptor.digest), "rb") as file:
            raw = file.read(limit + 1)
    except FileNotFoundError:
        raise LocalStoreError(
            f"blob {descriptor.digest} is missing from the local store",
            hint="pull the image again",
        ) from None
    if len(raw) > limit:
        raise LocalStoreError(f"blob {descriptor.digest} is larger than {limit} bytes")
    if len(raw) != descriptor.size:
        raise ContentMismatch(
            f"size of blob {descriptor.digest} in the local store",
            expected=descriptor.size,
            found=len(raw),
            hint="remove the image and pull it again",
        )
    return raw
