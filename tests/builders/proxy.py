"""A connection to a server that can be slow, or end in the middle of a body."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PIECE = 64 << 10


class Proxy:
    """Copies bytes both ways; `cuts` says after how many bytes of one direction all ends.

    cuts: for each connection that carries more than that: the bytes it may carry, in order. A
        connection that stays below does not use one up. Afterwards nothing is cut.
    bytes_per_s: the speed of each connection in either direction, 0 for no limit
    """

    def __init__(self, port: int, *, cuts: tuple[int, ...] = (), bytes_per_s: int = 0) -> None:
        self._target = port
        self.cuts = list(cuts)
        self.bytes_per_s = bytes_per_s
        self.connections = 0
        self.carried = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                far = socket.create_connection(("127.0.0.1", self._target), 10)
            except OSError:
                near.close()
                continue
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._copy, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        carried = 0
        try:
            while piece := source.recv(PIECE):
                allowed = self._allowed(carried, len(piece))
                sink.sendall(piece[:allowed])
                self.carried += allowed
                if allowed < len(piece):
                    break
                carried += allowed
                if self.bytes_per_s:
                    time.sleep(len(piece) / self.bytes_per_s)
        except OSError:
            pass
        for end in (sink, source):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        source.close()

    def _allowed(self, carried: int, more: int) -> int:
        with self._lock:
            if self.cuts and carried + more > self.cuts[0]:
                return max(0, self.cuts.pop(0) - carried)
        return more


@contextmanager
def proxy(port: int, *, cuts: tuple[int, ...] = (), bytes_per_s: int = 0) -> Iterator[Proxy]:
    made = Proxy(port, cuts=cuts, bytes_per_s=bytes_per_s)
    try:
        yield made
    finally:
        made.close()
