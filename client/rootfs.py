"""Import: a root file system as a tar becomes an image of one layer.

The tar is read once: inflated if it is compressed, hashed for the diff id, compressed again, hashed
for the digest. Nothing in it is looked at beyond being a tar; unpacking checks the rest.
"""

from __future__ import annotations

import zlib

from client.changes import Settings, apply
from client.deflate import gzip_compressor, inflated
from client.errors import LocalStoreError
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest, new_hasher
from ocispec.image.config import History, new_config
from ocispec.image.manifest import new_manifest
from ocispec.mediatype import OCI_CONFIG, OCI_LAYER_GZIP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import IO

    from client.local import LocalStore
    from client.localimage import LocalImage
    from ocispec.distribution.reference import Reference
    from ocispec.image.platform import Platform

CHUNK = 1 << 20
BLOCK = 512  # of tar


def import_rootfs(
    file: IO[bytes],
    store: LocalStore,
    *,
    platform: Platform,
    created: str,
    source: str,
    names: Iterable[Reference] = (),
    changes: Iterable[str] = (),
    message: str = "",
) -> LocalImage:
    """Make and record an image from a tar, plain or compressed with gzip, bzip2 or xz.

    `created` is RFC 3339; `source` says where the tar came from, for the history. The same input
    and `created` give the same image id.

    Raises: LocalStoreError if it is not a tar, or ends early; InvalidChange.
    """
    settings = apply(Settings(), changes)
    with store.lease() as lease:
        layer, diff_id = _store_layer(file, store, source)
        config = new_config(
            platform,
            diff_ids=(diff_id,),
            history=(History(created=created, comment=message or f"Imported from {source}"),),
            created=created,
            env=settings.env,
            cmd=settings.cmd,
            entrypoint=settings.entrypoint,
            working_dir=settings.working_dir,
            user=settings.user,
            labels=settings.labels,
            exposed_ports=settings.exposed_ports,
            volumes=settings.volumes,
        )
        manifest = new_manifest(
            Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=len(config.raw)), (layer,)
        )
        lease.hold((layer.digest, config.digest, manifest.digest))
        if not store.layout.has(layer.digest):  # a removal between commit and hold
            raise LocalStoreError("the layer was removed while it was imported: try again")
        store.layout.put(config.raw)
        store.layout.put(manifest.raw)
        target = Descriptor(
            media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw)
        )
        return store.record(target, names=names)


def _store_layer(file: IO[bytes], store: LocalStore, source: str) -> tuple[Descriptor, Digest]:
    plain = inflated(file)
    hasher = new_hasher("sha256")
    compressor = gzip_compressor()
    size = 0
    with store.layout.begin() as writer:
        try:
            while chunk := plain.read(CHUNK):
                if size == 0:
                    _check_tar(chunk, source)
                size += len(chunk)
                hasher.update(chunk)
                if packed := compressor.compress(chunk):
                    writer.write(packed)
        except (EOFError, zlib.error) as error:
            raise LocalStoreError(f"{source} is damaged: {error}") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise LocalStoreError(f"{source} is damaged: {error}") from error  # bad gzip data
        if size == 0:
            raise LocalStoreError(f"{source} is empty")
        writer.write(compressor.flush())
        digest = writer.digest()
        length = writer.size
        writer.commit(store.layout.blob_path(digest), expected=digest)
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=digest, size=length)
    return layer, Digest.from_hasher(hasher)


def _check_tar(chunk: bytes, source: str) -> None:
    """Raises LocalStoreError unless the first block is a tar header with a right checksum."""
    block = chunk[:BLOCK]
    if block == bytes(BLOCK):
        return  # an empty archive
    try:
        said = int(block[148:156].rstrip(b"\0 ").lstrip(b" ") or b"x", 8)
    except ValueError:
        said = -1
    if len(block) < BLOCK or said != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise LocalStoreError(
            f"{source} is not a tar archive",
            hint="make one with: tar -C ROOT -c . (gzip, bzip2 and xz are read too)",
        )
