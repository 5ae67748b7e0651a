"""Chunks produced by a thread while earlier ones are being used.

Inflating and hashing give up the interpreter's lock, and writing files waits for the kernel, so one
layer can use two cores. It pays when there are more cores than layers: an image is often one large
layer and a few small ones.
"""

from __future__ import annotations

import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNKS = 4
"""Memory is bounded by this many chunks of `compression.CHUNK` bytes."""


class ReadAhead:
    """`read` gives what `source` gives, chunk by chunk, and raises what it raises.

    Call `close` before touching the source again, also after an error.
    """

    def __init__(self, source: Callable[[], bytes]) -> None:
        self._source = source
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_CHUNKS)
        self._stopping = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="inflate", daemon=True)
        self._thread.start()

    def read(self) -> bytes:
        """The next chunk; empty at the end, any number of times."""
        if self._ended:
            return b""
        found = self._chunks.get()
        if isinstance(found, BaseException):
            self._ended = True
            raise found
        self._ended = not found
        return found

    def close(self) -> None:
        """Stop the thread and wait for it. A second time does nothing."""
        self._stopping = True
        while self._thread.is_alive():
            try:
                self._chunks.get_nowait()  # it may be waiting for room
            except queue.Empty:
                self._thread.join(0.001)
        self._ended = True

    def _run(self) -> None:
        try:
            while not self._stopping:
                chunk = self._source()
                self._chunks.put(chunk)
                if not chunk:
                    return
        except BaseException as error:
            self._chunks.put(error)
