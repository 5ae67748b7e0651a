"""Hashes that can be put down and taken up again, by another process too.

An upload arrives in several requests. `hashlib` cannot save a hash in the middle, so the SHA-2
functions of OpenSSL are called directly: their context is a public struct. It is not stored as
such, but in a form that depends on neither library nor machine:

    1 byte    version, 1
    1 byte    algorithm: 1 sha256, 2 sha512
    8 words   the chaining value, big-endian (4 bytes each for sha256, 8 for sha512)
    8 bytes   number of bytes hashed, big-endian
    0..n      the bytes after the last whole block (64 or 128)

A self-test at import compares with hashlib. Where it fails (a Python without a shared libcrypto, a
FIPS build) hashlib is used, `state()` is None, and uploads are hashed again from storage when they
are continued.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from ocispec.digest import Digest
from registry.errors import RegistryError
from registry.server.errors import BodyTooLarge

_VERSION = 1


class InvalidHashState(RegistryError):
    """Saved bytes that no hasher of this version wrote; hash the stored bytes again."""


class Hasher(Protocol):
    """A running hash. Not for two threads at once; large updates release the GIL."""

    @property
    def algorithm(self) -> str:
        """ "sha256" or "sha512"."""

    @property
    def size(self) -> int:
        """Bytes hashed so far."""

    def update(self, data: bytes | memoryview) -> None: ...

    def digest(self) -> Digest:
        """The digest of what came so far; updates may follow."""

    def state(self) -> bytes | None:
        """The hash put down, for `resume_hasher`; None where that is not possible."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How OpenSSL's context of one algorithm lies in memory:
    words h[8], word Nl, word Nh (bits), the pending block, unsigned num, unsigned md_len."""

    algorithm: str
    code: int
    word: str
    block: int
    digest_size: int
    words: struct.Struct
    tail: struct.Struct

    @classmethod
    def of(cls, algorithm: str, code: int, word: str, digest_size: int) -> _Layout:
        block = struct.calcsize(f"=16{word}")
        fields = struct.Struct(f"=8{word}2{word}{block}s2I")
        words = struct.Struct(f">BB8{word}Q")
        return cls(algorithm, code, word, block, digest_size, words, fields)


_LAYOUTS = {
    layout.algorithm: layout
    for layout in (_Layout.of("sha256", 1, "I", 32), _Layout.of("sha512", 2, "Q", 64))
}


class ResumableHasher:
    """SHA-2 through libcrypto, which releases the GIL for each call."""

    def __init__(self, algorithm: str, library: ctypes.CDLL) -> None:
        self._layout = _LAYOUTS[algorithm]
        self._functions = _functions(library, algorithm)
        self._context = ctypes.create_string_buffer(self._layout.tail.size)
        self._functions.init(self._context)
        self.algorithm = algorithm
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        length = len(data)
        if not length:
            return
        if isinstance(data, memoryview) and data.readonly:
            whole = data.obj
            data = whole if isinstance(whole, bytes) and len(whole) == length else bytes(data)
        if isinstance(data, memoryview):
            # No copy: the address of the first byte; the view keeps the buffer alive meanwhile.
            self._functions.update(
                self._context, ctypes.byref(ctypes.c_char.from_buffer(data)), length
            )
        else:
            self._functions.update(self._context, data, length)
        self.size += length

    def digest(self) -> Digest:
        context = ctypes.create_string_buffer(self._context.raw, len(self._context))
        output = ctypes.create_string_buffer(self._layout.digest_size)
        self._functions.final(output, context)
        return Digest(self.algorithm, output.raw.hex())

    def state(self) -> bytes | None:
        *words, _, _, pending, count, _ = self._layout.tail.unpack(self._context.raw)
        head: bytes = self._layout.words.pack(_VERSION, self._layout.code, *words, self.size)
        tail: bytes = pending[:count]
        return head + tail

    def restore(self, words: tuple[int, ...], size: int, pending: bytes) -> None:
        bits = size * 8
        half = struct.calcsize(f"={self._layout.word}") * 8
        low, high = bits & ((1 << half) - 1), bits >> half
        ctypes.memmove(
            self._context,
            self._layout.tail.pack(
                *words, low, high, pending, len(pending), self._layout.digest_size
            ),
            self._layout.tail.size,
        )
        self.size = size


class PlainHasher:
    """hashlib: as fast, but it cannot be put down."""

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm)
        self.algorithm = algorithm
        self.size = 0

    def update(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)

    def digest(self) -> Digest:
        return Digest(self.algorithm, self._hash.hexdigest())

    def state(self) -> bytes | None:
        return None


def new_hasher(algorithm: str = "sha256") -> Hasher:
    """Start a hash. Raises: KeyError for anything but "sha256" and "sha512"."""
    _LAYOUTS[algorithm]
    return PlainHasher(algorithm) if _library is None else ResumableHasher(algorithm, _library)


def resume_hasher(state: bytes) -> Hasher:
    """Take up a hash that `state` put down.

    Raises: InvalidHashState if the bytes are not such a state, or this machine cannot resume any.
    """
    if _library is None:
        raise InvalidHashState("this Python has no libcrypto that can resume a hash")
    return _resume(state, _library)


def can_resume() -> bool:
    """True if hashers give a `state`."""
    return _library is not None


class KeptHashes:
    """Hashes that this process put down between two requests, by upload; the oldest are forgotten.

    For one event loop. Whoever takes one up compares its size with what is stored.
    """

    def __init__(self, kept: int = 1024) -> None:
        self._states: OrderedDict[str, bytes] = OrderedDict()
        self._kept = kept

    def put(self, upload: str, state: bytes) -> None:
        self._states[upload] = state
        if len(self._states) > self._kept:
            self._states.popitem(last=False)

    def take(self, upload: str) -> bytes:
        """Empty if there is none."""
        return self._states.pop(upload, b"")


class HashingSink:
    """Where an upload's body goes: hashed, then written, at most `limit` bytes in total.

    `limit` counts the whole upload, earlier pieces included (through the first hasher's size).
    """

    def __init__(self, hashers: Iterable[Hasher], writer: Writer, limit: int) -> None:
        self._hashers = tuple(hashers)
        self._writer = writer
        self._limit = limit

    def write(self, data: memoryview) -> None:
        """Raises: BodyTooLarge before the first byte over the limit; what the writer raises."""
        if self._writer.offset + len(data) > self._limit:
            raise BodyTooLarge(self._limit)
        for hasher in self._hashers:
            hasher.update(data)
        self._writer.write(data)


class Writer(Protocol):
    """The part of `UploadWriter` that a sink needs."""

    @property
    def offset(self) -> int: ...

    def write(self, data: memoryview) -> None: ...


class _Functions:
    """SHAxxx_Init, _Update, _Final of one algorithm. Raises: AttributeError if missing."""

    def __init__(self, library: ctypes.CDLL, algorithm: str) -> None:
        name = algorithm.upper()
        self.init = _declare(library, f"{name}_Init", ctypes.c_void_p)
        self.update = _declare(
            library, f"{name}_Update", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
        )
        self.final = _declare(library, f"{name}_Final", ctypes.c_void_p, ctypes.c_void_p)


@cache
def _functions(library: ctypes.CDLL, algorithm: str) -> _Functions:
    """Looked up once: it costs more than hashing a small piece."""
    return _Functions(library, algorithm)


def _declare(library: ctypes.CDLL, name: str, *arguments: Any) -> Any:
    function = library[name]
    function.argtypes = arguments
    function.restype = ctypes.c_int
    return function


def _resume(state: bytes, library: ctypes.CDLL) -> ResumableHasher:
    by_code = {layout.code: layout for layout in _LAYOUTS.values()}
    layout = by_code.get(state[1]) if len(state) > 1 and state[0] == _VERSION else None
    if layout is None or len(state) < layout.words.size:
        raise InvalidHashState("a saved hash has an unknown form")
    _, _, *words, size = layout.words.unpack_from(state)
    pending = state[layout.words.size :]
    if len(pending) != size % layout.block or size >= 1 << 60:
        raise InvalidHashState("a saved hash does not agree with its length")
    hasher = ResumableHasher(layout.algorithm, library)
    hasher.restore(tuple(words), size, pending)
    return hasher


def _find_library() -> ctypes.CDLL | None:
    """The libcrypto that hashlib itself uses, or the system's; None if neither passes the test."""
    for candidate in _candidates():
        try:
            library = ctypes.CDLL(candidate)
            if _passes_self_test(library):
                return library
        except (OSError, AttributeError):
            continue
    return None


def _candidates() -> Iterable[str]:
    try:
        import _hashlib

        yield _hashlib.__file__
    except (ImportError, AttributeError):
        pass
    found = ctypes.util.find_library("crypto")
    if found:
        yield found


def _passes_self_test(library: ctypes.CDLL) -> bool:
    data = bytes(range(256)) * 5
    for algorithm in _LAYOUTS:
        for cut in (0, 1, 63, 64, 65, 127, 128, 129, 1000):
            first = ResumableHasher(algorithm, library)
            first.update(data[:cut])
            second = _resume(first.state() or b"", library)
            second.update(memoryview(bytearray(data[cut:])))
            if second.digest().encoded != hashlib.new(algorithm, data).hexdigest():
                return False
    return True


_library = _find_library()
