"""Blobs and uploads as files of one local file system.

    <root>/blobs/<algorithm>/<first two hex digits>/<hex>[.<generation>]
    <root>/uploads/<upload id>

A commit is fdatasync(file) → rename → fsync(directory); the caller's database row follows. Nothing
else is synced: an upload acknowledged with 202 may be shorter after a power cut, and the client is
then told the smaller offset. What such a file holds is not trusted: its epoch is the boot id of the
machine, so bytes from before a reboot are hashed again, and the digest decides at the end.

One writer an upload, across threads and processes, by flock on its file. Files are 0600 and
directories 0700. Names below the root come only from `StoreKey` and `check_upload_id`.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from ocispec.image.layout import sync_directory
from registry.storage.base import Progress, StoredBlob, StoreKey, UploadStatus, check_upload_id
from registry.storage.errors import (
    BlobMissing,
    InvalidStoreKey,
    OffsetMismatch,
    StorageError,
    StorageFailed,
    StorageFull,
    UploadBusy,
    UploadExists,
    UploadUnknown,
)

#: Dirty pages are handed to the disk this often while a blob is written, so that the fdatasync at
#: the end finds little to do; without it a push waits for its whole size there.
WRITEBACK_EVERY = 8 << 20
_SYNC_FILE_RANGE_WRITE = 2

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


class DiskStorage:
    """Implements `registry.storage.base.Storage` below one directory, which is made if missing."""

    #: Opening a local file takes microseconds.
    opens_at_once = True
    keeps_uploads = True

    def __init__(self, root: str) -> None:
        self._root = os.path.abspath(root)
        self._uploads = os.path.join(self._root, "uploads")
        self.epoch = _boot_id()
        with _translated(self._root):
            os.makedirs(self._root, mode=0o700, exist_ok=True)
            _make_directory(self._uploads)
            _make_directory(os.path.join(self._root, "blobs"))

    def open(self, key: StoreKey, size: int | None = None) -> DiskBlob:
        with _translated(key, gone=BlobMissing(key)):
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return DiskBlob(fd, key)

    def remove(self, key: StoreKey) -> bool:
        try:
            with _translated(key, gone=BlobMissing(key)):
                os.unlink(self._path(key))
        except BlobMissing:
            return False
        return True

    def remove_all(self, keys: Iterable[StoreKey]) -> None:
        for key in keys:
            self.remove(key)

    def url(self, key: StoreKey) -> str | None:
        return None

    def check(self) -> None:
        with _translated(self._root):
            if not os.access(self._uploads, os.W_OK):
                raise StorageFailed(self._root, "the uploads directory cannot be written to")

    def close(self) -> None:
        pass

    def blobs(self) -> Iterator[StoredBlob]:
        top = os.path.join(self._root, "blobs")
        for algorithm in _directories(top):
            for prefix in _directories(os.path.join(top, algorithm)):
                with os.scandir(os.path.join(top, algorithm, prefix)) as entries:
                    for entry in entries:
                        try:
                            key = StoreKey.parse(f"blobs/{algorithm}/{prefix}/{entry.name}")
                            status = entry.stat(follow_symlinks=False)
                        except (InvalidStoreKey, FileNotFoundError):
                            continue  # not ours, or removed meanwhile
                        yield StoredBlob(key, status.st_size, status.st_ctime)

    def begin(self, upload: str) -> None:
        path = self._upload_path(upload)
        try:
            with _translated(f"upload {upload}"):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            raise UploadExists(upload) from None

    def append(
        self, upload: str, offset: int, progress: Progress | None = None
    ) -> DiskUploadWriter:
        fd = self._lock(upload)
        size = os.fstat(fd).st_size
        if size != offset:
            os.close(fd)
            raise OffsetMismatch(expected=size, found=offset)
        os.lseek(fd, offset, os.SEEK_SET)
        return DiskUploadWriter(self, fd, upload, offset)

    def abort(self, upload: str) -> None:
        try:
            with _translated(f"upload {upload}", gone=UploadUnknown(upload)):
                os.unlink(self._upload_path(upload))
        except UploadUnknown:
            pass  # aborted twice, committed, or never begun: it is not there, as asked

    def status(self, upload: str, progress: Progress | None = None) -> UploadStatus:
        with _translated(f"upload {upload}", gone=UploadUnknown(upload)):
            return UploadStatus(os.stat(self._upload_path(upload)).st_size, self.epoch)

    def read(self, upload: str, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        with _translated(f"upload {upload}", gone=UploadUnknown(upload)):
            fd = os.open(self._upload_path(upload), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        return _chunks(fd, upload, chunk_size)

    def untouched_since(self, moment: float) -> Iterator[str]:
        with os.scandir(self._uploads) as entries:
            for entry in entries:
                try:
                    touched = entry.stat(follow_symlinks=False).st_mtime
                    upload = check_upload_id(entry.name)
                except (UploadUnknown, FileNotFoundError):
                    continue
                if touched < moment:
                    yield upload

    def link(self, fd: int, key: StoreKey) -> None:
        """Give the open file of another tree this name, too, without copying it. Nobody may write
        to it any more: its bytes are a blob. What has the name already is replaced.

        Raises: StorageFailed if it is on another file system or may not be linked.
        """
        target = self._path(key)
        directory = os.path.dirname(target)
        part = f"{target}.part"
        with _translated(key):
            os.fdatasync(fd)
            _make_directory(directory)
            with suppress(FileNotFoundError):
                os.unlink(part)  # of a run that was killed
            # With a directory given it is linkat, which follows /proc's link to the open file.
            os.link(f"/proc/self/fd/{fd}", part, src_dir_fd=fd, follow_symlinks=True)
            os.rename(part, target)
            with suppress(FileNotFoundError):
                os.unlink(part)  # rename does nothing where both are the same file already
            sync_directory(directory)

    def _path(self, key: StoreKey) -> str:
        return os.path.join(self._root, str(key))

    def _upload_path(self, upload: str) -> str:
        return os.path.join(self._uploads, check_upload_id(upload))

    def _lock(self, upload: str) -> int:
        """A descriptor of the upload that nobody else writes to; closing it unlocks."""
        path = self._upload_path(upload)
        with _translated(f"upload {upload}", gone=UploadUnknown(upload)):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Between open and flock it may have become a blob, which must never be written to.
                if not os.path.samestat(os.stat(path), os.fstat(fd)):
                    raise UploadUnknown(upload)
            except BlockingIOError:
                os.close(fd)
                raise UploadBusy(upload) from None
            except BaseException:
                os.close(fd)
                raise
            return fd

    def publish(self, fd: int, upload: str, key: StoreKey) -> None:
        """Turn the locked file of an upload into a blob: what a writer's `commit` does."""
        source = self._upload_path(upload)
        try:
            with _translated(key):
                os.fdatasync(fd)
        except StorageError:
            # The kernel drops dirty pages that it could not write, and the next fdatasync would
            # report success. The upload cannot be trusted any more and must start afresh.
            os.unlink(source)
            raise
        target = self._path(key)
        directory = os.path.dirname(target)
        with _translated(key, gone=UploadUnknown(upload)):
            _make_directory(directory)
            os.rename(source, target)  # the point of no return: the bytes are a blob now
            sync_directory(directory)


def _directories(path: str) -> list[str]:
    """Their names; a file that somebody left there is none of ours."""
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


class DiskUploadWriter:
    """One piece of an upload; see `UploadWriter`."""

    def __init__(self, storage: DiskStorage, fd: int, upload: str, start: int) -> None:
        self._storage = storage
        self._fd = fd
        self._upload = upload
        self._start = start
        self._synced = start
        self.offset = start

    @property
    def state(self) -> str:
        return self._storage.epoch

    def seal(self) -> None:
        pass

    def commit(self, key: StoreKey) -> StoreKey:
        if self._fd < 0:
            raise ValueError("this writer is closed")
        try:
            self._storage.publish(self._fd, self._upload, key)
        finally:
            self.close()
        return key

    def write(self, data: bytes | memoryview) -> None:
        if self._fd < 0:
            raise ValueError("this writer is closed")
        try:
            with memoryview(data) as view:
                done = 0
                while done < len(view):
                    done += os.write(self._fd, view[done:])
        except OSError as error:
            self.rollback()
            raise _storage_error(error, f"upload {self._upload}") from error
        self.offset += done
        if self.offset - self._synced >= WRITEBACK_EVERY:
            _start_writeback(self._fd, self._synced, self.offset - self._synced)
            self._synced = self.offset

    def rollback(self) -> None:
        if self._fd >= 0:
            os.ftruncate(self._fd, self._start)
            self.offset = self._start
            self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class DiskBlob:
    """An open file; see `OpenBlob`."""

    def __init__(self, fd: int, key: StoreKey) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self._key = key

    def prepare(self, offset: int, count: int) -> None:
        pass

    def read_at(self, offset: int, count: int) -> bytes:
        with _translated(self._key):
            return os.pread(self.fd, count, offset)

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _chunks(fd: int, upload: str, chunk_size: int) -> Iterator[bytes]:
    try:
        with _translated(f"upload {upload}"):
            while chunk := os.read(fd, chunk_size):
                yield chunk
    finally:
        os.close(fd)


def _make_directory(path: str) -> None:
    """Make a directory and the missing ones above it, each durable in its parent."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_directory(os.path.dirname(path))
        _make_directory(path)
        return
    sync_directory(os.path.dirname(path))


@contextmanager
def _translated(what: object, *, gone: StorageError | None = None) -> Iterator[None]:
    """Name the kernel's errors in the words of storage; FileExistsError passes, for `begin`."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if gone is not None and error.errno in _GONE:
            raise gone from None
        raise _storage_error(error, str(what)) from error


def _storage_error(error: OSError, what: str) -> StorageError:
    if error.errno in _FULL:
        return StorageFull(what)
    return StorageFailed(what, error.strerror or str(error))


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        # Unknown: no two starts of the server share an epoch, so uploads are hashed again.
        return f"start-{os.getpid()}-{time.time_ns()}"


def _start_writeback(fd: int, offset: int, count: int) -> None:
    if _sync_file_range is not None:  # advice only: an error shows at fdatasync
        _sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


_sync_file_range = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _sync_file_range is not None:
    _sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
