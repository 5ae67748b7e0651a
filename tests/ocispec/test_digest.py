from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import SIZES, Digest, verify
from ocispec.errors import DigestMismatch, InvalidDigest
from tests.ocispec.strategies import digests

HEX = "0123456789abcdef" * 4


@given(digests)
def test_text_reads_back(digest: Digest) -> None:
    assert Digest.parse(str(digest)) == digest


@given(st.text())
def test_any_text_is_a_digest_or_refused(text: str) -> None:
    try:
        assert str(Digest.parse(text)) == text
    except InvalidDigest:
        pass


@pytest.mark.parametrize(
    ("text", "message", "description"),
    [
        ("", "has no algorithm", "empty"),
        (HEX, "has no algorithm", "only the hash"),
        (f"md5:{HEX[:32]}", "not supported", "unregistered algorithm"),
        (f"SHA256:{HEX}", "not supported", "algorithm in capitals"),
        (f":{HEX}", "not supported", "no algorithm before the colon"),
        ("sha256:", "has 0 characters", "no hash"),
        (f"sha256:{HEX[:-1]}", "has 63 characters", "one short"),
        (f"sha256:{HEX}0", "has 65 characters", "one long"),
        (f"sha512:{HEX}", "has 64 characters", "length of the other algorithm"),
        (f"sha256:{HEX.upper()}", "may only contain", "hexadecimal in capitals"),
        (f"sha256:{HEX[:-1]}g", "may only contain", "not hexadecimal"),
        (f"sha256:{HEX[:-1]}\n", "may only contain", "newline at the end, as `$` would allow"),
        (f"sha256:{HEX[:-1]}\u0661", "may only contain", "a digit, but not of ASCII"),
        (f"sha256:{HEX[:-3]}../", "may only contain", "a path"),
        (f"sha256:{HEX}\n", "has 65 characters", "newline after the end"),
        ("sha256:" + "a" * 10**6, "has 1000000 characters", "endless"),
    ],
)
def test_refused(text: str, message: str, description: str) -> None:
    with pytest.raises(InvalidDigest, match=message) as caught:
        Digest.parse(text)
    assert len(str(caught.value)) < 300, "the message repeats no endless input"
    assert str(caught.value).isascii() and str(caught.value).isprintable()


def test_the_constructor_checks_too() -> None:
    with pytest.raises(InvalidDigest):
        Digest("sha256", "../../etc/passwd")


@pytest.mark.parametrize("algorithm", list(SIZES))
def test_of_and_hashers_agree_with_hashlib(algorithm: str) -> None:
    encoded = hashlib.new(algorithm, b"data").hexdigest()
    digest = Digest.of(b"data", algorithm)
    assert digest == Digest(algorithm, encoded)
    hasher = digest.hasher()
    hasher.update(b"da")
    hasher.update(memoryview(b"ta"))
    assert Digest.from_hasher(hasher) == digest
    assert Digest.SIZES[algorithm] == len(encoded)


def test_of_an_unknown_algorithm() -> None:
    with pytest.raises(InvalidDigest, match="md5"):
        Digest.of(b"", "md5")


def test_verify() -> None:
    verify(b"data", Digest.of(b"data", "sha512"))
    with pytest.raises(DigestMismatch, match="layer 3 has digest sha256:") as caught:
        verify(b"other", Digest.of(b"data"), what="layer 3")
    assert caught.value.expected == Digest.of(b"data")
    assert caught.value.found == Digest.of(b"other")
