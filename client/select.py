"""Which manifest of an index is wanted here."""

from __future__ import annotations

from client.errors import NotFound
from ocispec.image.platform import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.descriptor import Descriptor
    from ocispec.image.manifest import ImageIndex
    from ocispec.image.platform import Platform


def choose(index: ImageIndex, wanted: Platform, name: str) -> Descriptor:
    """The entry for a platform. Raises NotFound, telling which platforms there are."""
    found = select(index, wanted)
    if found is not None:
        return found
    there = dict.fromkeys(
        str(entry.platform)
        for entry in index.manifests
        if entry.platform is not None and entry.platform.os != "unknown"
    )
    raise NotFound(
        f"{name} has no image for {wanted}",
        hint=f"it has {', '.join(list(there)[:12])}" if there else "its index is empty",
    )
