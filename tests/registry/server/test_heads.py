"""What a request's head must be, and how many connections are served."""

from __future__ import annotations

import json

import pytest

from registry.server.protocol import MAX_HEAD
from registry.server.run import ServerOptions
from tests.registry.server.toy import Client, Running, running


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "lines",
    [
        "x: y",
        "host: a\r\nhost: a",
        "host: a\r\nhost: b",
        "host: a b",
        "host: a/b",
        "host: user@a",
        'host: a"b',
        "host: a:port",
        "host: [::1",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_attack_no_host_two_hosts_or_a_host_that_is_none(
    fast_server: Running, lines: str, method: str
) -> None:
    """RFC 9112, 3.2: 400. Otherwise a proxy and we could think of different hosts."""
    body = "content-length: 100000\r\n" if method == "PUT" else ""
    with fast_server.connect() as client:
        client.send(f"{method} /small HTTP/1.1\r\n{lines}\r\n{body}\r\n".encode())
        assert client.response().status == 400


@pytest.mark.parametrize("host", ["", "a", "a:5000", "[::1]:5000", "10.0.0.1", "a_b.example"])
def test_hosts(fast_server: Running, host: str) -> None:
    with fast_server.connect() as client:
        for _ in range(2):
            client.send(f"GET /small HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            assert client.response().status == 200


def test_a_client_of_1_0_needs_no_host(fast_server: Running) -> None:
    with fast_server.connect() as client:
        client.send(b"GET /small HTTP/1.0\r\n\r\n")
        assert client.response().status == 200


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("pieces", [1, 7])
def test_attack_a_head_beyond_the_limit(fast_server: Running, method: str, pieces: int) -> None:
    """Also when it comes at once: one read may bring 256 KiB."""
    head = f"{method} /small HTTP/1.1\r\nhost: x\r\nx: {'y' * (MAX_HEAD + 40_000)}\r\n\r\n".encode()
    with fast_server.connect() as client:
        size = len(head) // pieces + 1
        try:
            for start in range(0, len(head), size):
                client.send(head[start : start + size])
        except ConnectionError:
            return  # refused before the end of it
        try:
            assert client.response().status == 431
        except ConnectionError:
            return


def test_a_large_head_below_the_limit_with_a_body_behind_it(fast_server: Running) -> None:
    with fast_server.connect() as client:
        head = (
            f"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: 90000\r\nx: {'y' * 50_000}\r\n\r\n"
        )
        client.send(head.encode() + b"z" * 90_000)
        assert client.response().status == 201


def test_attack_a_broken_request_behind_one_that_is_being_answered(fast_server: Running) -> None:
    """A 400 in the middle of an earlier answer would be taken for its bytes."""
    with fast_server.connect(receive_buffer=4096) as client:
        client.get("/blob")
        client.send(b"\x00rubbish\r\n\r\n")
        received = b""
        try:
            while data := client.socket.recv(1 << 20):
                received += data
        except ConnectionError:
            pass
        assert received.count(b"HTTP/1.1 ") <= 1


def test_connections_beyond_the_limit_are_told_to_come_back(file: str, loop: str) -> None:
    options = ServerOptions(loop=loop, max_connections=2, graceful_s=1)  # type: ignore[arg-type]
    with running(file, options) as server:
        kept = [server.connect() for _ in range(2)]
        for client in kept:
            client.get("/small")
            assert client.response().status == 200
        with server.connect() as extra:
            extra.get("/small")
            answer = extra.response()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert json.loads(answer.body)["errors"][0]["code"] == "UNAVAILABLE"
            assert extra.socket.recv(1) == b""
        kept.pop().socket.close()
        kept[0].get("/small")
        assert kept[0].response().status == 200
        assert _status_soon(server) == 200
        kept[0].socket.close()


def _status_soon(server: Running) -> int:
    """The server may see the end of the closed connection a moment later."""
    for _ in range(100):
        with Client(server.port) as client:
            client.get("/small")
            status = client.response().status
        if status == 200:
            break
    return status
