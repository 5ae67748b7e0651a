"""Load: images from a tar that `pyreg save`, docker, podman, containerd or skopeo wrote.

The archive is read once, from a file or a pipe, plain or compressed. Three shapes are known:

    an OCI image layout        index.json, blobs/<algorithm>/<hex>
    what docker writes now     the same, and manifest.json with the names
    what docker wrote before   manifest.json, <hex>.json, <id>/layer.tar, links between them

Every blob is hashed on the way in and lies in the store under what it is, not under what the
archive calls it; a name that claims another digest is refused. Nothing is an image before
everything that its manifest names is there.

Spec: image-spec image-layout.md; docker image specification v1.2.
"""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from io import RawIOBase
from typing import cast

from client.deflate import MAGIC_BYTES, inflated
from client.errors import ContentMismatch, LocalStoreError, RefusedContent
from client.localimage import MAX_CONFIG_BYTES, read_blob
from client.pull import MAX_LAYERS, MAX_NESTING
from client.save import IMAGE_NAME, REF_NAME
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.distribution.reference import Reference
from ocispec.errors import SpecError
from ocispec.image.config import ImageConfig
from ocispec.image.manifest import (
    MAX_MANIFEST_BYTES,
    ImageIndex,
    ImageManifest,
    new_manifest,
    parse_manifest,
)
from ocispec.image.platform import Platform, select
from ocispec.jsondoc import parse_object
from ocispec.mediatype import OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO, Any

    from client.leases import Lease
    from client.local import LocalStore
    from client.localimage import LocalImage

CHUNK = 1 << 20
MAX_DOCUMENT_BYTES = 16 << 20
MAX_MEMBERS = 20_000
MAX_IMAGES = 10_000


@value
class Loaded:
    """One image and the names it got; none for an image that the archive does not name."""

    image: LocalImage
    names: tuple[Reference, ...]


def load(
    file: IO[bytes],
    store: LocalStore,
    platform: Platform,
    *,
    source: str,
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[Loaded, ...]:
    """Take in every image of the archive; `source` names it in messages.

    `platform` is preferred where an index offers several. `on_bytes` is told how much was read.

    Raises: LocalStoreError if the archive is damaged, RefusedContent for what is no archive of
    images, ContentMismatch for a blob that is not what its name says. Then no image of the
    archive is recorded, and what was taken in by then is removed again.
    """
    added: list[Digest] = []
    try:
        with store.lease() as lease:
            archive = _Archive(store, lease, source, added)
            archive.read(file, on_bytes)
            found = archive.images(platform)
            return tuple(
                Loaded(store.record(target, names=names, manifest=leaf), tuple(names))
                for target, leaf, names in found
            )
    except BaseException:
        store.forget(added)
        raise


class _Member(tarfile.TarInfo):
    """A header whose extensions (long names, PAX records) are kept in memory: they are bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENSIONS and found.size > _MAX_EXTENSION:
            raise RefusedContent(f"the archive has a header of {found.size} bytes")
        return found


_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_EXTENSION = 1 << 20


class _Archive:
    """What the tar held: documents in memory, everything else in the store."""

    def __init__(self, store: LocalStore, lease: Lease, source: str, added: list[Digest]) -> None:
        self._store = store
        self._lease = lease
        self._source = source
        self._documents: dict[str, bytes] = {}
        self._blobs: dict[str, Descriptor] = {}  # by path
        self._links: dict[str, str] = {}
        self._added = added  # that the store did not have before

    # -- reading ---------------------------------------------------------------------------------

    def read(self, file: IO[bytes], on_bytes: Callable[[int], None] | None) -> None:
        plain = inflated(cast("IO[bytes]", _Counted(file, on_bytes)))
        try:
            with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member) as archive:
                for number, member in enumerate(archive):
                    if number == MAX_MEMBERS:
                        raise RefusedContent(f"{self._source} has more than {MAX_MEMBERS} files")
                    self._take(archive, member)
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise LocalStoreError(
                f"{self._source} is not a whole tar archive: {error}",
                hint="an archive of images is made by: pyreg save -o FILE IMAGE",
            ) from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise LocalStoreError(f"{self._source} is damaged: {error}") from error

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        path = posixpath.normpath(member.name).lstrip("/")
        if member.issym() or member.islnk():
            beside = posixpath.dirname(path) if member.issym() else ""
            self._links[path] = posixpath.normpath(posixpath.join(beside, member.linkname))
            return
        if not member.isreg() or member.issparse():
            if member.isdir():
                return
            raise RefusedContent(f"{self._source}: {path[:200]!r} is no plain file")
        content = archive.extractfile(member)
        assert content is not None  # a plain file has content
        if path in ("index.json", "manifest.json", "oci-layout"):
            if member.size > MAX_DOCUMENT_BYTES:
                raise RefusedContent(f"{self._source}: {path} has {member.size} bytes")
            self._documents[path] = _all(content, member.size)
        elif path.startswith("blobs/") or path.endswith((".json", ".tar")):
            self._blobs[path] = self._store_blob(content, member.size, _named(path))

    def _store_blob(self, content: IO[bytes], size: int, named: Digest | None) -> Descriptor:
        layout = self._store.layout
        algorithm = "sha256" if named is None else named.algorithm
        with layout.begin((algorithm,)) as writer:
            head = b""
            while writer.size < size:
                part = content.read(min(CHUNK, size - writer.size))
                if not part:
                    raise EOFError("it ends in the middle of a file")
                head = head or part[:MAGIC_BYTES]
                writer.write(part)
            digest = writer.digest(algorithm)
            if named is not None and named != digest:
                raise ContentMismatch(
                    f"{self._source}: digest of a blob", expected=named, found=digest
                )
            self._lease.hold((digest,))
            if not layout.has(digest):
                self._added.append(digest)
                writer.commit(layout.blob_path(digest), expected=digest)
        return Descriptor(media_type=_layer_type(head), digest=digest, size=size)

    # -- understanding ---------------------------------------------------------------------------

    def images(self, platform: Platform) -> list[tuple[Descriptor, Descriptor, list[Reference]]]:
        """What the names point at, the manifest of a platform of it, and the names."""
        if "index.json" in self._documents:
            found = self._of_layout(platform)
        elif "manifest.json" in self._documents:
            found = self._of_docker()
        else:
            raise RefusedContent(
                f"{self._source} is no archive of images: it has neither index.json nor "
                "manifest.json",
                hint="a file system becomes an image with: pyreg import FILE NAME",
            )
        if not found:
            raise RefusedContent(f"{self._source} holds no image")
        return found

    def _of_layout(
        self, platform: Platform
    ) -> list[tuple[Descriptor, Descriptor, list[Reference]]]:
        raw = self._documents["index.json"]
        index = parse_manifest(raw, OCI_INDEX, limit=MAX_DOCUMENT_BYTES)
        assert isinstance(index, ImageIndex)  # the type asked for
        if len(index.manifests) > MAX_IMAGES:
            raise RefusedContent(f"{self._source} names {len(index.manifests)} images")
        by_config = self._docker_names()
        images: dict[str, tuple[Descriptor, Descriptor, list[Reference]]] = {}
        for entry in index.manifests:
            target = Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size)
            leaf, manifest = self._leaf(target, platform)
            names = by_config.get(str(manifest.config.digest))
            if names is None:
                names = self._annotated(entry)
            known = images.setdefault(str(target.digest), (target, leaf, []))[2]
            known += [name for name in names if name not in known]
        return list(images.values())

    def _leaf(
        self, target: Descriptor, platform: Platform, depth: int = 0
    ) -> tuple[Descriptor, ImageManifest]:
        """The manifest of the wanted platform, or of the first that the archive has whole."""
        content = self._manifest(target)
        if isinstance(content, ImageManifest):
            return target, self._check(content)
        if depth == MAX_NESTING:
            raise RefusedContent(f"{self._source}: indexes are nested deeper than {MAX_NESTING}")
        wanted = select(content, platform)
        here = [each for each in content.manifests if self._store.layout.has(each.digest)]
        for child in sorted(here, key=lambda each: each is not wanted):
            try:
                return self._leaf(_plain(child), platform, depth + 1)
            except LocalStoreError:
                continue  # a platform whose layers are elsewhere
        raise LocalStoreError(f"{self._source}: no platform of {target.digest} is whole")

    def _manifest(self, descriptor: Descriptor) -> ImageManifest | ImageIndex:
        raw = read_blob(self._store.layout, descriptor, MAX_MANIFEST_BYTES)
        return parse_manifest(raw, descriptor.media_type)

    def _check(self, manifest: ImageManifest) -> ImageManifest:
        """Raises LocalStoreError if something that it names is not here."""
        if len(manifest.layers) > MAX_LAYERS:
            raise RefusedContent(
                f"{self._source}: an image of {len(manifest.layers)} layers, more than the "
                f"{MAX_LAYERS} allowed"
            )
        for each in manifest.references():
            if not self._store.layout.has(each.digest):
                raise LocalStoreError(f"{self._source} lacks blob {each.digest}")
        ImageConfig.parse(read_blob(self._store.layout, manifest.config, MAX_CONFIG_BYTES))
        self._lease.hold((manifest.digest, *(each.digest for each in manifest.references())))
        return manifest

    def _annotated(self, entry: Descriptor) -> list[Reference]:
        """What other tools write beside an image: a name, or no more than a tag."""
        name = entry.annotations.get(IMAGE_NAME, "") or entry.annotations.get(REF_NAME, "")
        return [self._name(name)] if ":" in name or "/" in name else []

    def _name(self, text: str) -> Reference:
        try:
            name = Reference.parse(text, default_registry=self._store.default_registry)
        except SpecError as error:
            raise RefusedContent(f"{self._source}: {error}") from error
        return name if name.digest is not None else name.with_default_tag()

    def _docker(self) -> list[tuple[str, list[str], list[str]]]:
        """Config, names and layers of each item of manifest.json."""
        raw = b'{"images":' + self._documents.get("manifest.json", b"[]") + b"}"
        items = parse_object(raw, limit=MAX_DOCUMENT_BYTES + 16, what="manifest.json")["images"]
        found = []
        for item in items if isinstance(items, list) else [None]:
            fields = item if isinstance(item, dict) else {}
            config: Any = fields.get("Config")
            names: Any = fields.get("RepoTags") or []
            layers: Any = fields.get("Layers") or []
            if not (isinstance(config, str) and config and _texts(names) and _texts(layers)):
                raise RefusedContent(f"{self._source}: manifest.json is not what docker writes")
            found.append((config, names, layers))
        if len(found) > MAX_IMAGES:
            raise RefusedContent(f"{self._source} names {len(found)} images")
        return found

    def _docker_names(self) -> dict[str, list[Reference]]:
        names: dict[str, list[Reference]] = {}
        for config, texts, _ in self._docker():
            blob = self._blobs.get(self._resolve(config))
            if blob is not None:
                known = names.setdefault(str(blob.digest), [])
                known += [self._name(text) for text in texts]
        return names

    def _of_docker(self) -> list[tuple[Descriptor, Descriptor, list[Reference]]]:
        images = []
        for config_path, texts, paths in self._docker():
            config = self._blob(config_path)
            parsed = ImageConfig.parse(read_blob(self._store.layout, config, MAX_CONFIG_BYTES))
            layers = [self._blob(path) for path in paths]
            if len(layers) != len(parsed.diff_ids):
                raise RefusedContent(
                    f"{self._source}: {len(layers)} layers, but the config names "
                    f"{len(parsed.diff_ids)}"
                )
            for layer, diff_id in zip(layers, parsed.diff_ids, strict=True):
                if layer.media_type == OCI_LAYER and layer.digest != diff_id:
                    raise ContentMismatch(
                        f"{self._source}: a layer", expected=diff_id, found=layer.digest
                    )
            manifest = new_manifest(
                Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=config.size), layers
            )
            self._check(manifest)
            if not self._store.layout.has(manifest.digest):
                self._added.append(manifest.digest)
                self._store.layout.put(manifest.raw)
            target = Descriptor(
                media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw)
            )
            images.append((target, target, [self._name(text) for text in texts]))
        return images

    def _blob(self, path: str) -> Descriptor:
        found = self._blobs.get(self._resolve(path))
        if found is None:
            raise LocalStoreError(f"{self._source} lacks {path[:200]!r}")
        return found

    def _resolve(self, path: str) -> str:
        path = posixpath.normpath(path)
        for _ in range(10):  # a link to a link; never round and round
            if path not in self._links:
                break
            path = self._links[path]
        return path


class _Counted(RawIOBase):
    """A file that says how much of it was read."""

    def __init__(self, file: IO[bytes], on_bytes: Callable[[int], None] | None) -> None:
        self._file = file
        self._on_bytes = on_bytes

    def read(self, count: int = -1) -> bytes:
        part = self._file.read(count)
        if self._on_bytes is not None:
            self._on_bytes(len(part))
        return part


def _plain(descriptor: Descriptor) -> Descriptor:
    return Descriptor(
        media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size
    )


def _texts(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(each, str) for each in found)


def _named(path: str) -> Digest | None:
    """The digest that a path of an image layout promises."""
    parts = path.split("/")
    if len(parts) != 3 or parts[0] != "blobs":
        return None
    try:
        return Digest.parse(f"{parts[1]}:{parts[2]}")
    except SpecError:
        return None


def _layer_type(head: bytes) -> str:
    if head.startswith(b"\x1f\x8b"):
        return OCI_LAYER_GZIP
    return OCI_LAYER_ZSTD if head.startswith(b"\x28\xb5\x2f\xfd") else OCI_LAYER


def _all(content: IO[bytes], size: int) -> bytes:
    raw = content.read(size)
    if len(raw) != size:
        raise EOFError("it ends in the middle of a file")
    return raw
