"""A registry in steps, and what it owes to those whom it answered.

Promises, made by answers:
    a blob that was stored, mounted or found     is there for a lease
    a manifest that was pushed                   is there until it is deleted, untagged or not, for
                                                 as long as untagged ones are kept
    a tag that was set                           names what it was set to until it is changed
    a tag that was deleted                       can be restored in the window

What holds in between, whatever is under way (`check`):
    I1  the blobs of every manifest are live, and their bytes are there and right
    I2  every promise
    I3  a key to be swept is no live blob's
    I4  once all is quiet and old, the store holds what live rows name, and no row is useless
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from sqlalchemy import select

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from registry.content import blobs as content_blobs
from registry.content import uploads as content_uploads
from registry.content.blobs import Blobs
from registry.content.collect import Collector, CollectTerms
from registry.content.uploads import BlobUploads
from registry.errors import (
    BlobReferenced,
    BlobUnknown,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    StaleGeneration,
    UploadUnknown,
)
from registry.metadata import tables
from registry.metadata.base import DELETE, PULL, PUSH, Access, NewManifest
from registry.metadata.transaction import Terms, Transaction
from registry.server.extensions import Sink
from registry.storage.base import StoreKey
from registry.storage.memory import MemoryStorage
from tests.registry.content.steps import Gated, Mortal, Op, Scheduler
from tests.registry.metadata.conftest import manifest

LEASE, UNTAGGED, HISTORY, EXPIRY, SWEEP, UNKNOWN = 1000, 2000, 2000, 3000, 300, 1500
TERMS = Terms(lease_s=LEASE, untagged_s=UNTAGGED, upload_expiry_s=EXPIRY, history_s=HISTORY)
COLLECT = CollectTerms(sweep_delay_s=SWEEP, unknown_after_s=UNKNOWN)

CLOCKED = (content_blobs, content_uploads)

REPOSITORIES = ("team/app", "team/other")
TAGS = ("v1", "v2")
LAYERS = tuple(f"layer {n}".encode() for n in range(5))
IMAGES = {
    "image-a": manifest(b"image-a", layers=(LAYERS[0], LAYERS[1])),
    "image-b": manifest(b"image-b", layers=(LAYERS[1], LAYERS[2])),
    "image-c": manifest(b"image-c", layers=(LAYERS[3],)),
}
IMAGES["index"] = manifest(b"index", children=(IMAGES["image-a"].digest, IMAGES["image-b"].digest))
IMAGES["signature"] = manifest(
    b"signature", layers=(LAYERS[4],), subject=IMAGES["image-a"].digest, artifact_type="a/b"
)
BY_DIGEST = {new.digest: new for new in IMAGES.values()}
CONTENT = {Digest.of(layer): layer for layer in LAYERS}


def access(repository: str) -> Access:
    return Access(RepositoryName(repository), "omri", frozenset({PULL, PUSH, DELETE}))


class RememberingStorage(MemoryStorage):
    """Knows what was removed, for bytes that come late."""

    def __init__(self) -> None:
        super().__init__()
        self.removed: dict[StoreKey, bytes] = {}

    def remove(self, key: StoreKey) -> bool:
        if key in self._blobs:
            self.removed[key] = self._blobs[key][0]
        return super().remove(key)


class World:
    """One registry; `registry` is `tests.registry.metadata.conftest.Registry`."""

    def __init__(self, registry: Any) -> None:
        self.registry = registry
        self.clock = registry.clock
        self.metadata = registry.metadata
        self.storage = RememberingStorage()
        self.steps = Scheduler()
        #: (repository, digest) → until when a blob must be there.
        self.blobs: dict[tuple[str, Digest], float] = {}
        #: (repository, digest) → until when a manifest must be there.
        self.manifests: dict[tuple[str, Digest], float] = {}
        #: (repository, tag) → what it must name.
        self.tags: dict[tuple[str, str], Digest] = {}
        #: (repository, tag) → what it named, and until when that can be restored.
        self.deleted: dict[tuple[str, str], tuple[Digest, float]] = {}
        #: (repository, digest) → until when a deleted manifest can be restored.
        self.trashed: dict[tuple[str, Digest], float] = {}
        #: Manifests with a subject that were pushed, and not deleted: (repository, digest).
        self.referring: set[tuple[str, Digest]] = set()
        #: Manifests that were deleted although an index may name them.
        self.torn: set[tuple[str, Digest]] = set()
        #: Blobs whose bytes a test has spoilt.
        self.rotten: set[Digest] = set()
        #: Operations that may change tags and manifests just now.
        self.changing: list[Changing] = []
        #: (repository, digest) → deletions of a blob that began or ended, and those under way.
        self.deletions: Counter[tuple[str, Digest]] = Counter()
        self.deleting: Counter[tuple[str, Digest]] = Counter()
        # Whether a lease or an upload is to be renewed is asked by the wall clock otherwise.
        for module in CLOCKED:
            module.time = SimpleNamespace(time=self.clock)  # type: ignore[attr-defined]

    def close(self) -> None:
        for module in CLOCKED:
            module.time = time  # type: ignore[attr-defined]
        self.steps.close()
        self.metadata.close()

    # -- what an operation is made of ------------------------------------------------------------

    def uploads(self, op: Op) -> BlobUploads:
        return BlobUploads(
            Gated(self.metadata, op), Mortal(self.storage, op), max_blob_bytes=1 << 20
        )

    def collector(self, op: Op, seed: int = 1) -> Collector:
        return Collector(
            Gated(self.metadata, op),
            Mortal(self.storage, op),
            terms=COLLECT,
            clock=self.clock,
            chance=random.Random(seed),
            at=op.gate,
        )

    async def find(self, op: Op, repository: str, digest: Digest) -> bool:
        """HEAD of a blob."""
        promise = self._promise(repository, digest)
        try:
            record = await Blobs(Gated(self.metadata, op), self.storage).find(
                access(repository), digest
            )
        except BlobUnknown:
            return False
        if record.unreferenced_since is not None:
            promise(LEASE)  # renewed by every look, as leases here are short
        return True

    async def upload(self, op: Op, repository: str, layer: bytes, *, session: bool) -> None:
        """A blob, by one request or by an upload; sent again where the server says so."""
        digest, who = Digest.of(layer), access(repository)
        uploads = self.uploads(op)
        for _ in range(4):
            promise, began = self._promise(repository, digest), self.clock()
            try:
                if session:
                    record = await uploads.begin(who)
                    await uploads.append(who, record.id, body(layer), start=0, size=len(layer))
                    await uploads.finish(who, record.id, digest, None, start=None, size=None)
                else:
                    await uploads.store(who, digest, body(layer), size=len(layer))
            except StaleGeneration:
                continue
            except UploadUnknown:
                assert self.clock() - began >= EXPIRY, "I2: an upload was reaped before its time"
                continue
            promise(LEASE)
            return
        raise AssertionError(f"{layer!r} can never be stored")

    async def mount(self, op: Op, repository: str, digest: Digest) -> bool:
        promise = self._promise(repository, digest)
        other = REPOSITORIES[1 - REPOSITORIES.index(repository)]
        blobs = Blobs(Gated(self.metadata, op), self.storage)
        if await blobs.mount(access(repository), digest, access(other)) is None:
            return False
        promise(LEASE)
        return True

    async def push(
        self,
        op: Op,
        repository: str,
        name: str,
        tag: str = "",
        *,
        mounts: bool = False,
        session: bool = False,
    ) -> None:
        """What a client does: HEAD each blob, mount or send what is missing, then manifests."""
        new = IMAGES[name]
        for child in new.children:
            await self._push_one(op, repository, BY_DIGEST[child], "", mounts, session)
        await self._push_one(op, repository, new, tag, mounts, session)

    async def _push_one(
        self, op: Op, repository: str, new: NewManifest, tag: str, mounts: bool, session: bool
    ) -> None:
        for reference in new.blobs:
            digest = reference.digest
            if await self.find(op, repository, digest):
                continue
            if not (mounts and await self.mount(op, repository, digest)):
                await self.upload(op, repository, CONTENT[digest], session=session)
        await self.put(op, repository, new, tag)

    async def put(self, op: Op, repository: str, new: NewManifest, tag: str = "") -> bool:
        """A manifest; False where the client has to begin again."""
        began = self.clock()
        with Changing(self, repository, tag) as change:
            try:
                await Gated(self.metadata, op).manifests.put(
                    access(repository), new, tags=(Tag(tag),) if tag else ()
                )
            except ManifestBlobUnknown as error:
                for missing in map(Digest.parse, error.digests):
                    until = self.blobs.get((repository, missing), 0)
                    assert until <= self.clock(), f"{missing} was promised, and is not there"
                    until = self.manifests.get((repository, missing), 0)
                    assert until <= self.clock(), f"{missing} was promised, and is not there"
                return False
            if not change.alone:
                return True
            for digest in (new.digest, *new.children):
                key = repository, digest
                self.manifests[key] = max(self.manifests.get(key, 0), began + UNTAGGED - 1)
            if new.subject is not None:
                self.referring.add((repository, new.digest))
            if tag:
                self.tags[repository, tag] = new.digest
        return True

    async def delete_tag(self, op: Op, repository: str, tag: str) -> None:
        began = self.clock()
        with Changing(self, repository, tag) as change:
            try:
                await Gated(self.metadata, op).tags.remove(access(repository), Tag(tag))
            except (NameUnknown, ManifestUnknown):
                return
            if change.before is not None and change.alone:
                until = began + min(HISTORY, UNTAGGED) - 1
                self.deleted[repository, tag] = change.before, until

    async def delete_manifest(self, op: Op, repository: str, digest: Digest) -> None:
        self.forget(repository, digest)
        began, new = self.clock(), BY_DIGEST[digest]
        self.torn.add((repository, digest))
        with Changing(self, repository, EVERY) as change:
            try:
                await Gated(self.metadata, op).manifests.remove(access(repository), digest)
            except (NameUnknown, ManifestUnknown):
                return
            spoilt = any(each.digest in self.rotten for each in new.blobs)
            if change.alone and not new.children and not spoilt and not self.deleting.total():
                self.trashed[repository, digest] = began + HISTORY - 1

    async def restore_manifest(self, op: Op, repository: str, digest: Digest) -> None:
        """Raises: NotRestorable."""
        self.trashed.pop((repository, digest))
        with Changing(self, repository, EVERY):
            who = access(repository)
            await Gated(self.metadata, op).history.restore(who, str(digest))

    async def delete_blob(self, op: Op, repository: str, digest: Digest) -> None:
        key = repository, digest
        self.blobs.pop(key, None)
        self.trashed.clear()
        self.deletions[key] += 1
        self.deleting[key] += 1
        try:
            await Gated(self.metadata, op).blobs.remove(access(repository), digest)
        except (BlobUnknown, BlobReferenced):
            pass
        finally:
            self.deleting[key] -= 1

    async def restore_tag(self, op: Op, repository: str, tag: str) -> None:
        """Raises: NotRestorable."""
        owed = self.deleted.get((repository, tag))
        with Changing(self, repository, tag) as change:
            await Gated(self.metadata, op).history.restore(access(repository), tag)
            if owed is not None and change.alone:
                self.tags[repository, tag] = owed[0]

    # -- promises --------------------------------------------------------------------------------

    def _promise(self, repository: str, digest: Digest) -> Callable[[int], None]:
        """To be called before a request that ends in one; the result when it was answered."""
        key, began = (repository, digest), self.clock()
        before = self.deletions[key], self.deleting[key]

        def made(seconds: int) -> None:
            if digest not in self.rotten and before == (self.deletions[key], 0):
                self.blobs[key] = max(self.blobs.get(key, 0), began + seconds - 1)

        return made

    def forget(self, repository: str, digest: Digest) -> None:
        """A manifest may go: nothing is owed of it, and of what names it."""
        self.manifests.pop((repository, digest), None)
        self.referring.discard((repository, digest))
        for tags in (self.tags, self.deleted):
            for key, value in list(tags.items()):
                named = value[0] if isinstance(value, tuple) else value
                if key[0] == repository and digest in (named, *BY_DIGEST[named].children):
                    del tags[key]

    def spoil(self, digest: Digest) -> bool:
        """Change the bytes of a blob in the store."""
        for key, (data, at) in list(self.storage._blobs.items()):
            if key.digest == digest and self._is_live(key):
                self.storage._blobs[key] = b"X" * len(data), at
                self.rotten.add(digest)
                for promise in [p for p in self.blobs if p[1] == digest]:
                    del self.blobs[promise]
                self.deleted.clear()
                self.trashed.clear()
                return True
        return False

    def _is_live(self, key: StoreKey) -> bool:
        return str(key) in self.rows()[1].values()

    # -- invariants ------------------------------------------------------------------------------

    def rows(self) -> tuple[list[tuple[str, str, str]], dict[str, str], set[str]]:
        """Manifests' blobs (repository, manifest, blob); live blobs by digest; doomed keys."""

        def read(tx: Transaction) -> Any:
            m, mb, r = tables.manifest, tables.manifest_blob, tables.repository
            uses = tx.connection.execute(
                select(r.c.name, m.c.digest, mb.c.digest)
                .join(m, m.c.id == mb.c.manifest_id)
                .join(r, r.c.id == m.c.repository_id)
            ).all()
            live = tx.connection.execute(
                select(tables.blob.c.digest, tables.blob.c.store_key).where(
                    tables.blob.c.state == "live"
                )
            ).all()
            doomed = tx.connection.execute(select(tables.doomed_object.c.store_key)).scalars()
            return [tuple(use) for use in uses], dict(map(tuple, live)), set(doomed)

        found: tuple[list[tuple[str, str, str]], dict[str, str], set[str]] = self.steps.run(
            self.registry.database.read(read)
        )
        return found

    def check(self) -> None:
        """I1 to I3."""
        uses, live, doomed = self.rows()
        held = {str(key): data for key, (data, _) in self.storage._blobs.items()}
        for text in {str(digest) for digest in self.rotten} & live.keys():
            if held.get(live[text]) == CONTENT[Digest.parse(text)]:
                self.rotten.discard(Digest.parse(text))
        sick = {str(digest) for digest in self.rotten}
        for repository, owner, digest in uses:
            if digest in sick:
                continue
            assert digest in live, f"I1: {digest} of {owner} in {repository} is not live"
            assert held.get(live[digest]) == CONTENT[Digest.parse(digest)], (
                f"I1: the bytes of {digest} of {owner} in {repository} are not there"
            )
        assert not doomed & set(live.values()), "I3: a key to be swept is a live blob's"
        self._check_graph()
        now = self.clock()
        for (repository, digest), until in list(self.blobs.items()):
            if until <= now:
                del self.blobs[repository, digest]
                continue
            record = self.steps.run(self.metadata.hot.blob(access(repository), digest))
            assert record is not None, f"I2: blob {digest} is gone from {repository}"
            assert record.store_key in held, f"I2: bytes of {digest} are gone"
        for (repository, digest), until in list(self.manifests.items()):
            if until <= now:
                del self.manifests[repository, digest]
                continue
            found = self.steps.run(self.metadata.hot.manifest_by_digest(access(repository), digest))
            assert found is not None, f"I2: manifest {digest} is gone from {repository}"
        for (repository, tag), digest in self.tags.items():
            named = self.named(repository, tag)
            assert named == digest, f"I2: {repository}:{tag} names {named}, not {digest}"

    def _check_graph(self) -> None:
        """An index has its children, and a subject what refers to it."""

        def read(tx: Transaction) -> Any:
            m, c, r = tables.manifest, tables.manifest_child, tables.repository
            there = tx.connection.execute(
                select(r.c.name, m.c.digest).join(r, r.c.id == m.c.repository_id)
            ).all()
            children = tx.connection.execute(
                select(r.c.name, c.c.child_digest).join(r, r.c.id == c.c.repository_id)
            ).all()
            return {tuple(row) for row in there}, {tuple(row) for row in children}

        there, children = self.steps.run(self.registry.database.read(read))
        for repository, digest in children - there:
            key = repository, Digest.parse(digest)
            assert key in self.torn, f"I1: child {digest} of an index in {repository} is gone"
        for repository, digest in list(self.referring):
            subject = BY_DIGEST[digest].subject
            if (repository, str(subject)) not in there:
                self.referring.discard((repository, digest))
            else:
                assert (repository, str(digest)) in there, f"I2: referrer {digest} is gone"

    def named(self, repository: str, tag: str) -> Digest | None:
        found = self.steps.run(self.metadata.hot.manifest_by_tag(access(repository), Tag(tag)))
        return None if found is None else found.digest

    # -- quiet -----------------------------------------------------------------------------------

    def collect(self) -> None:
        """All that is due, by one collector that nobody disturbs."""

        async def run() -> None:
            collector = Collector(
                self.metadata, self.storage, terms=COLLECT, clock=self.clock,
                chance=random.Random(1),
            )  # fmt: skip
            while True:
                steps = [
                    await collector.review_manifests(),
                    await collector.review_blobs(),
                    await collector.sweep(),
                ]
                await collector.prune_history()
                if not any(step.looked for step in steps):
                    return

        self.steps.run(run())

    def audit(self) -> None:
        async def run() -> None:
            collector = Collector(
                self.metadata, self.storage, terms=COLLECT, clock=self.clock,
                chance=random.Random(1),
            )  # fmt: skip
            await collector.audit()
            uploads = BlobUploads(self.metadata, self.storage, max_blob_bytes=1 << 20)
            await uploads.reap(older_than_s=-1)

        self.steps.run(run())

    def converge(self) -> None:
        """I4: everybody is gone, and much time passes."""
        for op in list(self.steps.running):
            self.steps.kill(op)
        for _ in range(6):
            self.clock.sleep(max(LEASE, UNTAGGED, HISTORY, EXPIRY, UNKNOWN) + 1)
            self.collect()
            self.audit()
        self.clock.sleep(SWEEP + 1)
        self.collect()
        self.check()
        uses, live, doomed = self.rows()
        held = {str(key) for key in self.storage._blobs}
        assert not doomed, f"I4: never swept: {doomed}"
        assert held == set(live.values()), "I4: bytes without a row, or rows without bytes"
        useless = set(live) - {use[2] for use in uses}
        assert not useless, f"I4: live blobs that nothing uses: {useless}"
        assert not self.storage._uploads, "I4: uploads of nobody"
        self._no_useless_manifests()

    def _no_useless_manifests(self) -> None:
        def read(tx: Transaction) -> Any:
            m, t, c = tables.manifest, tables.tag, tables.manifest_child
            rows = tx.connection.execute(
                select(m.c.id, m.c.repository_id, m.c.digest, m.c.subject_digest)
            ).all()
            tagged = set(tx.connection.execute(select(t.c.manifest_id)).scalars())
            named = {
                (r, d)
                for r, d in tx.connection.execute(select(c.c.repository_id, c.c.child_digest))
            }
            there = {(row.repository_id, row.digest) for row in rows}
            return [
                row.digest
                for row in rows
                if row.id not in tagged
                and (row.repository_id, row.digest) not in named
                and (row.repository_id, row.subject_digest) not in there
            ]

        useless = self.steps.run(self.registry.database.read(read))
        assert not useless, f"I4: manifests that nothing names: {useless}"


#: In place of a tag: all of them, and the manifests.
EVERY = "*"


class Changing:
    """An operation on a repository's tag. Where two overlap, nobody knows what it names then."""

    def __init__(self, world: World, repository: str, tag: str = "") -> None:
        self._world, self._repository, self._tag = world, repository, tag
        self.before: Digest | None = None
        #: Whether no other one overlapped.
        self.alone = True

    def __enter__(self) -> Changing:
        world, key = self._world, (self._repository, self._tag)
        self.before = world.tags.pop(key, None)
        world.deleted.pop(key, None)
        for other in world.changing:
            if other._overlaps(self):
                self.alone = other.alone = False
        world.changing.append(self)
        return self

    def _overlaps(self, other: Changing) -> bool:
        same = self._tag == other._tag and self._tag != ""
        return self._repository == other._repository and (same or EVERY in (self._tag, other._tag))

    def __exit__(self, *_: object) -> None:
        self._world.changing.remove(self)


def body(data: bytes) -> Any:
    async def give(sink: Sink) -> int:
        sink.write(memoryview(data))
        return len(data)

    return give
