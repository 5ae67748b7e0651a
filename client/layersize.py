"""How large a layer is unpacked, as far as its compressed blob tells cheaply."""

from __future__ import annotations

import os

from ocispec.mediatype import layer_compression

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.descriptor import Descriptor


def unpacked_size(path: str, layer: Descriptor) -> int:
    """Bytes of the layer's tar; the compressed size where it cannot be told without inflating.

    The last four bytes of a gzip member are its length modulo 4 GiB. Layers are one member in
    practice; where the number is impossible (several members, or a wrapped count) the compressed
    size stands in. It is shown to people and decides nothing.
    """
    if layer_compression(layer.media_type) != "gzip":
        return layer.size
    try:
        with open(path, "rb") as file:
            file.seek(-4, os.SEEK_END)
            length = int.from_bytes(file.read(4), "little")
    except (FileNotFoundError, OSError):
        return layer.size
    return max(length, layer.size)
