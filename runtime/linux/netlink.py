"""rtnetlink: messages as bytes, and a socket that sends a batch and reads the answers.

No `socket` module: importing it costs a good part of a container's start, and a netlink socket
needs only socket(2), read and write.
"""

from __future__ import annotations

import os
import struct

from runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# message types
NLMSG_ERROR = 2
NLMSG_DONE = 3
RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_NEWROUTE = 24

# message flags
NLM_F_REQUEST = 0x01
NLM_F_MULTI = 0x02
NLM_F_ACK = 0x04
NLM_F_EXCL = 0x200
NLM_F_DUMP = 0x300
NLM_F_CREATE = 0x400

# attributes of links
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_NET_NS_FD = 28
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
NLA_F_NESTED = 0x8000

IFF_UP = 1
LOOPBACK_INDEX = 1  # the first interface of every network namespace

_AF_NETLINK = 16
_SOCK_RAW_CLOEXEC = 3 | os.O_CLOEXEC
_BUFFER = 64 * 1024  # the kernel never sends more in one piece than 32 KiB

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port


class InvalidMessage(ValueError):
    """Bytes that are not netlink messages."""


def message(kind: int, flags: int, payload: bytes, sequence: int = 0) -> bytes:
    """One message with its header, padded to 4 bytes."""
    length = _HEADER.size + len(payload)
    header = _HEADER.pack(length, kind, flags | NLM_F_REQUEST, sequence, 0)
    return header + payload + bytes(-length % 4)


def attribute(kind: int, payload: bytes) -> bytes:
    """Type, length and value, padded to 4 bytes. Raises: InvalidMessage beyond 65,531 bytes.

    The length field has 16 bits; wrapping around would let a value smuggle attributes in
    (CVE-2021-43784).
    """
    length = 4 + len(payload)
    if length > 0xFFFF:
        raise InvalidMessage(f"a netlink attribute of {length} bytes is too long")
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def text(kind: int, string: str) -> bytes:
    """An attribute that is a NUL-terminated string."""
    encoded = string.encode("utf-8")
    if b"\0" in encoded:
        raise InvalidMessage(f"NUL byte in {string!r}")
    return attribute(kind, encoded + b"\0")


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def link_header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    """struct ifinfomsg: `change` says which of the flags to set to those in `flags`."""
    return struct.pack("=BxHiII", 0, 0, index, flags, change)


def link_up(index: int) -> bytes:
    """The message that switches an interface on."""
    return message(RTM_NEWLINK, NLM_F_ACK, link_header(index, IFF_UP, IFF_UP))


def parse(data: bytes) -> tuple[tuple[int, int, bytes], ...]:
    """(type, sequence, payload) of each message. Raises: InvalidMessage."""
    found = []
    position = 0
    while position < len(data):
        if len(data) - position < _HEADER.size:
            raise InvalidMessage("netlink message cut short")
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size or position + length > len(data):
            raise InvalidMessage(f"netlink message claims {length} bytes")
        found.append((kind, sequence, data[position + _HEADER.size : position + length]))
        position += length + -length % 4
    return tuple(found)


class RouteSocket:
    """A NETLINK_ROUTE socket of the current network namespace; close it, or use `with`."""

    def __init__(self) -> None:
        self._fd = syscalls.socket(_AF_NETLINK, _SOCK_RAW_CLOEXEC, 0)
        self._sequence = 0

    def __enter__(self) -> RouteSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def request(self, what: str, messages: Iterable[bytes]) -> None:
        """Send messages made with NLM_F_ACK in one batch; return when all are acknowledged.

        The kernel stops at none: later messages are tried after an earlier one failed.
        Raises: OSError of the first that failed; `what` says in words what was asked.
        """
        batch = b""
        pending = set()
        for raw in messages:
            self._sequence += 1
            pending.add(self._sequence)
            batch += raw[:8] + struct.pack("=I", self._sequence) + raw[12:]
        os.write(self._fd, batch)
        failure = 0
        while pending:
            for kind, sequence, payload in parse(os.read(self._fd, _BUFFER)):
                if kind == NLMSG_ERROR and sequence in pending:
                    pending.discard(sequence)
                    code = -struct.unpack_from("=i", payload)[0]
                    failure = failure or code
        if failure:
            raise OSError(failure, f"{what}: {os.strerror(failure)}")


def loopback_up() -> None:
    """Switch on `lo` in the current network namespace."""
    with RouteSocket() as route:
        route.request("switch on the loopback interface", [link_up(LOOPBACK_INDEX)])
