"""Bodies coming in: every flavour sees the same bytes, the fast ones by the fast way."""

from __future__ import annotations

import os
import socket
import struct
import time

import pytest

from registry.server.protocol import COUNTERS, INTAKE_LENGTH
from tests.registry.server.toy import Client, Running, chunked, summary

CHUNKED = b"%s /%s HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"

LENGTHS = [0, 1, INTAKE_LENGTH - 1, INTAKE_LENGTH, 250_000, 1 << 20, (1 << 20) + 1, 35_000_001]


def wait_for_end(server: Running, count: int) -> object:
    deadline = time.monotonic() + 8
    while len(server.toy.ended) == count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return server.toy.ended[-1]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("path", ["body", "messages"])
def test_a_body_with_a_length(server: Running, path: str, length: int) -> None:
    body = os.urandom(length)
    before = COUNTERS.intake
    with server.connect() as client:
        for _ in range(2):
            client.put(f"/{path}", body, method="PATCH")
            assert client.response().body == summary(body)
        client.get("/small")
        assert client.response().body == b"small"
    fast = server.fast and path == "body" and length >= INTAKE_LENGTH
    assert COUNTERS.intake - before == (2 if fast else 0)


@pytest.mark.parametrize(
    ("size", "length"),
    [(1, 2000), (2, 70_001), (1000, 100_000), (32 << 10, 5_000_000), (5_000_000, 35_000_000)],
)
@pytest.mark.parametrize("path", ["body", "messages"])
def test_a_chunked_body(server: Running, path: str, size: int, length: int) -> None:
    body = os.urandom(length)
    before = COUNTERS.intake
    with server.connect() as client:
        for extension, trailer in ((b"", b""), (b";name=value", b"x-checksum: 1\r\ny: 2\r\n")):
            client.send(CHUNKED % (b"PATCH", path.encode()))
            client.send(chunked(body, size, extension, trailer))
            assert client.response().body == summary(body)
        client.get("/small")
        assert client.response().body == b"small"
    assert COUNTERS.intake - before == (2 if server.fast and path == "body" else 0)


def test_an_empty_chunked_body(server: Running) -> None:
    with server.connect() as client:
        client.send(CHUNKED % (b"PUT", b"body") + b"0\r\n\r\n")
        assert client.response().body == summary(b"")


@pytest.mark.parametrize("path", ["body", "messages"])
def test_a_client_that_waits_for_100_continue(server: Running, path: str) -> None:
    body = os.urandom(300_000)
    with server.connect() as client:
        client.send(
            f"PUT /{path} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
        )
        assert client.response().status == 100
        client.send(body)
        assert client.response().body == summary(body)


def test_a_refused_client_is_not_told_to_continue(server: Running) -> None:
    with server.connect() as client:
        client.send(
            b"PUT /refuse HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            b"content-length: 300000\r\n\r\n"
        )
        assert client.response().status == 401


def test_a_head_in_pieces(server: Running) -> None:
    body = os.urandom(200_000)
    head = f"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with server.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(head), 20):
            client.send(head[start : start + 20])
            time.sleep(0.002)
        client.send(body)
        assert client.response().body == summary(body)


def test_chunks_that_dribble_in_byte_by_byte(server: Running) -> None:
    with server.connect() as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(CHUNKED % (b"PATCH", b"body"))
        for byte in chunked(b"hello, world", 5, b";a=b", b"t: u\r\n"):
            client.send(bytes([byte]))
            time.sleep(0.001)
        assert client.response().body == summary(b"hello, world")


@pytest.mark.parametrize("length", [10, INTAKE_LENGTH, 100_000, 1_000_000, 3_000_000])
def test_requests_pipelined_behind_a_body(server: Running, length: int) -> None:
    """A body that arrives whole, with the next requests in the same read, loses none of them."""
    body = os.urandom(length)
    put = f"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n".encode() + body
    small = b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n"
    streamed = CHUNKED % (b"PATCH", b"body") + chunked(body, 70_000)
    with server.connect() as client:
        client.send(put + small + streamed + put + small)
        for expected in (summary(body), b"small", summary(body), summary(body), b"small"):
            assert client.response().body == expected


@pytest.mark.parametrize("length", [1000, 100_000, 5_000_000])
def test_an_unread_body_does_not_spoil_the_connection(server: Running, length: int) -> None:
    with server.connect() as client:
        client.put("/refuse", os.urandom(length))
        assert client.response().status == 401
        client.get("/small")
        assert client.response().body == b"small"
        client.send(CHUNKED % (b"PUT", b"refuse") + chunked(os.urandom(length), 4000))
        assert client.response().status == 401
        client.put("/body", b"x" * length)
        assert client.response().body == summary(b"x" * length)


MALFORMED = [
    ("no size", b"\r\nhello\r\n0\r\n\r\n"),
    ("not hexadecimal", b"5x\r\nhello\r\n0\r\n\r\n"),
    ("negative", b"-5\r\nhello\r\n0\r\n\r\n"),
    ("with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    ("longer than its size", b"5\r\nhello!\r\n0\r\n\r\n"),
    ("bare line feed", b"5\nhello\n0\n\n"),
    ("overflowing size", b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("space before the size", b" 5\r\nhello\r\n0\r\n\r\n"),
    ("line feed in an extension", b"5;a=\nb\r\nhello\r\n0\r\n\r\n"),
]


@pytest.mark.parametrize("coded", [m[1] for m in MALFORMED], ids=[m[0] for m in MALFORMED])
def test_malformed_chunks_are_refused_and_the_connection_closed(
    fast_server: Running, coded: bytes
) -> None:
    with fast_server.connect() as client:
        client.send(CHUNKED % (b"PATCH", b"body") + chunked(b"first", 9)[:-5] + coded)
        response = client.response()
        assert response.status == 400
        assert response.headers["connection"] == "close"
        assert client.closed()


@pytest.mark.parametrize(
    "headers",
    [
        b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        b"content-length: 5\r\ncontent-length: 70000\r\n",
        b"content-length: +5\r\n",
        b"content-length: 99999999999999999999999999\r\n",
    ],
)
def test_smuggling_shapes_are_refused(fast_server: Running, headers: bytes) -> None:
    with fast_server.connect() as client:
        client.send(b"PUT /body HTTP/1.1\r\nhost: x\r\n" + headers + b"\r\n0\r\n\r\nGET /small")
        assert client.response().status == 400
        assert client.closed()


def test_a_sink_that_refuses_gets_its_answer_through(fast_server: Running) -> None:
    """The client is still sending: the answer must reach it before the connection is reset."""
    with fast_server.connect() as client:
        client.put("/body?limit=1000000", os.urandom(3_000_000))
        response = client.response()
        assert (response.status, response.headers["connection"]) == (413, "close")
        assert client.closed()


def reset(client: Client) -> None:
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("by_reset", [False, True], ids=["end", "reset"])
def test_a_broken_upload_keeps_what_arrived_and_leaks_nothing(
    server: Running, by_reset: bool
) -> None:
    for _ in range(10):
        before = len(os.listdir("/proc/self/fd"))
        ended = len(server.toy.ended)
        with server.connect() as client:
            client.send(b"PATCH /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
            client.send(b"x" * 300_000)
            time.sleep(0.02)
            if by_reset:
                reset(client)
        name, _, kept = str(wait_for_end(server, ended)).partition(" ")
        assert name == "ClientGone"
        if not by_reset:
            assert int(kept) == 300_000
        deadline = time.monotonic() + 5
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before


def test_stalled_uploads_do_not_block_others(server: Running) -> None:
    stalled = [server.connect() for _ in range(64)]
    try:
        for client in stalled:
            client.send(b"PATCH /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\nsome")
        body = os.urandom(2_000_000)
        began = time.monotonic()
        with server.connect() as client:
            client.put("/body", body)
            assert client.response().body == summary(body)
        assert time.monotonic() - began < 1.5
    finally:
        for client in stalled:
            client.socket.close()


def test_a_stalled_upload_is_given_up(fast_server: Running) -> None:
    ended = len(fast_server.toy.ended)
    with fast_server.connect() as client:
        client.send(b"PATCH /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\nsome")
        assert wait_for_end(fast_server, ended) == "ClientStalled 4"


def test_an_endless_head_is_refused(fast_server: Running) -> None:
    with fast_server.connect() as client:
        client.send(b"GET /small HTTP/1.1\r\nx: ")
        try:
            for _ in range(100):
                client.send(b"a" * 65536)
                time.sleep(0.001)
        except ConnectionError:
            pass
        else:
            pytest.fail("the server took 6 MB of head")


def test_attack_a_dribbled_upload_is_given_up(fast_server: Running) -> None:
    """A byte now and then keeps no upload, and no lock on it, for ever."""
    ended = len(fast_server.toy.ended)
    with fast_server.connect() as client:
        client.send(b"PATCH /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
        for _ in range(100):
            try:
                client.send(b"a")
            except ConnectionError:
                break
            if len(fast_server.toy.ended) > ended:
                break
            time.sleep(0.1)
        else:
            pytest.fail("a hundred bytes kept the upload for ten seconds")
        assert wait_for_end(fast_server, ended).startswith("ClientStalled")
