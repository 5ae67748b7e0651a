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
from registry.server.sockets import UNSENT_LIMIT, Receiving, Sending, Turn, is_local

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


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="needs TCP_NOTSENT_LOWAT")
def test_only_a_peer_on_this_machine_limits_what_waits(
    file: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
    ours, theirs = tcp_pair()
    with ours, theirs:
        before = ours.getsockopt(*limit)
        monkeypatch.setattr("registry.server.sockets.is_local", lambda sock: False)
        Sending(ours.fileno(), file, 0, SIZE)
        assert ours.getsockopt(*limit) == before
        monkeypatch.undo()
        Sending(ours.fileno(), file, 0, SIZE)
        assert ours.getsockopt(*limit) == UNSENT_LIMIT != before


def test_a_peer_is_local_by_its_address() -> None:
    """127.0.0.1 and 127.0.0.2 are two addresses, as two hosts have them."""
    ours, theirs = tcp_pair()
    with ours, theirs:
        assert is_local(ours) and is_local(theirs)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with socket.create_connection(
            listening.getsockname(), source_address=("127.0.0.2", 0)
        ) as other:
            with listening.accept()[0] as accepted:
                assert not is_local(accepted) and not is_local(other)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert not is_local(ours)


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
