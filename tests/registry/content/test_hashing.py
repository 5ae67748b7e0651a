"""Hashes that are put down and taken up again give what hashlib gives."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.content import hashing
from registry.content.hashing import (
    HashingSink,
    InvalidHashState,
    PlainHasher,
    new_hasher,
    resume_hasher,
)
from registry.server.errors import BodyTooLarge

ALGORITHMS = ["sha256", "sha512"]
PIECES = st.lists(st.binary(max_size=300), max_size=6)


def test_this_python_can_resume() -> None:
    assert hashing.can_resume()


@given(st.sampled_from(ALGORITHMS), PIECES)
def test_a_hash_put_down_after_every_piece(algorithm: str, pieces: list[bytes]) -> None:
    hasher = new_hasher(algorithm)
    for piece in pieces:
        hasher.update(piece)
        state = hasher.state()
        assert state is not None
        hasher = resume_hasher(state)
        assert hasher.state() == state
    data = b"".join(pieces)
    assert hasher.size == len(data)
    assert hasher.algorithm == algorithm
    assert hasher.digest().encoded == hashlib.new(algorithm, data).hexdigest()
    assert hasher.digest() == hasher.digest(), "asking does not change it"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_plain_hasher_agrees_but_cannot_be_put_down(algorithm: str) -> None:
    plain, resumable = PlainHasher(algorithm), new_hasher(algorithm)
    for hasher in (plain, resumable):
        hasher.update(b"some")
        hasher.update(memoryview(b"read-only"))
        hasher.update(memoryview(bytearray(b"writable"))[2:5])
        hasher.update(memoryview(bytearray()))
    assert plain.digest() == resumable.digest()
    assert plain.size == resumable.size
    assert plain.state() is None


def test_the_saved_form_is_fixed() -> None:
    """Sessions outlive versions: a state that was saved once must be read for ever."""
    saved = {
        "sha256": (
            "0101df5bb81ce81e0626fb45a8944fd40f31b25e6816d6d499c1ab90492900635e66000000000000004161"
        ),
        "sha512": (
            "010203bf7c6e55c11b040d48757f45285fdced46689bfc9026c0281701a1424c80f5ca31"
            "738befe6afee30f5fe8d4e41e2489379d57c74895af44b1e84ebc1bab8b0000000000000"
            "008161"
        ),
    }
    for algorithm, text in saved.items():
        length = 65 if algorithm == "sha256" else 129
        hasher = new_hasher(algorithm)
        hasher.update(b"a" * length)
        assert hasher.state() == bytes.fromhex(text)
        assert resume_hasher(bytes.fromhex(text)).digest() == hasher.digest()


@given(st.binary(max_size=250))
def test_foreign_bytes_are_refused_or_a_hash(state: bytes) -> None:
    try:
        hasher = resume_hasher(state)
    except InvalidHashState:
        return
    hasher.update(b"x")
    hasher.digest()


@given(st.sampled_from(ALGORITHMS), st.binary(max_size=200), st.integers(0, 300))
def test_a_cut_state_is_refused(algorithm: str, data: bytes, cut: int) -> None:
    hasher = new_hasher(algorithm)
    hasher.update(data)
    state = hasher.state()
    assert state is not None
    if cut < len(state):
        with pytest.raises(InvalidHashState):
            resume_hasher(state[:cut])
    with pytest.raises(InvalidHashState):
        resume_hasher(state + b"x")


def test_lengths_beyond_32_bits_of_bits() -> None:
    """The bit count of the library is two words; both are carried over."""
    hasher = new_hasher("sha256")
    piece = bytes(1 << 20)
    for _ in range(600):
        hasher.update(piece)
    state = hasher.state()
    assert state is not None
    resumed = resume_hasher(state)
    resumed.update(b"end")
    expected = hashlib.sha256(bytes(600 << 20))
    expected.update(b"end")
    assert resumed.digest().encoded == expected.hexdigest()


class Written:
    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.data = b""

    def write(self, data: memoryview) -> None:
        self.data += data
        self.offset += len(data)


def test_a_sink_hashes_and_writes_up_to_its_limit() -> None:
    writer, hasher = Written(offset=5), new_hasher()
    sink = HashingSink([hasher], writer, limit=10)
    sink.write(memoryview(b"12345"))
    assert writer.data == b"12345"
    with pytest.raises(BodyTooLarge) as caught:
        sink.write(memoryview(b"6"))
    assert caught.value.limit == 10
    assert writer.data == b"12345"
    assert hasher.digest().encoded == hashlib.sha256(b"12345").hexdigest()
