"""A proxy in front of an HTTP service that fails as services and networks do, on request.

It forwards one request a connection, so that a fault hits exactly the operation it is meant for.
"""

from __future__ import annotations

import enum
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PIECE = 64 << 10
FOR_EVER = 1 << 30


class Fault(enum.Enum):
    #: Answers, without asking the service.
    INTERNAL_ERROR = "500 InternalError"
    SLOW_DOWN = "503 SlowDown"
    #: Takes the request and says nothing.
    HANG = "hang"
    #: The connection breaks before the service sees anything.
    RESET = "reset"
    #: The connection breaks when half of the body went to the service.
    CUT_REQUEST = "cut request"
    #: The service does what it was asked, and its answer never arrives.
    LOSE_ANSWER = "lose answer"
    #: The answer ends in the middle of its body.
    CUT_ANSWER = "cut answer"


@dataclass
class Plan:
    """Requests of this method whose target contains `part` fail, `times` times."""

    fault: Fault
    method: str
    part: str
    times: int

    def fits(self, method: str, target: str) -> bool:
        return self.times > 0 and method == self.method and self.part in target


class FaultyProxy:
    def __init__(self, port: int) -> None:
        self._target = port
        self.plans: list[Plan] = []
        #: (method, target) of everything that was asked.
        self.seen: list[tuple[str, str]] = []
        self.injected = 0
        #: Answers that are being passed on just now, and bytes of answers in all.
        self.open_answers = 0
        self.carried = 0
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fail(self, fault: Fault, method: str, part: str = "", *, times: int = 1) -> None:
        self.plans.append(Plan(fault, method, part, times))

    def heal(self) -> None:
        self.plans.clear()

    def close(self) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(20)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(near,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, near: socket.socket) -> None:
        near.settimeout(30)
        try:
            with near:
                self._one_request(near)
        except OSError:
            pass

    def _one_request(self, near: socket.socket) -> None:
        head, body = _read_head(near)
        if not head:
            return
        first, *lines = head.split(b"\r\n")
        method, target, _ = first.decode().split(" ", 2)
        names = {line.partition(b":")[0].strip().lower(): line for line in lines}
        length = int(names.get(b"content-length", b":0").partition(b":")[2])
        fault = self._fault(method, target)
        if fault is Fault.RESET:
            return _reset(near)
        if b"100-continue" in names.get(b"expect", b""):
            near.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault in (Fault.INTERNAL_ERROR, Fault.SLOW_DOWN):
            _drain(near, length - len(body))
            return _answer_error(near, fault)
        if fault is Fault.HANG:
            _drain(near, length - len(body))
            self._stopped.wait(30)
            return None
        kept = [
            line for name, line in names.items() if name not in (b"expect", b"connection") and line
        ]
        with socket.create_connection(("127.0.0.1", self._target), 30) as far:
            far.sendall(b"\r\n".join([first, *kept, b"connection: close", b"", b""]))
            limit = length // 2 if fault is Fault.CUT_REQUEST else length
            sent = len(body[:limit])
            far.sendall(body[:limit])
            while sent < limit and (piece := near.recv(min(PIECE, limit - sent))):
                far.sendall(piece)
                sent += len(piece)
            if fault is Fault.CUT_REQUEST:
                return _reset(near)
            self.open_answers += 1
            try:
                self._answer(near, far, fault)
            finally:
                self.open_answers -= 1

    def _answer(self, near: socket.socket, far: socket.socket, fault: Fault | None) -> None:
        head, body = _read_head(far)
        if fault is Fault.LOSE_ANSWER:
            while far.recv(PIECE):
                pass
            return _reset(near)
        first, *lines = head.split(b"\r\n")
        kept = [line for line in lines if line and not line.lower().startswith(b"connection:")]
        lengths = [line for line in kept if line.lower().startswith(b"content-length:")]
        near.sendall(b"\r\n".join([first, *kept, b"connection: close", b"", b""]))
        limit = FOR_EVER
        if fault is Fault.CUT_ANSWER and lengths:
            limit = int(lengths[0].partition(b":")[2]) // 2
        near.sendall(body[:limit])
        sent = len(body[:limit])
        while sent < limit and (piece := far.recv(min(PIECE, limit - sent))):
            near.sendall(piece)
            sent += len(piece)
            self.carried += len(piece)
        return None

    def _fault(self, method: str, target: str) -> Fault | None:
        with self._lock:
            self.seen.append((method, target))
            for plan in self.plans:
                if plan.fits(method, target):
                    plan.times -= 1
                    self.injected += 1
                    return plan.fault
        return None


@contextmanager
def faulty_proxy(port: int) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


def _read_head(sock: socket.socket) -> tuple[bytes, bytes]:
    """A message's head without its empty line, and what came of the body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(PIECE)
        if not piece:
            return b"", b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return head, body


def _drain(sock: socket.socket, count: int) -> None:
    while count > 0 and (piece := sock.recv(min(PIECE, count))):
        count -= len(piece)


def _reset(sock: socket.socket) -> None:
    """Close with RST, as a crashed peer or a firewall does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _answer_error(sock: socket.socket, fault: Fault) -> None:
    status, code = fault.value.split()
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'
    sock.sendall(
        f"HTTP/1.1 {status} {code}\r\ncontent-type: application/xml\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
    )
