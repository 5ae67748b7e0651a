"""Leases: what keeps a removal from deleting the blobs of a pull that is still running.

A lease is a file in `leases/` that lists digests, one a line, and is locked (flock) by the process
that holds it. The kernel drops the lock when that process dies, so a killed pull protects nothing
and the next removal clears its file away. Making a lease, adding to it, and removing blobs all
happen under the store's lock: after `hold` returns, a blob that exists stays.
"""

from __future__ import annotations

import fcntl
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from ocispec.digest import Digest


class StoreLock:
    """The exclusive lock of a store, held for the moments in which its index changes."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1

    def __enter__(self) -> StoreLock:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)  # closing drops the lock


class Lease:
    """Digests one process is about to need. A context manager; closing twice is harmless."""

    def __init__(self, directory: str, lock: Callable[[], StoreLock]) -> None:
        self._lock = lock
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        self._path = os.path.join(directory, name)
        with lock():
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def hold(self, digests: Iterable[Digest]) -> None:
        """Protect these blobs, present or to come, until the lease is closed."""
        lines = "".join(f"{digest}\n" for digest in digests).encode()
        with self._lock():
            os.write(self._descriptor, lines)

    def close(self) -> None:
        if self._descriptor < 0:
            return
        try:
            os.unlink(self._path)
        except FileNotFoundError:
            pass
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def leased(directory: str) -> set[str]:
    """Every digest under a live lease; dead leases are cleared away. Call it under the lock."""
    held: set[str] = set()
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with open(descriptor, encoding="ascii", closefd=False) as file:
                held.update(file.read().split())
        else:
            os.unlink(path)
        finally:
            os.close(descriptor)
    return held
