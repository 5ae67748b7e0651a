"""The part that is being filled: a few bytes in memory, more in a file without a name.

A part is 16 MiB and every running upload fills one, however slow its client is. In memory 64
uploads would be a gigabyte; in files they are the kernel's page cache, which gives way.
"""

from __future__ import annotations

import errno
import io
import os
import tempfile
import threading
from typing import IO

from registry.storage.errors import StorageError, StorageFailed, StorageFull

#: Most configs and many layers are below this and never touch a file.
IN_MEMORY = 64 << 10


class Spool:
    """Bytes of one part, written once from start to end, then read any number of times."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self.size = 0

    def write(self, data: memoryview | bytes) -> None:
        """Raises: StorageFull, StorageFailed; the spool is of no use then."""
        try:
            if self._file is None:
                if self.size + len(data) <= IN_MEMORY:
                    self._memory += data
                    self.size += len(data)
                    return
                # Closed by `close`, as it outlives this call.
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
                self._write_all(self._memory)
                self._memory = bytearray()
            self._write_all(data)
            self.size += len(data)
        except OSError as error:
            raise _spool_error(error) from error

    def body(self) -> IO[bytes]:
        """All of it from the start, as the body of a request; the spool stays its owner."""
        if self._file is None:
            return io.BytesIO(self._memory)
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Forget the bytes; harmless twice."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()

    def _write_all(self, data: memoryview | bytes | bytearray) -> None:
        assert self._file is not None
        with memoryview(data) as view:
            done = 0
            while done < len(view):
                done += os.write(self._file.fileno(), view[done:])


class Budget:
    """Bytes of full parts that wait for S3 at once. Those drain by themselves, so whoever waits
    for room gets it, unless S3 itself stands still until the requests fail."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._changed = threading.Condition()

    @property
    def used(self) -> int:
        return self._used

    def take(self, size: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size

    def give(self, size: int) -> None:
        with self._changed:
            self._used -= size
            self._changed.notify_all()


def _spool_error(error: OSError) -> StorageError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull("a part of an upload on its way to S3")
    return StorageFailed("a part of an upload on its way to S3", error.strerror or str(error))
