"""How a container's init and the process that forked it talk until the program runs.

Two pipes, because that is all it takes. From the parent single bytes: MAPPED (the user namespace
has its ids), GO (everything is recorded, run the program). From the child one report at a time:

    READY        the container is complete, waiting for GO
    FAILED ...   a step failed; nothing of the container runs
    EXEC         the next thing is the exec of the stub

After EXEC the pipe belongs to the stub, see `runtime.linux.stub`: it closes with the exec of the
program, or carries the errno of the failure. A pipe that closes without a report means that the
child was killed.
"""

from __future__ import annotations

import os
import struct

from ocispec.value import value

MAPPED = b"m"
GO = b"g"

READY = b"R"
FAILED = b"F"
EXEC = b"X"

REPORT_LIMIT = 16 << 10  # a report names a path or two; the child is still our own code here


class PeerLost(Exception):
    """The other side ended without a word."""


@value
class Failure:
    """Why the init gave up."""

    step: str  # what it was doing
    errno: int  # 0 when the reason is not the kernel's
    message: str


class Channel:
    """The parent's and the child's ends; each side calls `keep_*` once after the fork."""

    def __init__(self) -> None:
        self.report_read, self.report_write = os.pipe()
        self.order_read, self.order_write = os.pipe()

    def keep_parent_ends(self) -> None:
        os.close(self.report_write)
        os.close(self.order_read)

    def keep_child_ends(self) -> None:
        os.close(self.report_read)
        os.close(self.order_write)

    def close(self) -> None:
        """Close the parent's ends. Once."""
        os.close(self.report_read)
        os.close(self.order_write)

    # -- the child -------------------------------------------------------------------------------

    def wait_for(self, order: bytes) -> None:
        """Raises: PeerLost when the parent died or gave up."""
        if os.read(self.order_read, 1) != order:
            raise PeerLost

    def report(self, kind: bytes) -> None:
        os.write(self.report_write, kind)

    def report_failure(self, failure: Failure) -> None:
        text = f"{failure.step}\0{failure.message}".encode(errors="replace")[:REPORT_LIMIT]
        packed = FAILED + struct.pack("=iI", failure.errno, len(text)) + text
        os.write(self.report_write, packed)

    # -- the parent ------------------------------------------------------------------------------

    def order(self, order: bytes) -> None:
        """Tell the child; a child that has gone is noticed by the next `next_report`."""
        try:
            os.write(self.order_write, order)
        except BrokenPipeError:
            pass

    def next_report(self, expected: bytes) -> Failure | None:
        """None when the expected report came, else what went wrong. Raises: PeerLost."""
        kind = os.read(self.report_read, 1)
        if kind == expected:
            return None
        if kind != FAILED:
            raise PeerLost
        errno, size = struct.unpack("=iI", self._exactly(8))
        step, _, message = self._exactly(min(size, REPORT_LIMIT)).decode().partition("\0")
        return Failure(step, errno, message)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            chunk = os.read(self.report_read, size - len(found))
            if not chunk:
                raise PeerLost
            found += chunk
        return found
