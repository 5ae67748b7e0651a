"""Taking a tree over: bytes by hard link, everything else by the operations of an ordinary push.

A blob is opened, hashed through that descriptor and linked from it, so what was verified is what
is linked. Then the directory is synced, and then there is a row: as with an upload, never the other
way round. Whatever is there already is left as it is, so running it again goes on where it ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from ocispec.errors import SpecError
from ocispec.jsondoc import parse_object
from registry.adopt.tree import BadEntry, Tree
from registry.content.manifests import read_manifest
from registry.errors import ManifestBlobUnknown, RegistryError
from registry.metadata.base import PULL, PUSH, Access, Metadata, NewManifest
from registry.storage.base import StoreKey
from registry.storage.disk import DiskStorage

_CHUNK = 1 << 20
#: Findings that are told one by one; a broken disk has millions.
MOST_TOLD = 1000
ACTOR = "adopt"

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(slots=True)
class Summary:
    repositories: int = 0
    manifests: int = 0
    tags: int = 0
    #: Linked now, and their bytes.
    blobs: int = 0
    bytes: int = 0
    #: Here before, so neither hashed nor linked.
    present: int = 0
    #: Layers in the tree that no manifest uses; they are left where they are.
    unused: int = 0
    #: (where, why), the first of them; and how many by reason.
    skipped: list[tuple[str, str]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def skip(self, where: str, why: str) -> None:
        where = "".join(c if c.isprintable() else "?" for c in where[:400])
        self.reasons[why] += 1
        if len(self.skipped) < MOST_TOLD:
            self.skipped.append((where, why))


class Adoption:
    """One run. `progress` is called now and then, in the event loop."""

    def __init__(
        self,
        tree: Tree,
        metadata: Metadata,
        storage: DiskStorage,
        *,
        max_manifest_bytes: int,
        is_dry: bool = False,
        verify: bool = True,
        jobs: int = 2,
        progress: Callable[[Summary], None] = lambda summary: None,
    ) -> None:
        self.summary = Summary()
        self._tree = tree
        self._metadata = metadata
        self._storage = storage
        self._limit = max_manifest_bytes
        self._is_dry = is_dry
        self._verify = verify
        self._jobs = jobs
        self._progress = progress
        #: Why a blob could not be taken; None if it was.
        self._taken: dict[Digest, str | None] = {}

    async def run(self) -> Summary:
        summary = self.summary
        names = await asyncio.to_thread(
            lambda: sorted(self._tree.repositories(summary.skip), key=str)
        )
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="adopt") as threads:
            for name in names:
                await self._repository(name, threads)
                summary.repositories += 1
                self._progress(summary)
        return summary

    async def _repository(self, name: RepositoryName, threads: ThreadPoolExecutor) -> None:
        skip = self.summary.skip
        revisions = self._tree.revisions(name, skip)
        layers = self._tree.layers(name, skip)
        tags: dict[Digest, list[Tag]] = {}
        for tag, digest in self._tree.tags(name, skip).items():
            if digest in revisions:
                tags.setdefault(digest, []).append(tag)
            else:
                skip(f"{name}:{tag}", "names a manifest that the repository does not hold")
        # One at a time, not all in memory: a repository may have many thousand manifests.
        later: list[tuple[Digest, tuple[Digest, ...]]] = []
        used: set[Digest] = set()
        for digest in sorted(revisions, key=str):
            new = self._read(name, digest)
            if new is None:
                continue
            if new.children:
                later.append((digest, new.children))
                continue
            used |= {blob.digest for blob in new.blobs}
            await self._image(name, new, layers, tags.get(digest, []), threads)
        self.summary.unused += len(layers - used)
        # Those that name others after the others, however deep.
        open_ = {digest for digest, _ in later}
        while later:
            ready = [item for item in later if not open_.intersection(item[1])] or later[:1]
            for digest, _ in ready:
                new = self._read(name, digest)
                if new is not None:
                    await self._put(name, new, tags.get(digest, []))
                open_.discard(digest)
            later = [item for item in later if item[0] in open_]

    def _read(self, name: RepositoryName, digest: Digest) -> NewManifest | None:
        where = f"{name}@{digest}"
        try:
            fd = self._tree.open_blob(digest)
            try:
                raw = _read_all(fd, self._limit)
            finally:
                os.close(fd)
            return read_manifest(
                raw, content_type=_media_type(raw, self._limit), digest=digest, limit=self._limit
            )
        except BadEntry as error:
            self.summary.skip(where, str(error))
        except (RegistryError, SpecError) as error:
            self.summary.skip(where, f"is no manifest that can be kept: {error}"[:300])
        return None

    async def _image(
        self,
        name: RepositoryName,
        new: NewManifest,
        layers: set[Digest],
        tags: list[Tag],
        threads: ThreadPoolExecutor,
    ) -> None:
        wanted = [blob for blob in new.blobs if blob.digest in layers]
        lost = [b for b in new.blobs if b.digest not in layers and not b.may_be_absent]
        if lost:
            why = "needs a layer that the repository does not hold"
            self.summary.skip(f"{name}@{new.digest}", why)
            return
        taken = await asyncio.gather(
            *(self._blob(name, digest, threads) for digest in {blob.digest for blob in wanted})
        )
        bad = [why for why in taken if why is not None]
        must = {blob.digest for blob in wanted if not blob.may_be_absent}
        if any(self._taken.get(digest) is not None for digest in must):
            self.summary.skip(f"{name}@{new.digest}", f"needs a layer that is bad: {bad[0]}")
            return
        await self._put(name, new, tags)

    async def _blob(
        self, name: RepositoryName, digest: Digest, threads: ThreadPoolExecutor
    ) -> str | None:
        """Make the repository a holder of a blob. Why it could not; None if it is one."""
        if (why := self._taken.get(digest)) is not None:
            return why
        access = _access(name)
        placement = await self._metadata.hot.placement(access, digest)
        if placement.present is not None:
            if digest not in self._taken:
                self.summary.present += 1
            self._taken[digest] = None
            if not self._is_dry:
                await self._metadata.blobs.add(
                    access,
                    digest,
                    placement.present.size,
                    store_key=placement.present.store_key,
                    generation=placement.present.generation,
                )
            return None
        is_new = digest not in self._taken
        key = StoreKey(digest, placement.generation)
        loop = asyncio.get_running_loop()
        try:
            size = await loop.run_in_executor(threads, self._link, digest, key)
        except BadEntry as error:
            self._taken[digest] = str(error)
            self.summary.skip(str(digest), str(error))
            return str(error)
        self._taken[digest] = None
        if not self._is_dry:
            await self._metadata.blobs.add(
                access, digest, size, store_key=str(key), generation=placement.generation
            )
        if is_new:
            self.summary.blobs += 1
            self.summary.bytes += size
        self._progress(self.summary)
        return None

    def _link(self, digest: Digest, key: StoreKey) -> int:
        fd = self._tree.open_blob(digest)
        try:
            if not self._is_dry:
                if self._verify:
                    _check(fd, digest)
                self._storage.link(fd, key)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    async def _put(self, name: RepositoryName, new: NewManifest, tags: list[Tag]) -> None:
        access = _access(name)
        kept: list[Tag] = []
        for tag in tags:
            there = await self._metadata.hot.manifest_by_tag(access, tag)
            if there is None or there.digest == new.digest:
                kept.append(tag)
            else:
                self.summary.skip(f"{name}:{tag}", "names another manifest here already")
        if not self._is_dry:
            try:
                # An index may name images that were never pushed, or were deleted: it pulls for
                # the platforms that are there, as it did before.
                await self._metadata.manifests.put(access, new, tags=tuple(kept), allow_sparse=True)
            except ManifestBlobUnknown:
                why = "needs a layer that is not there any more"
                self.summary.skip(f"{name}@{new.digest}", why)
                return
        self.summary.manifests += 1
        self.summary.tags += len(kept)
        self._progress(self.summary)


def _access(name: RepositoryName) -> Access:
    return Access(name, ACTOR, frozenset({PULL, PUSH}))


def _check(fd: int, digest: Digest) -> None:
    """Raises: BadEntry if these are not the bytes of the digest."""
    running = hashlib.new(digest.algorithm)
    offset = 0
    try:
        while chunk := os.pread(fd, _CHUNK, offset):
            running.update(chunk)
            offset += len(chunk)
    except OSError as error:
        raise BadEntry(f"its bytes cannot be read: {error.strerror}") from None
    if running.hexdigest() != digest.encoded:
        raise BadEntry("its bytes are damaged: they have another digest")


def _read_all(fd: int, limit: int) -> bytes:
    parts = []
    offset = 0
    while chunk := os.pread(fd, _CHUNK, offset):
        parts.append(chunk)
        offset += len(chunk)
        if offset > limit:
            raise BadEntry(f"is larger than {limit} bytes, which no manifest is")
    return b"".join(parts)


def _media_type(raw: bytes, limit: int) -> str:
    """What a tree does not tell: it was in the header of the push."""
    document = parse_object(raw, limit=limit, what="manifest")
    said = document.get("mediaType")
    if isinstance(said, str) and said:
        return said
    if document.get("schemaVersion") == 1:
        raise BadEntry("is an image of schema 1, which nobody pulls any more")
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST
