"""The OCI image layout on disk, and the one crash-safe way a blob gets there.

    <root>/
        oci-layout              {"imageLayoutVersion": "1.0.0"}
        index.json              the images this layout is about
        blobs/sha256/<hex>      content, each file named by its digest
        ingest/.tmp-<random>    content on its way; may be left over by a crash

A blob is written to a temporary file in the same file system, hashed on the way, flushed to the
disk, renamed to its name, and the directory is flushed. So at any moment, a crash included, a name
either does not exist or has the whole content. This is the only module of the package that touches
files. Spec: image-spec image-layout.md.
"""

from __future__ import annotations

import errno
import os
import stat

from ocispec.digest import Digest, new_hasher, verify
from ocispec.errors import DigestMismatch, InvalidDocument
from ocispec.image.manifest import ImageIndex, parse_manifest
from ocispec.jsondoc import Fields, canonical, parse_object
from ocispec.mediatype import OCI_INDEX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from ocispec.digest import Hasher

TEMPORARY_PREFIX = ".tmp-"
LAYOUT_VERSION = "1.0.0"
# index.json of a big mirror lists thousands of images; it is ours or the user's, not a peer's.
MAX_INDEX_BYTES = 64 * 1024 * 1024

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def begin_blob(
    directory: str,
    temporary_directory: str | None = None,
    algorithms: Iterable[str] = ("sha256",),
) -> BlobWriter:
    """Open a temporary file for content that will be committed below `directory`.

    `temporary_directory`, by default `directory`, must exist and be in the same file system. The
    content is hashed with every one of `algorithms`; with none it can only be committed unchecked.
    Raises: OSError; InvalidDigest for an unknown algorithm.
    """
    hashers = tuple(new_hasher(algorithm) for algorithm in algorithms)
    descriptor, path = _create_temporary(temporary_directory or directory, 0o600)
    return BlobWriter(descriptor, path, hashers)


class BlobWriter:
    """Content on its way into a store: write, then commit or abort.

    Nothing is visible before `commit` returns from the rename, and whatever fails before that
    leaves nothing behind. Leaving the `with` block without a commit aborts. Not thread-safe, but
    may move from thread to thread.
    """

    __slots__ = ("_descriptor", "_hashers", "path", "size")

    def __init__(self, descriptor: int, path: str, hashers: tuple[Hasher, ...]) -> None:
        self._descriptor = descriptor
        self._hashers = hashers
        self.path = path  # of the temporary file
        self.size = 0  # bytes written so far

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of `data`; return its length in bytes.

        Raises: OSError, such as ENOSPC. The content is then gone as after `abort`: part of `data`
        may be in the file and not in the hash, so going on would commit something else.
        """
        with memoryview(data) as view, view.cast("B") as rest:
            done = 0
            try:
                while done < len(rest):
                    done += os.write(self._descriptor, rest[done:])
            except BaseException:
                self.abort()
                raise
            for hasher in self._hashers:
                hasher.update(rest)
            self.size += done
            return done

    def digest(self, algorithm: str = "sha256") -> Digest:
        """The digest of what has been written so far. Raises: KeyError if it is not hashed."""
        for hasher in self._hashers:
            if hasher.name == algorithm:
                return Digest.from_hasher(hasher)
        raise KeyError(algorithm)

    def commit(self, path: str, *, expected: Digest | None = None, sync: bool = True) -> None:
        """Give the content its name, replacing what has it; missing directories are made.

        `sync=False` leaves it to the caller to flush the file system, once for many files, before
        telling anybody that the content is there.

        Raises: DigestMismatch unless the content has the digest `expected`; OSError. The content
        is then gone, unless the error is from flushing the directory, after the rename: a name
        that is whole, but may not survive a loss of power. Commit the same content again.
        """
        if self._descriptor < 0:
            raise ValueError("this content was committed or aborted before")
        try:
            if expected is not None:
                found = self.digest(expected.algorithm)
                if found != expected:
                    raise DigestMismatch(expected=expected, found=found)
            if sync:
                # The length counts as data here.  If this fails the pages may be lost although a
                # second fdatasync would succeed: never retry, always abort.
                os.fdatasync(self._descriptor)
            self._close()
            directory = os.path.dirname(path) or "."
            _make_directory(directory, sync=sync)
            # The point of no return: from here on the blob is there for everybody.  The name says
            # what the content is, so replacing a file of that name changes nothing for its readers.
            os.rename(self.path, path)
        except BaseException:
            self.abort()
            raise
        self.path = ""
        if sync:
            sync_directory(directory)

    def abort(self) -> None:
        """Remove the temporary file. Harmless after a commit, an abort or a failure."""
        self._close()
        if self.path:
            path, self.path = self.path, ""
            _unlink(path)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()


def write_file_atomically(path: str, data: bytes, *, sync: bool = True, mode: int = 0o600) -> None:
    """Replace a small file in one step: readers see the old content or the new, never a mix.

    `mode` is set exactly, whatever the umask. Raises: OSError; the old content is then unchanged,
    or, if only flushing the directory failed, replaced.
    """
    directory = os.path.dirname(path) or "."
    descriptor, temporary = _create_temporary(directory, mode)
    with BlobWriter(descriptor, temporary, ()) as writer:
        os.fchmod(descriptor, mode)
        writer.write(data)
        writer.commit(path, sync=sync)


def sync_directory(path: str) -> None:
    """Flush the names in a directory to the disk. Raises: OSError"""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems cannot flush a directory; they write names at once.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(directory: str, *, older_than_s: float, now: float) -> tuple[str, ...]:
    """Remove temporary files that a crash left in a directory; return their names.

    Only those not written to for `older_than_s` seconds before `now` (as `time.time`), since the
    others may still be in use. A directory that does not exist has none. Raises: OSError
    """
    removed = []
    try:
        names = sorted(name for name in os.listdir(directory) if name.startswith(TEMPORARY_PREFIX))
    except FileNotFoundError:
        return ()
    for name in names:
        path = os.path.join(directory, name)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            continue  # committed or removed meanwhile
        if stat.S_ISREG(found.st_mode) and now - found.st_mtime > older_than_s:
            _unlink(path)
            removed.append(name)
    return tuple(removed)


class Layout:
    """A directory in the OCI image layout. Making the object touches nothing; see `create`."""

    __slots__ = ("root",)

    def __init__(self, root: str) -> None:
        self.root = root

    @classmethod
    def create(cls, root: str) -> Layout:
        """Make what is missing of an empty layout; harmless on one that exists.

        Raises: OSError; InvalidDocument if there is a layout of a version we do not know.
        """
        layout = cls(root)
        for directory in (os.path.join(root, "blobs", "sha256"), layout.ingest_directory):
            _make_directory(directory, sync=True)
        if not os.path.exists(layout.index_path):
            empty = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
            write_file_atomically(layout.index_path, canonical(empty))
        marker = os.path.join(root, "oci-layout")
        # Last, because it is what says that the rest is there.
        if not os.path.exists(marker):
            write_file_atomically(marker, canonical({"imageLayoutVersion": LAYOUT_VERSION}))
        layout.check_version()
        return layout

    @property
    def index_path(self) -> str:
        return os.path.join(self.root, "index.json")

    @property
    def ingest_directory(self) -> str:
        """Where content is written before it has a name."""
        return os.path.join(self.root, "ingest")

    def check_version(self) -> None:
        """Raises: InvalidDocument unless `oci-layout` has a version we can read; OSError."""
        raw = _read_file(os.path.join(self.root, "oci-layout"), 4096)
        fields = Fields(parse_object(raw, limit=4096, what="oci-layout"))
        version = fields.text("imageLayoutVersion", required=True)
        fields.check("oci-layout")
        if version.partition(".")[0] != LAYOUT_VERSION.partition(".")[0]:
            raise InvalidDocument(
                f"{self.root} is an image layout of version {version[:40]!a}",
                hint=f"version {LAYOUT_VERSION} is supported",
            )

    def read_index(self) -> ImageIndex:
        """What `index.json` holds. Raises: InvalidDocument, OSError."""
        index = parse_manifest(
            _read_file(self.index_path, MAX_INDEX_BYTES), OCI_INDEX, limit=MAX_INDEX_BYTES
        )
        assert isinstance(index, ImageIndex)  # the type asked for
        return index

    def write_index(self, index: ImageIndex) -> None:
        """Replace `index.json`. The caller keeps others from doing so at the same time."""
        write_file_atomically(self.index_path, index.raw)

    def blob_path(self, digest: Digest) -> str:
        return os.path.join(self.root, "blobs", digest.algorithm, digest.encoded)

    def has(self, digest: Digest) -> bool:
        """Whether there is a blob of this name. Its content is not read."""
        try:
            return stat.S_ISREG(os.lstat(self.blob_path(digest)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def open(self, digest: Digest) -> BinaryIO:
        """A blob, to be read and closed. The caller verifies what it reads.

        Raises: OSError, FileNotFoundError if there is none.
        """
        return _open_regular(self.blob_path(digest))

    def read(self, digest: Digest, limit: int) -> bytes:
        """The whole of a small blob, verified.

        Raises: InvalidDocument if it has more than `limit` bytes; DigestMismatch; OSError.
        """
        data = _read_file(self.blob_path(digest), limit)
        verify(data, digest, what=f"blob {digest}")
        return data

    def begin(self, algorithms: Iterable[str] = ("sha256",)) -> BlobWriter:
        """Start a new blob; commit it with `commit(layout.blob_path(digest), expected=digest)`."""
        return begin_blob(self._ingest(), algorithms=algorithms)

    def put(self, data: bytes, *, sync: bool = True) -> Digest:
        """Add a small blob that is all in memory; return its digest."""
        digest = Digest.of(data)
        with begin_blob(self._ingest(), algorithms=()) as writer:
            writer.write(data)
            writer.commit(self.blob_path(digest), sync=sync)
        return digest

    def remove(self, digest: Digest) -> bool:
        """Remove a blob; whether there was one. Whoever has it open reads on."""
        return _unlink(self.blob_path(digest))

    def digests(self) -> Iterator[Digest]:
        """The names of all blobs, in no order; files that are not blobs are passed over."""
        for algorithm in Digest.SIZES:
            try:
                names = os.listdir(os.path.join(self.root, "blobs", algorithm))
            except FileNotFoundError:
                continue
            for name in names:
                try:
                    yield Digest(algorithm, name)
                except ValueError:
                    continue

    def _ingest(self) -> str:
        _make_directory(self.ingest_directory, sync=False)
        return self.ingest_directory


def _create_temporary(directory: str, mode: int) -> tuple[int, str]:
    while True:
        path = os.path.join(directory, TEMPORARY_PREFIX + os.urandom(12).hex())
        try:
            return os.open(path, _CREATE, mode), path
        except FileExistsError:
            continue  # one chance in 2**96: take another name


def _make_directory(path: str, *, sync: bool) -> None:
    """Make a directory and those above it; flush the names of the new ones."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "."
    if parent != path:
        _make_directory(parent, sync=sync)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    if sync:
        sync_directory(parent)


def _open_regular(path: str) -> BinaryIO:
    # A layout may come from a stranger: a symbolic link or a pipe in place of a blob is refused.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return open(descriptor, "rb", buffering=0)
    except BaseException:
        os.close(descriptor)
        raise


def _read_file(path: str, limit: int) -> bytes:
    with _open_regular(path) as file:
        chunks = []
        size = 0
        while chunk := file.read(min(limit + 1 - size, 1 << 20)):
            chunks.append(chunk)
            size += len(chunk)
            if size > limit:
                raise InvalidDocument(f"{path} has more than {limit} bytes")
    return b"".join(chunks)


def _unlink(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
