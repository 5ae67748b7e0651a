"""Where blob bytes live: the interfaces that disk, memory and object stores implement.

Glossary
    store key   the name of committed bytes: a digest and a *generation*, so that a late removal of
                old bytes can never hit bytes uploaded again under the same digest
    upload      bytes on their way in, named by an id of the caller's choice; not readable as a blob
    epoch       changes whenever bytes acknowledged without fsync may have been lost (a reboot)

Life of an upload: `begin` → `append` (any number of times, also after a restart) → the writer's
`commit`, or `abort`. Nothing can be opened as a blob before `commit` returned, and afterwards all
of it can. The database row comes after `commit`; a crash between the two leaves unreferenced
bytes, never a row without bytes. Existence is decided by the row: callers ask a store only for keys
from a row.

Every method blocks and may be called from any thread: from async code, call it through
`registry.server.threads.in_thread`. Only `BlobReader.open` of a store whose `opens_at_once` is
true may be called in the event loop.

Every store fulfils `tests/registry/storage/contract.py`.

Two kinds of store
    One that keeps uploads itself (disk, memory; `keeps_uploads` is true) knows how far each is and
    can read it back. An object store cannot: parts of a multipart upload are not readable, and it
    has no locks. There the upload's row is what counts: `Progress` gives its words to the store
    and changes them by compare-and-swap, so that any replica continues an upload and no two do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from ocispec.digest import Digest
from ocispec.errors import SpecError
from registry.storage.errors import InvalidStoreKey, UploadUnknown

_KEY = re.compile(
    r"blobs/(sha256|sha512)/([0-9a-f]{2})/([0-9a-f]{64,128})(?:\.([1-9][0-9]{0,17}))?"
)
_ID = r"[A-Za-z0-9][A-Za-z0-9_-]{7,127}"
_UPLOAD_KEY = re.compile(rf"blobs/upload/({_ID})")
_UPLOAD_ID = re.compile(_ID)


@dataclass(frozen=True, slots=True)
class StoreKey:
    """The name of committed bytes, by their digest or by the upload that brought them.

    `blobs/sha256/ab/<hex>`, or `blobs/sha256/ab/<hex>.<generation>` from generation 1 on; or
    `blobs/upload/<id>` where the bytes were given their name before their digest was known and
    cannot be renamed. An upload is committed once, so such a name is never used again.

    The same words name a file below the disk root and an object in a bucket.
    """

    #: Hash of the bytes under this key; None if the key does not tell.
    digest: Digest | None = None
    #: How often bytes of this digest were removed before; 0 at first.
    generation: int = 0
    #: The upload that brought the bytes; empty if the digest names them.
    upload: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.generation < 10**18:
            raise InvalidStoreKey(f"generation {self.generation} is out of range")
        if (self.digest is None) == (not self.upload):
            raise InvalidStoreKey("a store key is named by a digest or by an upload")
        if self.upload and (self.generation or _UPLOAD_ID.fullmatch(self.upload) is None):
            raise InvalidStoreKey(f"{self.upload[:200]!r} cannot name stored bytes")

    @classmethod
    def parse(cls, text: str) -> StoreKey:
        """Raises: InvalidStoreKey for anything that `str` of a key cannot give."""
        if (uploaded := _UPLOAD_KEY.fullmatch(text)) is not None:
            return cls(upload=uploaded[1])
        match = _KEY.fullmatch(text)
        if match is None or match[2] != match[3][:2]:
            raise InvalidStoreKey(f"{text[:200]!r} is not a store key")
        try:
            digest = Digest.parse(f"{match[1]}:{match[3]}")
        except SpecError as error:
            raise InvalidStoreKey(f"{text[:200]!r} is not a store key") from error
        return cls(digest, int(match[4] or 0))

    def __str__(self) -> str:
        if self.digest is None:
            return f"blobs/upload/{self.upload}"
        suffix = f".{self.generation}" if self.generation else ""
        encoded = self.digest.encoded
        return f"blobs/{self.digest.algorithm}/{encoded[:2]}/{encoded}{suffix}"


def check_upload_id(upload: str) -> str:
    """The id itself if it is safe as a file name (letters, digits, `-`, `_`; 8 to 128 of them).

    Raises: UploadUnknown otherwise: such an id was never handed out.
    """
    if _UPLOAD_ID.fullmatch(upload) is None:
        raise UploadUnknown(upload[:200])
    return upload


class OpenBlob(Protocol):
    """Committed bytes, open for reading. Removing the key meanwhile does not disturb a reader on
    disk or in memory; an object store may answer BlobMissing, so removal waits for readers there.

    A context manager; closing twice is harmless. Not to be closed while a thread reads from it:
    `send_blob` returns only when none does.
    """

    @property
    def size(self) -> int:
        """Bytes in total."""

    @property
    def fd(self) -> int | None:
        """A regular file's descriptor for sendfile, owned by this object; None if there is none."""

    def prepare(self, offset: int, count: int) -> None:
        """Say which bytes will be read, in order, before the answer to a client begins. Blocks.

        Optional: a store that asks another machine does it here, once and for no more than that.
        Raises: BlobMissing, StorageFailed, while an error can still be told.
        """

    def read_at(self, offset: int, count: int) -> bytes:
        """Bytes from `offset`, at most `count`; fewer only at the end. Blocks."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class BlobReader(Protocol):
    @property
    def opens_at_once(self) -> bool:
        """True if `open` takes microseconds, so that it may be called in the event loop."""

    def open(self, key: StoreKey, size: int | None = None) -> OpenBlob:
        """`size` is what the row says. A store may believe it and look only when bytes are wanted.

        Raises: BlobMissing if nothing was committed under this key or it was removed.
        """

    def url(self, key: StoreKey) -> str | None:
        """An address where a client may read these bytes itself, for some minutes; None: here."""


class BlobRemover(Protocol):
    def remove(self, key: StoreKey) -> bool:
        """Remove the bytes for good; False if there were none (asking twice is fine)."""

    def remove_all(self, keys: Iterable[StoreKey]) -> None:
        """The same for many, in as few steps as the store allows. Raises: StorageFailed; then
        some may be gone, and asking again is fine."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One entry of a listing."""

    #: Its key.
    key: StoreKey
    #: Bytes in total.
    size: int
    #: When it was committed, in seconds since 1970 by the store's clock.
    committed_at: float


class BlobListing(Protocol):
    def blobs(self) -> Iterator[StoredBlob]:
        """Every committed blob in no particular order, for the audit of bytes without a row."""


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """What is there of an upload."""

    #: Bytes stored so far; the offset at which the next `append` must start.
    size: int
    #: A saved hash state counts only if its byte count is `size` and it was saved in this epoch;
    #: otherwise hash `Uploads.read` again. After a power cut a file may have its old length and
    #: lost bytes; the new epoch is how that shows.
    epoch: str


class Progress(Protocol):
    """How far an upload is, in a place that all replicas share: its row."""

    @property
    def offset(self) -> int:
        """Bytes of the upload that were acknowledged."""

    @property
    def state(self) -> str:
        """The store's own words about these bytes, as last saved; empty at first."""

    def swap(self, state: str) -> None:
        """Save other words if the saved ones are still `state`; blocks.

        Raises: UploadBusy if another writer was faster, now or before; UploadUnknown.
        """


class UploadWriter(Protocol):
    """One contiguous piece being added to an upload. A context manager: leaving it closes.

    Holds the upload from `append` to `close`. Bytes written stay when the piece ends early (a
    client that went away can continue), unless `rollback` is called; where `keeps_uploads` is
    false they stay if `seal` was called and `offset` and `state` were saved in the row.
    """

    @property
    def offset(self) -> int:
        """Bytes of the upload so far, this piece included."""

    @property
    def state(self) -> str:
        """The store's own words about these bytes, for the row; after `seal` if that was called."""

    def seal(self) -> None:
        """Make the bytes so far such that another request can continue; no `write` after it.

        Raises: StorageFailed; then the piece was rolled back.
        """

    def commit(self, key: StoreKey) -> StoreKey:
        """Make everything, earlier pieces included, durable and in one step a blob; the upload and
        this writer end. Gives the key of the bytes: `key`, or one of the store's own choice.

        The hash is the caller's word: compare the digest first. Equal bytes already under `key`
        are replaced. On an error the upload is still there, unless it says UploadUnknown.

        Raises: UploadUnknown; UploadBusy; StorageFull; StorageFailed.
        """

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`. Not durable before `commit`.

        Raises: StorageFull or StorageFailed; then the whole piece was rolled back, as if `append`
        had not been called, and this writer is closed.
        """

    def rollback(self) -> None:
        """Forget everything this piece wrote, and close."""

    def close(self) -> None:
        """Keep what was written and release the lock; harmless twice."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Uploads(Protocol):
    """An id that is malformed, was never begun, or was committed or aborted is UploadUnknown."""

    def begin(self, upload: str) -> None:
        """Make an empty upload.

        Raises: UploadExists if the id is taken; StorageFull.
        """

    def append(self, upload: str, offset: int, progress: Progress | None = None) -> UploadWriter:
        """Open the upload to add bytes at `offset`, which must be its size.

        `progress` is the upload's row; a store that keeps uploads itself does not look at it. To
        others None is an upload that no other request will ever continue.

        Raises: UploadUnknown; OffsetMismatch(expected, found), changing nothing; UploadBusy if
        another writer or a commit has it, in this or any other process.
        """

    def abort(self, upload: str) -> None:
        """Drop the upload and its bytes; harmless twice. A writer that is open meanwhile goes on
        and its bytes go nowhere."""


class UploadContents(Protocol):
    @property
    def keeps_uploads(self) -> bool:
        """False if only the row knows how far an upload is, and its bytes cannot be read back."""

    def status(self, upload: str, progress: Progress | None = None) -> UploadStatus:
        """Raises: UploadUnknown."""

    def read(self, upload: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        """The bytes stored so far, in pieces, to be hashed again; where `keeps_uploads` is true.
        Raises: UploadUnknown."""


class StaleUploads(Protocol):
    def untouched_since(self, moment: float) -> Iterator[str]:
        """Ids of uploads last written before `moment` (seconds since 1970), in no order."""


class Health(Protocol):
    def check(self) -> None:
        """Whether bytes can be stored and read now; cheap, blocks. Raises: StorageFailed."""

    def close(self) -> None:
        """Let go of connections and threads; harmless twice. Nothing else is called after it."""


class Storage(
    BlobReader, BlobRemover, BlobListing, Uploads, UploadContents, StaleUploads, Health, Protocol
):
    """All of it: what an assembled registry is given. Ask for a smaller one where it will do."""
