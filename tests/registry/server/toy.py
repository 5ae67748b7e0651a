"""A toy application, and a raw client: HTTP as bytes on loopback, against a real uvicorn."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from registry.server.errors import BodyTooLarge, MalformedBody
from registry.server.extensions import receive_into, send_blob
from registry.server.run import Listening, RegistryServer, ServerOptions, make_server

LIMIT = 1 << 20


class FileBlob:
    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY)

    def read_at(self, offset: int, count: int) -> bytes:
        return os.pread(self.fd, count, offset)


class HashSink:
    def __init__(self, limit: int) -> None:
        self.hash = hashlib.sha256()
        self.total = 0
        self._limit = limit

    def write(self, data: memoryview) -> None:
        if self.total + len(data) > self._limit:
            raise BodyTooLarge(self._limit)
        self.hash.update(data)
        self.total += len(data)


class Toy:
    """`/blob?offset=&count=` sends a file's range; `/body` hashes what it gets."""

    def __init__(self, path: str) -> None:
        self.path = path
        #: How the last body ended: an exception's name, or its size.
        self.ended: list[object] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        query = parse_qs(scope["query_string"].decode())
        await getattr(self, scope["path"].strip("/"))(scope, receive, send, query)

    async def small(self, scope: Any, receive: Any, send: Any, query: Any) -> None:
        await answer(send, 200, b"small")

    async def blob(self, scope: Any, receive: Any, send: Any, query: Any) -> None:
        size = os.stat(self.path).st_size
        offset = int(query.get("offset", ["0"])[0])
        count = int(query.get("count", [str(size - offset)])[0])
        blob = FileBlob(self.path)
        try:
            await send_blob(
                scope, receive, send, blob=blob, offset=offset, count=count, headers=[(b"x", b"y")]
            )
        finally:
            os.close(blob.fd)
            self.ended.append("sent")

    async def body(self, scope: Any, receive: Any, send: Any, query: Any) -> None:
        sink = HashSink(int(query.get("limit", [str(1 << 40)])[0]))
        try:
            total = await receive_into(scope, receive, sink)
        except MalformedBody as error:
            self.ended.append("MalformedBody")
            await answer(send, 400, str(error).encode())
        except BodyTooLarge as error:
            self.ended.append("BodyTooLarge")
            await answer(send, 413, str(error).encode())
        except BaseException as error:
            self.ended.append(f"{type(error).__name__} {sink.total}")
            raise
        else:
            assert total == sink.total
            self.ended.append(total)
            await answer(send, 201, f"{total} {sink.hash.hexdigest()}".encode())

    async def messages(self, scope: Any, receive: Any, send: Any, query: Any) -> None:
        digest, total, more = hashlib.sha256(), 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            digest.update(message["body"])
            total += len(message["body"])
            more = message["more_body"]
        await answer(send, 201, f"{total} {digest.hexdigest()}".encode())

    async def refuse(self, scope: Any, receive: Any, send: Any, query: Any) -> None:
        await answer(send, 401, b"who are you")


async def answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Running:
    toy: Toy
    server: RegistryServer
    port: int
    #: The server advertises the fast paths.
    fast: bool = False

    def connect(self, *, receive_buffer: int = 0) -> Client:
        return Client(self.port, receive_buffer)


@contextlib.contextmanager
def running(path: str, options: ServerOptions, *, http: str = "") -> Iterator[Running]:
    """The toy on a real server in a thread of its own."""
    toy = Toy(path)
    ready = threading.Event()
    where: list[Listening] = []

    def on_ready(listening: Listening) -> None:
        where.append(listening)
        ready.set()

    sock = socket.create_server(("127.0.0.1", 0))
    server = make_server(toy, options, on_ready)
    if http:
        server.config.http = http  # type: ignore[assignment]
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        assert ready.wait(10)
        yield Running(toy, server, where[0].port)
    finally:
        server.should_exit = True
        thread.join(15)
        sock.close()
        assert not thread.is_alive()


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection. A context manager."""

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(10)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = bytearray()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, target: str, *, method: str = "GET", version: str = "1.1") -> None:
        self.send(f"{method} {target} HTTP/{version}\r\nhost: x\r\n\r\n".encode())

    def put(self, target: str, body: bytes, *, method: str = "PUT") -> None:
        head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        self.send(head.encode() + body)

    def response(self, *, head: bool = False) -> Response:
        raw = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = raw[:-4].split("\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in lines)}
        status = int(first.split()[1])
        if head or status == 100:
            return Response(status, headers, b"")
        return Response(status, headers, self.read(int(headers.get("content-length", "0"))))

    def read(self, count: int) -> bytes:
        while len(self._buffer) < count:
            data = self.socket.recv(1 << 20)
            assert data, f"closed after {len(self._buffer)} of {count} bytes"
            self._buffer += data
        result = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return result

    def closed(self) -> bool:
        """The server has ended the connection, and sent nothing more."""
        try:
            return not self._buffer and self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            data = self.socket.recv(65536)
            assert data, f"closed, after {bytes(self._buffer)!r}"
            self._buffer += data
        end = self._buffer.index(mark) + len(mark)
        return self.read(end)


def chunked(data: bytes, size: int, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    """`data` in chunked coding."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    coded = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return coded + b"0\r\n" + trailer + b"\r\n"


def summary(data: bytes) -> bytes:
    """What `/body` answers for this body."""
    return f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()
