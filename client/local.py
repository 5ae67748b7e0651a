"""The local store: an OCI image layout that keeps every blob as it was received.

    images/
      oci-layout, index.json     what images there are, and their names
      blobs/sha256/<hex>         manifests, configs, layers as compressed by whoever made them
      ingest/                    downloads in progress, named by digest
      leases/                    what running pulls hold, see `client.leases`
      sources/                   which repositories are known to have a blob, see `client.sources`
      index.lock

An entry of index.json is what a name points at: an image manifest, or an image index of which
some platforms are here. Its annotations repeat what `images` prints, so that listing opens no
other file. Readers take no lock: index.json is replaced by rename. Writers hold `index.lock` for
the change only, never during a transfer, and blobs come before the entry that names them, so that
a crash leaves unnamed blobs and never a name without its blobs.

This module is on the start path of `pyreg run` and imports accordingly.
"""

from __future__ import annotations

import json
import os
import time

from client.errors import AmbiguousImage, ImageInUse, ImageNotFound, LocalStoreError
from client.localimage import LocalImage, read_blob, read_manifest
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.distribution.reference import Reference
from ocispec.errors import SpecError
from ocispec.image.layout import Layout, remove_leftovers, write_file_atomically
from ocispec.image.manifest import MAX_MANIFEST_BYTES, ImageIndex, parse_manifest
from ocispec.mediatype import INDEX_TYPES
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from client.leases import Lease, StoreLock

NAME = "org.opencontainers.image.ref.name"
# What `images` shows, repeated beside each name.
MANIFEST = "io.pyreg.manifest"  # the platform's manifest, when the name points at an index
ID = "io.pyreg.id"
SIZE = "io.pyreg.size"
CREATED = "io.pyreg.created"
PLATFORM = "io.pyreg.platform"
ORIGIN = "io.pyreg.origin"  # "registry" when the name is known to hold this digest remotely

LEFTOVER_S = 24 * 3600.0
_HEX = frozenset("0123456789abcdef")


@value
class Removal:
    """What a removal did, in the order docker reports it.

    untagged: names that are gone
    image: the image, if that was its last name and it is gone with it
    deleted: digests of the blobs deleted
    """

    untagged: tuple[str, ...]
    image: LocalImage | None
    deleted: tuple[Digest, ...]


class LocalStore:
    """Images by name, digest or id. Safe with many processes at once.

    `default_registry` completes names written without a host. Nothing is created before the
    first write, so that listing an empty machine works for anyone.
    """

    def __init__(self, root: str, *, default_registry: str) -> None:
        self.root = root
        self.default_registry = default_registry
        self.layout = Layout(root)

    # -- reading ---------------------------------------------------------------------------------

    def images(self) -> tuple[LocalImage, ...]:
        """Every image, newest first; one per manifest, with all its names."""
        by_manifest: dict[str, list[_Entry]] = {}
        for entry in self._entries():
            by_manifest.setdefault(entry.manifest_digest, []).append(entry)
        found = [self._image(entries) for entries in by_manifest.values()]
        return tuple(sorted(found, key=lambda image: image.created, reverse=True))

    def find(self, wanted: str | Reference) -> LocalImage | None:
        """`resolve`, with None for an image that is not here."""
        try:
            return self.resolve(wanted)
        except ImageNotFound:
            return None

    def resolve(self, wanted: str | Reference) -> LocalImage:
        """The image of a reference, or of an id or a prefix of one (`sha256:` may be left out).

        A name is tried before an id, as docker does. A digest means the manifest, or an index
        that a name points at.

        Raises: ImageNotFound; AmbiguousImage if an id prefix fits several images; InvalidName if
        the text is neither a reference nor an id.
        """
        entries = self._entries()
        return self._image(self._matching(entries, wanted), all_entries=entries)

    # -- changing --------------------------------------------------------------------------------

    def lease(self) -> Lease:
        """A lease to hold blobs of a transfer with; close it after `record`."""
        from client.leases import Lease

        self._prepare()
        return Lease(os.path.join(self.root, "leases"), self._lock)

    def record(
        self,
        target: Descriptor,
        *,
        names: Iterable[Reference] = (),
        manifest: Descriptor | None = None,
        from_registry: bool = False,
    ) -> LocalImage:
        """Make an image whose blobs are in the store visible, under these names.

        `manifest` is the platform's manifest when `target` is an index. A name that pointed
        elsewhere moves; what it pointed at stays as a dangling image. Recording the same again
        changes nothing. `from_registry` says that the registry in the name is known to have it.

        Raises: LocalStoreError if the manifest or config is missing.
        """
        entry = self._describe(target, manifest or target, from_registry)
        texts = [_full_name(name) for name in names]

        def change(entries: list[_Entry]) -> list[_Entry]:
            kept = []
            for old in entries:
                if old.name not in texts:
                    kept.append(old)
                elif old.target_digest != entry.target_digest:
                    kept.append(old.dangling())
            return kept + [entry.named(text) for text in texts or [""]]

        entries = self._update(change)
        return self._image(
            [e for e in entries if e.manifest_digest == entry.manifest_digest], preferred=texts
        )

    def tag(self, source: str | Reference | LocalImage, reference: Reference) -> LocalImage:
        """Give an image another name; a name that was taken moves. Raises as `resolve`."""
        image = source if isinstance(source, LocalImage) else self.resolve(source)
        return self.record(image.target, names=(reference,), manifest=image.descriptor)

    def confirm(self, reference: Reference, target: Digest) -> None:
        """Note that the registry has `target` under this name now: it was pushed there."""
        text = _full_name(reference)

        def change(entries: list[_Entry]) -> list[_Entry]:
            return [
                entry.confirmed()
                if entry.name == text and entry.target_digest == str(target)
                else entry
                for entry in entries
            ]

        self._update(change)

    def untag(self, reference: Reference) -> Removal:
        """Remove one name; the image goes with its last name. Raises ImageNotFound."""
        return self.remove(reference)

    def remove(
        self,
        wanted: str | Reference,
        *,
        force: bool = False,
        guard: Callable[[LocalImage], None] | None = None,
    ) -> Removal:
        """Remove a name, or an image by id, and the blobs that nothing reaches any more.

        By name, only that name goes while others remain, and with a repository's last tag its
        digest. By id, every name goes; more than one tag or repository needs `force`. Blobs under
        a lease stay. `guard` is told an image that is about
        to go with its last name, and may raise to keep everything as it is.

        Raises: ImageNotFound, AmbiguousImage, ImageInUse.
        """
        from client.leases import leased

        self._prepare()
        with self._lock():
            entries = self._entries()
            matching = self._matching(entries, wanted)
            by_name = self._named_exactly(entries, matching, wanted, force)
            gone = by_name or [
                e for e in entries if e.manifest_digest == matching[0].manifest_digest
            ]
            if not by_name and not force:
                names = sorted(e.name for e in gone if e.name)
                tags = [name for name in names if "@" not in name]
                if len(tags) > 1 or len({e.repository for e in gone if e.name}) > 1:
                    raise ImageInUse(
                        f"image {_short(gone[0].id)} has several names: {', '.join(names)}",
                        hint="remove them one by one, or use --force",
                    )
            image = self._image(gone, all_entries=entries)
            kept = [entry for entry in entries if not any(entry is one for one in gone)]
            last = all(e.manifest_digest != gone[0].manifest_digest for e in kept)
            if last and guard is not None:
                guard(image)
            self._write(kept)
            reachable = leased(os.path.join(self.root, "leases"))
            for entry in kept:
                reachable |= self._reach(entry)
            doomed = sorted({d for entry in gone for d in self._reach(entry)} - reachable)
            deleted = tuple(Digest.parse(text) for text in doomed if self._delete(text))
            self._sweep(reachable)
        untagged = tuple(entry.name for entry in gone if entry.name)
        if last:
            untagged += tuple(d for d in image.repo_digests if d not in untagged)
        return Removal(untagged=untagged, image=image if last else None, deleted=deleted)

    def forget(self, digests: Iterable[Digest]) -> None:
        """Remove blobs that an unfinished operation brought, unless something needs them now."""
        from client.leases import leased

        with self._lock():
            reachable = leased(os.path.join(self.root, "leases"))
            for entry in self._entries():
                reachable |= self._reach(entry)
            for digest in digests:
                if str(digest) not in reachable:
                    self._delete(str(digest))

    # -- the index -------------------------------------------------------------------------------

    def _entries(self) -> list[_Entry]:
        try:
            with open(os.path.join(self.root, "index.json"), "rb") as file:
                document = json.load(file)
            return [_Entry(item, self._complete) for item in document["manifests"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise LocalStoreError(
                f"{self.root}/index.json cannot be read: {error}",
                hint="it is written only by rename; restore it from a backup, or pull again",
            ) from error

    def _complete(self, item: dict[str, Any]) -> dict[str, str]:
        """Our annotations for an entry that another tool wrote."""
        target = Descriptor.from_json(item)
        manifest = target
        if target.media_type in INDEX_TYPES:
            children = [child for child in self._children(target) if self.layout.has(child.digest)]
            if not children:
                raise LocalStoreError(f"no platform of {target.digest} is in the local store")
            manifest = children[0]
        return self._describe(target, manifest, False).annotations

    def _describe(self, target: Descriptor, manifest: Descriptor, from_registry: bool) -> _Entry:
        from client.layersize import unpacked_size
        from ocispec.image.config import ImageConfig

        content = read_manifest(self.layout, manifest)
        config = ImageConfig.parse(read_blob(self.layout, content.config, 8 << 20))
        size = sum(
            unpacked_size(self.layout.blob_path(layer.digest), layer) for layer in content.layers
        )
        item = {
            "mediaType": target.media_type,
            "digest": str(target.digest),
            "size": target.size,
            "annotations": {
                ID: str(content.config.digest),
                SIZE: str(size),
                CREATED: config.created,
                PLATFORM: "/".join(
                    part for part in (config.os, config.architecture, config.variant) if part
                ),
                **({ORIGIN: "registry"} if from_registry else {}),
                MANIFEST: f"{manifest.media_type} {manifest.digest} {manifest.size}",
            },
        }
        return _Entry(item, self._complete)

    def _matching(self, entries: list[_Entry], wanted: str | Reference) -> list[_Entry]:
        """The entries of one image; never empty. The best match is first."""
        text = str(wanted)
        reference, invalid = None, None
        if isinstance(wanted, Reference):
            reference = wanted
        else:
            try:
                reference = Reference.parse(wanted, default_registry=self.default_registry)
            except SpecError as error:
                invalid = error
        if reference is not None:
            found = self._of_reference(entries, reference)
            if found:
                return found
        prefix = text.removeprefix("sha256:")
        if not isinstance(wanted, Reference) and prefix and set(prefix) <= _HEX:
            ids = {e.id for e in entries if e.id.startswith("sha256:" + prefix)}
            ids |= {e.id for e in entries if e.manifest_digest == "sha256:" + prefix}
            if len(ids) > 1:
                raise AmbiguousImage(text, sorted(ids))
            if ids:
                return [e for e in entries if e.id in ids]
        if invalid is not None and not set(prefix) <= _HEX:
            raise invalid
        raise ImageNotFound(text, hint="see `pyreg images` for what is here")

    def _of_reference(self, entries: list[_Entry], reference: Reference) -> list[_Entry]:
        full = _full_name(reference)
        exact = [e for e in entries if e.name == full]
        if exact or reference.digest is None:
            return exact
        repository, digest = f"{reference.registry}/{reference.repository}", str(reference.digest)
        return [
            e
            for e in entries
            if e.repository == repository and digest in (e.target_digest, e.manifest_digest)
        ]

    def _named_exactly(
        self, entries: list[_Entry], matching: list[_Entry], wanted: str | Reference, force: bool
    ) -> list[_Entry]:
        """Of the matching entries, those that the user named, rather than meant by an id."""
        if not isinstance(wanted, Reference):
            try:
                wanted = Reference.parse(wanted, default_registry=self.default_registry)
            except SpecError:
                return []
            if all(e.repository != f"{wanted.registry}/{wanted.repository}" for e in matching):
                return []  # a prefix of an id can be read as a name, too
        full = _full_name(wanted)
        found = [e for e in matching if e.name == full]
        if found and wanted.digest is None:
            found += _digests_without_tags(entries, found[0])
        if not found and wanted.digest is not None and not force:
            raise ImageInUse(
                f"{wanted} is named by tags as well: {', '.join(e.name for e in matching)}",
                hint="remove those, or use --force",
            )
        return found

    def _image(
        self,
        matching: list[_Entry],
        *,
        all_entries: list[_Entry] | None = None,
        preferred: list[str] | None = None,
    ) -> LocalImage:
        first = matching[0]
        if preferred:
            first = next((e for e in matching if e.name in preferred), first)
        same = [e for e in all_entries or matching if e.manifest_digest == first.manifest_digest]
        return LocalImage(
            self.layout,
            names=tuple(sorted(e.name for e in same if e.name)),
            target=first.target,
            descriptor=first.manifest,
            id=Digest.parse(first.id),
            size=first.size,
            created=first.created,
            platform=first.platform,
            repo_digests=tuple(
                sorted({f"{e.repository}@{e.target_digest}" for e in same if e.is_remote})
            ),
        )

    def _update(self, change: Callable[[list[_Entry]], list[_Entry]]) -> list[_Entry]:
        self._prepare()
        with self._lock():
            before = self._entries()
            after = _without_needless_dangling(change(before))
            if [e.item for e in after] != [e.item for e in before]:
                self._write(after)
        return after

    def _write(self, entries: list[_Entry]) -> None:
        document = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry.item for entry in entries],
        }
        raw = json.dumps(document, indent=1, ensure_ascii=False).encode()
        write_file_atomically(os.path.join(self.root, "index.json"), raw)

    def _prepare(self) -> None:
        for name in ("", "blobs", "blobs/sha256", "ingest", "leases", "sources"):
            try:
                os.makedirs(os.path.join(self.root, name), mode=0o700, exist_ok=True)
            except OSError as error:
                raise LocalStoreError(
                    f"cannot make {os.path.join(self.root, name)}: {error.strerror}",
                    hint="run as root, or as a user with a writable home directory",
                ) from error
        marker = os.path.join(self.root, "oci-layout")
        if not os.path.exists(marker):
            write_file_atomically(marker, b'{"imageLayoutVersion": "1.0.0"}\n')

    def _lock(self) -> StoreLock:
        from client.leases import StoreLock

        return StoreLock(os.path.join(self.root, "index.lock"))

    # -- reachability ----------------------------------------------------------------------------

    def _children(self, index: Descriptor) -> tuple[Descriptor, ...]:
        raw = read_blob(self.layout, index, MAX_MANIFEST_BYTES)
        found = parse_manifest(raw, index.media_type)
        return found.manifests if isinstance(found, ImageIndex) else ()

    def _reach(self, entry: _Entry) -> set[str]:
        """Digests of every blob that the entry needs and that may be here."""
        reached: set[str] = set()
        pending = [entry.target, entry.manifest]
        while pending:
            descriptor = pending.pop()
            if str(descriptor.digest) in reached:
                continue
            reached.add(str(descriptor.digest))
            try:
                raw = read_blob(self.layout, descriptor, MAX_MANIFEST_BYTES)
                found = parse_manifest(raw, descriptor.media_type)
            except (LocalStoreError, SpecError):
                continue  # not here: a platform that was never pulled
            if isinstance(found, ImageIndex):
                pending += found.manifests
            else:
                reached.update(str(d.digest) for d in (found.config, *found.layers))
        return reached

    def _delete(self, text: str) -> bool:
        from client.sources import Sources

        digest = Digest.parse(text)
        Sources(os.path.join(self.root, "sources")).forget(digest)
        return self.layout.remove(digest)

    def _sweep(self, reachable: set[str]) -> None:
        """Delete what pulls left behind that nobody took up again within a day."""
        now = time.time()
        for digest in tuple(self.layout.digests()):
            if str(digest) not in reachable and self._is_old(self.layout.blob_path(digest), now):
                self._delete(str(digest))
        ingest = self.layout.ingest_directory
        remove_leftovers(ingest, older_than_s=LEFTOVER_S, now=now)
        for name in os.listdir(ingest):
            path = os.path.join(ingest, name)
            if name.endswith(".partial") and self._is_old(path, now):
                os.unlink(path)

    def _is_old(self, path: str, now: float) -> bool:
        try:
            return now - os.lstat(path).st_mtime > LEFTOVER_S
        except FileNotFoundError:
            return False


class _Entry:
    """One descriptor of index.json, parsed no further than asked."""

    __slots__ = ("_complete", "item")

    def __init__(
        self, item: dict[str, Any], complete: Callable[[dict[str, Any]], dict[str, str]]
    ) -> None:
        self.item = item
        self._complete = complete

    @property
    def annotations(self) -> dict[str, str]:
        annotations: dict[str, str] = self.item.setdefault("annotations", {})
        if MANIFEST not in annotations:
            annotations.update({**self._complete(self.item), **annotations})
        return annotations

    @property
    def name(self) -> str:
        found: str = self.item.get("annotations", {}).get(NAME, "")
        return found

    @property
    def repository(self) -> str:
        """`host/repository` of the name."""
        head = self.name.partition("@")[0]
        return head if head != self.name else head.rpartition(":")[0]

    @property
    def is_remote(self) -> bool:
        return self.annotations.get(ORIGIN) == "registry"

    @property
    def target_digest(self) -> str:
        found: str = self.item["digest"]
        return found

    @property
    def manifest_digest(self) -> str:
        return self.annotations[MANIFEST].split(" ")[1]

    @property
    def target(self) -> Descriptor:
        return Descriptor(
            media_type=self.item["mediaType"],
            digest=Digest.parse(self.item["digest"]),
            size=self.item["size"],
        )

    @property
    def manifest(self) -> Descriptor:
        media_type, digest, size = self.annotations[MANIFEST].split(" ")
        return Descriptor(media_type=media_type, digest=Digest.parse(digest), size=int(size))

    @property
    def id(self) -> str:
        return self.annotations[ID]

    @property
    def size(self) -> int:
        return int(self.annotations[SIZE])

    @property
    def created(self) -> str:
        return self.annotations[CREATED]

    @property
    def platform(self) -> str:
        return self.annotations[PLATFORM]

    def named(self, name: str) -> _Entry:
        annotations = {k: v for k, v in self.annotations.items() if k != NAME}
        if name:
            annotations = {NAME: name, **annotations}
        return _Entry({**self.item, "annotations": annotations}, self._complete)

    def dangling(self) -> _Entry:
        """This entry after its name moved: known by digest where a registry has it."""
        return self.named(f"{self.repository}@{self.target_digest}" if self.is_remote else "")

    def confirmed(self) -> _Entry:
        annotations = {**self.annotations, ORIGIN: "registry"}
        return _Entry({**self.item, "annotations": annotations}, self._complete)


def _without_needless_dangling(entries: list[_Entry]) -> list[_Entry]:
    """An unnamed entry is kept only while nothing else holds its manifest."""
    held = {entry.manifest_digest for entry in entries if entry.name}
    kept = []
    for entry in entries:
        if not entry.name:
            if entry.manifest_digest in held:
                continue
            held.add(entry.manifest_digest)
        kept.append(entry)
    return kept


def _digests_without_tags(entries: list[_Entry], tag: _Entry) -> list[_Entry]:
    """The image's names by digest in the tag's repository, if no other tag is there beside them."""
    beside = [
        entry
        for entry in entries
        if entry is not tag
        and entry.repository == tag.repository
        and entry.manifest_digest == tag.manifest_digest
    ]
    return beside if all("@" in entry.name for entry in beside) else []


def _full_name(reference: Reference) -> str:
    """The name as the index has it: with tag or digest, and not both: the digest decides."""
    if reference.digest is not None:
        return f"{reference.registry}/{reference.repository}@{reference.digest}"
    return str(reference.with_default_tag())


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
