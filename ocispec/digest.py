"""Content digests: `sha256:…` and `sha512:…`."""

from __future__ import annotations

import re

from ocispec import grammar
from ocispec.errors import DigestMismatch, InvalidDigest
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar, Protocol

    class Hasher(Protocol):
        """What `hashlib` makes: feed it with `update`, read it as often as wanted."""

        @property
        def name(self) -> str: ...
        def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
        def hexdigest(self) -> str: ...


# Hexadecimal characters of each algorithm we know.
SIZES: Mapping[str, int] = {"sha256": 64, "sha512": 128}


@value
class Digest:
    """The name of some bytes: who has the digest can check the bytes.

    algorithm: `sha256` or `sha512`; nothing else is registered.
    encoded: the hash in lower-case hexadecimal, of exactly the algorithm's length.

    The constructor checks like `parse`. Spec: image-spec descriptor.md, "Digests".
    """

    algorithm: str
    encoded: str

    SIZES: ClassVar[Mapping[str, int]] = SIZES

    def __post_init__(self) -> None:
        _check(self.algorithm, self.encoded)

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `algorithm:encoded`. Raises: InvalidDigest, for anything else."""
        algorithm, colon, encoded = text.partition(":")
        if not colon:
            raise InvalidDigest(
                f"digest {_shown(text)} has no algorithm", hint="write sha256:<64 hex digits>"
            )
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes | bytearray | memoryview, algorithm: str = "sha256") -> Digest:
        """The digest of bytes that are all in memory."""
        hasher = new_hasher(algorithm)
        hasher.update(data)
        return cls.from_hasher(hasher)

    @classmethod
    def from_hasher(cls, hasher: Hasher) -> Digest:
        """The digest of what a hasher has been fed so far."""
        return cls(hasher.name, hasher.hexdigest())

    def hasher(self) -> Hasher:
        """A new, empty hasher of this digest's algorithm."""
        return new_hasher(self.algorithm)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.encoded}"


def new_hasher(algorithm: str) -> Hasher:
    """An empty hasher. Raises: InvalidDigest for an algorithm that is not registered."""
    if algorithm not in SIZES:
        raise InvalidDigest(
            f"digest algorithm {algorithm[:32]!r} is not supported",
            hint=f"use one of {', '.join(SIZES)}",
        )
    import hashlib  # here, because starting a container computes no hash

    return hashlib.new(algorithm, usedforsecurity=False)


def verify(data: bytes | bytearray | memoryview, digest: Digest, what: str = "content") -> None:
    """Raises: DigestMismatch unless `data` has this digest; `what` names it in the message."""
    found = Digest.of(data, digest.algorithm)
    if found != digest:
        raise DigestMismatch(expected=digest, found=found, what=what)


def _check(algorithm: str, encoded: str) -> None:
    size = SIZES.get(algorithm)
    if size is not None and len(encoded) == size and re.fullmatch(grammar.ENCODED, encoded):
        return
    text = _shown(f"{algorithm}:{encoded}")
    if size is None:
        raise InvalidDigest(
            f"digest {text} uses an algorithm that is not supported",
            hint=f"use one of {', '.join(SIZES)}",
        )
    if len(encoded) != size:
        raise InvalidDigest(
            f"digest {text} has {len(encoded)} characters after the colon, {algorithm} has {size}"
        )
    raise InvalidDigest(f"digest {text} may only contain 0-9 and a-f after the colon")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 160 else text[:160] + "...")
