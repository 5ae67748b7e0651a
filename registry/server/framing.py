"""Where a request body ends: Content-Length, and a strict decoder of chunked coding.

Pure: bytes in a buffer are turned into body bytes in place. llhttp does the same for bodies that
come as ASGI messages; this is for those that are read from the socket by a thread, 1 MiB at once.
Anything a proxy in front could understand differently is refused rather than guessed at.

Spec: RFC 9112, 6.2 and 7.1.
"""

from __future__ import annotations

import re
from typing import Protocol

from registry.server.errors import MalformedBody

#: A chunk's size with its extensions; clients use 10 bytes, a signing proxy about 100.
MAX_CHUNK_LINE = 512
#: All trailer fields together; they are read and dropped.
MAX_TRAILERS = 8192
#: Larger sizes are an attempt at overflow.
MAX_CHUNK = 1 << 60

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?")
_CHUNK_LINE_SO_FAR = re.compile(
    rb"(?:[0-9A-Fa-f]{1,16}(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)?\r?)?"
)
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_NEWLINE = b"\r\n"


class Framing(Protocol):
    """Decodes one body. Each round: `restore`, read at most `wanted` bytes behind, `decode`."""

    #: The last byte of the body was decoded.
    done: bool
    #: Bytes that came behind the body: the next request of a pipelining client.
    tail: bytes

    def restore(self, buffer: bytearray) -> int:
        """Put bytes left over from the last round at the start of the buffer; how many."""

    def wanted(self, room: int) -> int:
        """How many bytes may be read now, at most `room`."""

    def decode(self, buffer: bytearray, filled: int) -> int:
        """Turn `buffer[:filled]` into the body bytes `buffer[:returned]`.

        Raises: MalformedBody.
        """


class LengthFraming:
    """A body of a known number of bytes."""

    def __init__(self, length: int, first: bytes) -> None:
        self._remaining = length
        self._first = first
        self._carried = 0
        self.done = False
        self.tail = b""

    def restore(self, buffer: bytearray) -> int:
        first, self._first = self._first, b""
        buffer[: len(first)] = first
        self._carried = len(first)
        return len(first)

    def wanted(self, room: int) -> int:
        return max(0, min(room, self._remaining - self._carried))

    def decode(self, buffer: bytearray, filled: int) -> int:
        size = min(filled, self._remaining)
        self._remaining -= size
        if self._remaining == 0:
            self.done = True
            self.tail = bytes(memoryview(buffer)[size:filled])
        return size


class ChunkedFraming:
    """Transfer-Encoding: chunked. Extensions and trailers are checked and dropped."""

    def __init__(self, first: bytes) -> None:
        self._carry = first
        self._state = self._size_line
        self._left = 0
        self._trailers = 0
        self.done = False
        self.tail = b""

    def restore(self, buffer: bytearray) -> int:
        carry, self._carry = self._carry, b""
        buffer[: len(carry)] = carry
        return len(carry)

    def wanted(self, room: int) -> int:
        return room

    def decode(self, buffer: bytearray, filled: int) -> int:
        read = write = 0
        with memoryview(buffer) as view:
            while not self.done:
                if self._left:
                    take = min(self._left, filled - read)
                    view[write : write + take] = view[read : read + take]
                    read += take
                    write += take
                    self._left -= take
                    if self._left:
                        return write
                    self._state = self._data_end
                after = self._state(buffer, read, filled)
                if after == read:  # the line is not complete yet
                    self._carry = bytes(view[read:filled])
                    return write
                read = after
            self.tail = bytes(view[read:filled])
        return write

    def _size_line(self, buffer: bytearray, start: int, filled: int) -> int:
        end = buffer.find(_NEWLINE, start, min(filled, start + MAX_CHUNK_LINE))
        if end < 0:
            if (
                filled - start >= MAX_CHUNK_LINE
                or _CHUNK_LINE_SO_FAR.fullmatch(buffer, start, filled) is None
            ):
                raise MalformedBody("a chunk does not start with its size")
            return start
        line = _CHUNK_LINE.fullmatch(buffer, start, end)
        if line is None:
            raise MalformedBody("a chunk does not start with its size")
        self._left = int(line[1], 16)
        if self._left > MAX_CHUNK:
            raise MalformedBody("a chunk is impossibly large")
        if self._left == 0:
            self._state = self._trailer
        return end + 2

    def _data_end(self, buffer: bytearray, start: int, filled: int) -> int:
        found = buffer[start : min(filled, start + 2)]
        if not _NEWLINE.startswith(found):
            raise MalformedBody("a chunk is longer than its size")
        if len(found) < 2:
            return start
        self._state = self._size_line
        return start + 2

    def _trailer(self, buffer: bytearray, start: int, filled: int) -> int:
        room = MAX_TRAILERS - self._trailers
        end = buffer.find(_NEWLINE, start, min(filled, start + room))
        if end < 0:
            if filled - start >= room:
                raise MalformedBody("the trailer is too long")
            if buffer.find(b"\n", start, filled) >= 0:
                raise MalformedBody("the trailer is not made of header lines")
            return start
        if end == start:
            self.done = True
        elif _TRAILER.fullmatch(buffer, start, end) is None:
            raise MalformedBody("the trailer is not made of header lines")
        self._trailers += end + 2 - start
        return end + 2
