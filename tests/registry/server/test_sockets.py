"""Turns of a worker thread, on real sockets and files."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.server.framing import ChunkedFraming
from registry.server.sockets import Receiving, Sending, Turn

_SIOCOUTQNSD = 0x894B  # <linux/sockios.h>: bytes not sent yet
SIZE = 64 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "blob"
    with open(path, "wb") as made:
        made.truncate(SIZE)
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    ours.setblocking(False)
    return ours, theirs


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="needs TCP_NOTSENT_LOWAT")
def test_a_sender_does_not_run_ahead_of_its_peer(file: int) -> None:
    ours, theirs = tcp_pair()
    with ours, theirs:
        assert Sending(ours.fileno(), file, 0, SIZE).turn() is Turn.STALLED
        unsent = fcntl.ioctl(ours, _SIOCOUTQNSD, struct.pack("i", 0))
        # The kernel takes a piece of 64 KiB as a whole once there is room for a byte of it;
        # without a limit megabytes wait here.
        assert struct.unpack("i", unsent)[0] <= 256 << 10


def test_a_socket_that_is_not_of_tcp_is_sent_to_as_well(file: int) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        assert Sending(ours.fileno(), file, 0, 4096).turn() is Turn.DONE
        assert theirs.recv(8192) == bytes(4096)


class Kept(list[bytes]):
    def write(self, data: memoryview) -> None:
        self.append(bytes(data))


def test_a_body_that_came_with_its_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing follows it on the socket; asking there would cost the whole patience."""

    def wait(self: object, fd: int, event: int) -> bool:
        raise AssertionError("waited for the peer")

    monkeypatch.setattr("registry.server.sockets._Budget.wait", wait)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        sink = Kept()
        receiving = Receiving(ours.fileno(), ChunkedFraming(b"3\r\nabc\r\n0\r\n\r\n"), sink)
        assert receiving.turn() is Turn.DONE
    assert b"".join(sink) == b"abc"
