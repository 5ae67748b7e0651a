"""What a service manager gives and is told: sockets that listen already, and our state.

Spec: sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import os
import socket
import time

from registry.errors import RegistryError

_FIRST_DESCRIPTOR = 3
_MOST_DESCRIPTORS = 64


class SocketsUnusable(RegistryError):
    """What was handed over is no listening socket."""


def inherited_sockets(count: str, process: str) -> list[socket.socket]:
    """The sockets that the service manager listens on for us; empty if it gave none.

    `count` and `process` are LISTEN_FDS and LISTEN_PID. Raises: SocketsUnusable.
    """
    if not count or process != str(os.getpid()):
        return []
    if not (count.isascii() and count.isdigit()) or int(count) > _MOST_DESCRIPTORS:
        raise SocketsUnusable(f"LISTEN_FDS is {count[:20]!r}")
    found = []
    for descriptor in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count)):
        try:
            sock = socket.socket(fileno=descriptor)
            listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise SocketsUnusable(
                f"descriptor {descriptor} of LISTEN_FDS is no socket: {error.strerror}"
            ) from error
        if not listens or sock.family not in (socket.AF_INET, socket.AF_INET6):
            raise SocketsUnusable(f"descriptor {descriptor} of LISTEN_FDS does not listen on TCP")
        sock.set_inheritable(False)
        sock.setblocking(False)
        found.append(sock)
    return found


class Notifier:
    """Tells the service manager; does nothing if there is none."""

    def __init__(self, address: str) -> None:
        """`address` is NOTIFY_SOCKET: a path, or an abstract name that starts with @."""
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def ready(self) -> None:
        self._tell("READY=1")

    def reloading(self) -> None:
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def _tell(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.connect(self._address)
                sock.send(message.encode())
        except OSError:
            return  # a manager that does not listen is no reason to stop serving
