"""Blobs going out: every flavour gives the same bytes, the fast ones by the fast way."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from typing import Literal

import pytest

from registry.server.protocol import COUNTERS, IN_LOOP_COUNT
from registry.server.run import ServerOptions
from tests.registry.server.toy import Running, running

RANGES = [
    ("the first byte", 0, 1),
    ("the last byte", (40 << 20) - 1, 1),
    ("nothing", 17, 0),
    ("small, unaligned", 12345, 7777),
    ("the largest in the loop", 3, IN_LOOP_COUNT),
    ("the smallest in a thread", 3, IN_LOOP_COUNT + 1),
    ("across a slice", 1 << 20, 35 << 20),
]


@pytest.mark.parametrize(("offset", "count"), [r[1:] for r in RANGES], ids=[r[0] for r in RANGES])
def test_a_range_arrives_byte_exact(
    server: Running, content: bytes, offset: int, count: int
) -> None:
    before = COUNTERS.zero_copy, COUNTERS.in_loop
    with server.connect() as client:
        client.get(f"/blob?offset={offset}&count={count}")
        response = client.response()
    assert response.status == 200
    assert response.headers["x"] == "y"
    assert response.body == content[offset : offset + count]
    used = COUNTERS.zero_copy - before[0], COUNTERS.in_loop - before[1]
    if not server.fast or count == 0:
        assert used == (0, 0)
    else:
        assert used == ((1, 0) if count > IN_LOOP_COUNT else (0, 1))


def test_a_connection_is_reused(server: Running, content: bytes) -> None:
    with server.connect() as client:
        for _ in range(2):
            client.get("/blob")
            assert client.response().body == content
            client.get("/blob", method="HEAD")
            answer = client.response(head=True)
            assert answer.headers["content-length"] == str(len(content))
            client.get("/blob?offset=5&count=10")
            assert client.response().body == content[5:15]
            client.get("/small")
            assert client.response().body == b"small"


def test_pipelined_requests_are_answered_in_order(server: Running, content: bytes) -> None:
    with server.connect() as client:
        one = "GET /blob?count={} HTTP/1.1\r\nhost: x\r\n\r\n"
        counts = (3 << 20, 5, 1 << 20, 100_000)
        client.send("".join(one.format(count) for count in counts).encode())
        for count in counts:
            assert client.response().body == content[:count]


def test_http_1_0_is_answered_and_closed(server: Running, content: bytes) -> None:
    with server.connect() as client:
        client.get("/blob", version="1.0")
        response = client.response()
        assert response.body == content
        assert response.headers["connection"] == "close"
        assert client.closed()


def test_a_slow_client_gets_everything(server: Running, content: bytes) -> None:
    with server.connect(receive_buffer=65536) as client:
        client.get("/blob?count=3000000")
        time.sleep(0.2)
        response = client.response()
        assert response.body == content[:3000000]


def test_clients_that_never_read_do_not_block_others(server: Running, content: bytes) -> None:
    stalled = [server.connect(receive_buffer=4096) for _ in range(40)]
    try:
        for client in stalled:
            client.get("/blob")
        time.sleep(0.2)
        with server.connect() as client:
            began = time.monotonic()
            client.get("/small")
            assert client.response().body == b"small"
            assert time.monotonic() - began < 1
            client.get("/blob")
            assert client.response().body == content
            assert time.monotonic() - began < 3
    finally:
        for client in stalled:
            client.socket.close()


def test_a_stalled_client_is_given_up(fast_server: Running) -> None:
    with fast_server.connect(receive_buffer=4096) as client:
        client.get("/blob")
        ended = len(fast_server.toy.ended)
        deadline = time.monotonic() + 6
        while len(fast_server.toy.ended) == ended and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(fast_server.toy.ended) == ended + 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_attack_a_client_that_never_reads_is_given_up_without_fast_paths(
    file: str, loop: Literal["asyncio", "uvloop"]
) -> None:
    """As with TLS: bytes wait in the transport, also of a connection that is being closed."""
    options = ServerOptions(loop=loop, fast_paths=False, idle_s=1, graceful_s=1)
    with running(file, options) as server, server.connect(receive_buffer=4096) as client:
        client.send(b"GET /blob HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        deadline = time.monotonic() + 10
        while not server.toy.ended and time.monotonic() < deadline:
            time.sleep(0.05)
        assert server.toy.ended


def test_broken_connections_leak_no_descriptor(server: Running) -> None:
    def sockets_and_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with server.connect() as client:  # pools and libraries open theirs first
        client.get("/blob")
        client.response()
    before = sockets_and_files()
    for turn in range(30):
        client = server.connect()
        client.get("/blob")
        client.socket.recv(1000)
        if turn % 2:  # reset instead of an orderly end
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.socket.close()
    deadline = time.monotonic() + 5
    while sockets_and_files() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sockets_and_files() <= before


def test_parallel_downloads_do_not_mix(server: Running, content: bytes) -> None:
    wrong: list[int] = []

    def download(offset: int) -> None:
        with server.connect() as client:
            for _ in range(3):
                client.get(f"/blob?offset={offset}&count=4000000")
                if client.response().body != content[offset : offset + 4000000]:
                    wrong.append(offset)

    threads = [threading.Thread(target=download, args=(i * 31337,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
