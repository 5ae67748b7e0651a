"""The decoder of bodies, as a function from bytes to bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.server.errors import MalformedBody
from registry.server.framing import (
    MAX_CHUNK_LINE,
    MAX_TRAILERS,
    ChunkedFraming,
    Framing,
    LengthFraming,
)
from tests.registry.server.toy import chunked


def decode(framing: Framing, data: bytes, step: int, room: int = 4096) -> bytes:
    """The body, when `data` comes in reads of at most `step` bytes into a buffer of `room`."""
    buffer = bytearray(room)
    body = b""
    while not framing.done:
        filled = framing.restore(buffer)
        count = min(step, len(data), framing.wanted(room - filled))
        buffer[filled : filled + count] = data[:count]
        data = data[count:]
        size = framing.decode(buffer, filled + count)
        body += buffer[:size]
        if not count and not framing.done:
            raise EOFError(body)
    framing.tail += data
    return body


STEPS = st.integers(1, 300)


@given(st.binary(), st.integers(1, 50), STEPS, st.integers(0, 40), st.binary(max_size=20))
def test_chunks_in_any_pieces(data: bytes, size: int, step: int, first: int, tail: bytes) -> None:
    coded = chunked(data, size, b" ;x=y", b"a: b\r\n") + tail
    framing = ChunkedFraming(coded[:first])
    assert decode(framing, coded[first:], step) == data
    assert framing.tail == tail


@given(st.binary(), STEPS, st.integers(0, 40), st.binary(max_size=20))
def test_a_length_in_any_pieces(data: bytes, step: int, first: int, tail: bytes) -> None:
    coded = data + tail
    framing = LengthFraming(len(data), coded[:first])
    assert decode(framing, coded[first:], step) == data
    assert framing.tail == tail


@given(st.binary(max_size=100), STEPS)
def test_arbitrary_bytes_raise_only_the_declared_error(data: bytes, step: int) -> None:
    try:
        decode(ChunkedFraming(b""), data, step)
    except (MalformedBody, EOFError):
        pass


@given(st.binary(min_size=1, max_size=60), st.data())
def test_a_flipped_byte_never_adds_a_chunk_silently(data: bytes, draw: st.DataObject) -> None:
    """What is accepted encodes again to something that decodes the same."""
    coded = bytearray(chunked(data, 7))
    place = draw.draw(st.integers(0, len(coded) - 1))
    coded[place] = draw.draw(st.integers(0, 255))
    try:
        body = decode(ChunkedFraming(b""), bytes(coded), 100)
    except (MalformedBody, EOFError):
        return
    assert decode(ChunkedFraming(b""), chunked(body, 3), 100) == body


@pytest.mark.parametrize(
    ("what", "coded"),
    [
        ("an endless size line", b"5;" + b"x" * MAX_CHUNK_LINE),
        ("an endless trailer", b"0\r\n" + b"a: b\r\n" * (MAX_TRAILERS // 6 + 1)),
        ("a trailer line without end", b"0\r\na:" + b"b" * MAX_TRAILERS),
        ("a trailer that is no header", b"0\r\nGET / HTTP/1.1\r\n\r\n"),
        ("a folded trailer", b"0\r\na: b\r\n c\r\n\r\n"),
        ("a bare line feed in a trailer", b"0\r\na: b\n"),
        ("a bare return in a size line", b"5\rx\r\n"),
        ("an impossible size", b"f000000000000000\r\n"),
        ("a NUL in an extension", b"5;\0\r\n"),
        ("a word before its line is complete", b"GET /"),
    ],
)
@pytest.mark.parametrize("step", [1, 3, 10_000])
def test_refused(what: str, coded: bytes, step: int) -> None:
    with pytest.raises(MalformedBody):
        decode(ChunkedFraming(b""), coded, step, room=16384)


def test_many_trailers_within_the_limit_are_dropped() -> None:
    assert (
        decode(ChunkedFraming(b""), chunked(b"body", 2, trailer=b"a: b\r\n" * 1000), 77) == b"body"
    )
