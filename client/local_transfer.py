"""The local store as a source and as a sink of images.

A blob arrives in `ingest/<algorithm>-<hex>.partial`, a file that is named by what it will be, so
that whoever tries next continues it: after a broken connection, or a killed process. Its lock
(flock) makes one process download while another waits for the same blob. It is flushed and renamed
into `blobs/` only when every byte has been hashed and the digest is right.
"""

from __future__ import annotations

import fcntl
import os
import time

from client import progress as states
from client.errors import (
    ContentMismatch,
    LocalStoreError,
    RegistryError,
    RegistryUnavailable,
    TransferInterrupted,
)
from client.localimage import read_blob
from client.sources import Sources
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch
from ocispec.image.layout import BlobWriter
from ocispec.image.manifest import MAX_MANIFEST_BYTES, parse_manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import BinaryIO

    from client.local import LocalStore
    from client.progress import Progress
    from client.source import BlobStream, ImageSource
    from ocispec.digest import Hasher
    from ocispec.image.manifest import ImageIndex, ImageManifest

BUFFER = 1 << 20
REPORT_EVERY = 4 << 20  # bytes between two reports of progress
MAX_RESUMES = 100  # a connection may break this often as long as each brings something


class LocalSource:
    """Images of the local store, for a push."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._sources = Sources(os.path.join(store.root, "sources"))

    def manifest(self, reference: str) -> ImageManifest | ImageIndex:
        """By digest only: names are resolved by the store."""
        from client.remote import verify

        digest = Digest.parse(reference)
        path = self._store.layout.blob_path(digest)
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            raise LocalStoreError(f"blob {digest} is missing from the local store") from None
        probe = Descriptor(media_type="application/octet-stream", digest=digest, size=size)
        raw = read_blob(self._store.layout, probe, MAX_MANIFEST_BYTES)
        verify(raw, reference, f"manifest {digest}")
        return parse_manifest(raw)

    def has(self, descriptor: Descriptor) -> bool:
        return self._store.layout.has(descriptor.digest)

    def open_blob(self, descriptor: Descriptor, offset: int = 0) -> BlobStream:
        """Raises LocalStoreError if the blob is missing, ContentMismatch if its size is wrong."""
        try:
            file = self._store.layout.open(descriptor.digest)
        except FileNotFoundError:
            raise LocalStoreError(
                f"blob {descriptor.digest} is missing from the local store",
                hint="pull the image again",
            ) from None
        size = os.fstat(file.fileno()).st_size
        if size != descriptor.size:
            file.close()
            raise ContentMismatch(
                f"size of blob {descriptor.digest} in the local store",
                expected=descriptor.size,
                found=size,
            )
        return _FileStream(file, offset)

    def origins(self, digest: Digest) -> tuple[str, ...]:
        return self._sources.of(digest)


class LocalSink:
    """The local store, taking in images. Blobs stay unnamed until `LocalStore.record`."""

    def __init__(
        self,
        store: LocalStore,
        *,
        attempts: int = 5,
        pause: Callable[[int], None] = lambda attempt: time.sleep(min(8.0, 0.25 * 2**attempt)),
    ) -> None:
        self._store = store
        self._attempts = attempts
        self._pause = pause
        self._sources = Sources(os.path.join(store.root, "sources"))

    def put_manifest(self, manifest: ImageManifest | ImageIndex, tag: str = "") -> Descriptor:
        digest = manifest.digest
        if not self._store.layout.has(digest):
            with self._store.layout.begin() as writer:
                writer.write(manifest.raw)
                writer.commit(self._store.layout.blob_path(digest), expected=digest)
        return Descriptor(media_type=manifest.media_type, digest=digest, size=len(manifest.raw))

    def put_blob(self, descriptor: Descriptor, source: ImageSource, progress: Progress) -> None:
        """Download, verify, commit. What arrived before a failure is kept for the next try.

        Raises: ContentMismatch if the bytes are not the descriptor's (they are dropped then);
        TransferInterrupted, RegistryUnavailable when it kept breaking; LocalStoreError.
        """
        layout = self._store.layout
        if layout.has(descriptor.digest):
            progress.step(descriptor.digest, states.EXISTS)
            self._sources.note(descriptor.digest, source.origins(descriptor.digest))
            return
        progress.step(descriptor.digest, states.WAITING_LAYER)
        try:
            with _Partial(self._store.root, descriptor, progress) as partial:
                if layout.has(descriptor.digest):  # another process has finished it meanwhile
                    partial.discard()
                    progress.step(descriptor.digest, states.EXISTS)
                    return
                self._fill(partial, descriptor, source, progress)
                progress.step(descriptor.digest, states.VERIFYING)
                partial.commit(layout.blob_path(descriptor.digest))
        except OSError as error:
            raise LocalStoreError(
                f"cannot write blob {descriptor.digest}: {error.strerror or error}",
                hint=f"is there space left below {self._store.root}?",
            ) from error
        self._sources.note(descriptor.digest, source.origins(descriptor.digest))
        progress.step(descriptor.digest, states.DOWNLOADED)

    def _fill(
        self, partial: _Partial, descriptor: Descriptor, source: ImageSource, progress: Progress
    ) -> None:
        failures = resumes = 0
        while True:
            before = partial.size
            try:
                if partial.size < descriptor.size or descriptor.size == 0:
                    with source.open_blob(descriptor, partial.size) as stream:
                        if stream.offset != partial.size:
                            partial.restart()
                        partial.take(stream)
                if partial.matches():
                    return
                found = partial.digest
                continued = partial.continued
                partial.restart()
                if not continued:
                    raise ContentMismatch(
                        f"digest of blob {descriptor.digest}",
                        expected=descriptor.digest,
                        found=found,
                        hint="the registry or something between changed the bytes; "
                        "nothing was stored",
                    )
                # What an earlier run left behind was damaged, by a crash perhaps: once from 0.
            except (TransferInterrupted, RegistryUnavailable, RegistryError) as error:
                if isinstance(error, RegistryError) and error.status < 500:
                    raise
                failures = 1 if partial.size > before else failures + 1
                resumes += 1
                if failures >= self._attempts or resumes > MAX_RESUMES:
                    partial.keep()
                    raise
                progress.step(descriptor.digest, states.WAITING, partial.size, descriptor.size)
                self._pause(failures)


class _Partial:
    """The file that a blob arrives in, locked while it is open."""

    def __init__(self, root: str, descriptor: Descriptor, progress: Progress) -> None:
        digest = descriptor.digest
        self._descriptor = descriptor
        self._progress = progress
        self._path = os.path.join(root, "ingest", f"{digest.algorithm}-{digest.encoded}.partial")
        self._file = -1
        self._hasher: Hasher = digest.hasher()
        self._lock()
        self.size = 0
        self.continued = False
        try:
            self._rehash()
        except BaseException:
            os.close(self._file)
            raise

    def _lock(self) -> None:
        """Open and lock; the file may be renamed or removed by its holder while we wait."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                while True:
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        # Polled, because a thread that sleeps in flock cannot be interrupted.
                        self._progress.step(self._descriptor.digest, states.WAITING)
                        time.sleep(0.05)
                try:
                    there = os.stat(self._path)
                except FileNotFoundError:
                    there = None
                mine = os.fstat(descriptor)
                if there is not None and (there.st_ino, there.st_dev) == (mine.st_ino, mine.st_dev):
                    self._file = descriptor
                    return
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _rehash(self) -> None:
        if os.fstat(self._file).st_size > self._descriptor.size:
            os.ftruncate(self._file, 0)
        buffer = memoryview(bytearray(min(BUFFER, self._descriptor.size) or 1))
        while count := os.readv(self._file, [buffer]):
            self._hasher.update(buffer[:count])
            self.size += count
        self.continued = self.size > 0

    def take(self, stream: BlobStream) -> None:
        """Append what the stream brings, never more than the blob may have."""
        total = self._descriptor.size
        digest = self._descriptor.digest
        buffer = memoryview(bytearray(min(BUFFER, total) or 1))
        reported = self.size
        self._progress.step(digest, states.DOWNLOADING, self.size, total)
        while self.size < total:
            count = stream.readinto(buffer[: total - self.size])
            if not count:
                raise TransferInterrupted(f"blob {digest} ended after {self.size} of {total} bytes")
            part = buffer[:count]
            self._hasher.update(part)
            done = 0
            while done < count:
                done += os.write(self._file, part[done:])
            self.size += count
            if self.size - reported >= REPORT_EVERY or self.size == total:
                reported = self.size
                self._progress.step(digest, states.DOWNLOADING, self.size, total)
        with memoryview(bytearray(1)) as extra:
            if stream.readinto(extra):
                raise ContentMismatch(
                    f"size of blob {digest}", expected=total, found=f"more than {total}"
                )

    @property
    def digest(self) -> str:
        return f"{self._descriptor.digest.algorithm}:{self._hasher.hexdigest()}"

    def matches(self) -> bool:
        return self.size == self._descriptor.size and self.digest == str(self._descriptor.digest)

    def restart(self) -> None:
        os.lseek(self._file, 0, os.SEEK_SET)
        os.ftruncate(self._file, 0)
        self._hasher = self._descriptor.digest.hasher()
        self.size = 0
        self.continued = False

    def keep(self) -> None:
        """Leave what has arrived for the next try, safe against a crash of the machine."""
        os.fdatasync(self._file)

    def discard(self) -> None:
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass

    def commit(self, path: str) -> None:
        with BlobWriter(os.dup(self._file), self._path, (self._hasher,)) as writer:
            try:
                writer.commit(path, expected=self._descriptor.digest)
            except DigestMismatch as error:
                raise ContentMismatch(
                    f"blob {self._descriptor.digest}", expected=error.expected, found=error.found
                ) from error

    def __enter__(self) -> _Partial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.size == 0 and os.fstat(self._file).st_nlink and self._descriptor.size:
            self.discard()  # nothing worth keeping
        os.close(self._file)


class _FileStream:
    """A `BlobStream` over a local file."""

    def __init__(self, file: BinaryIO, offset: int) -> None:
        file.seek(offset)
        self._file = file
        self.offset = offset

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: memoryview) -> int:
        count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        return count

    def __enter__(self) -> _FileStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
