"""Store keys: the only names that reach a file system or a bucket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from registry.storage.base import StoreKey
from registry.storage.errors import InvalidStoreKey

DIGESTS = st.builds(Digest.of, st.binary(), st.sampled_from(["sha256", "sha512"]))


@given(st.builds(StoreKey, DIGESTS, st.integers(0, 10**18 - 1)))
def test_a_key_survives_its_text(key: StoreKey) -> None:
    assert StoreKey.parse(str(key)) == key


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidStoreKey):
        StoreKey.parse(text)


HEX = "ab" + "0" * 62


@pytest.mark.parametrize(
    "text",
    [
        f"blobs/sha256/ab/{HEX}.0",
        f"blobs/sha256/ab/{HEX}.01",
        f"blobs/sha256/ab/{HEX}.",
        f"blobs/sha256/ab/{HEX}\n",
        f"blobs/sha256/00/{HEX}",
        f"blobs/sha256/../{HEX}",
        f"/blobs/sha256/ab/{HEX}",
        f"blobs/sha512/ab/{HEX}",
        f"blobs/sha256/ab/{HEX.upper()}",
        f"blobs/md5/ab/{HEX}",
    ],
)
def test_a_near_miss_is_refused(text: str) -> None:
    with pytest.raises(InvalidStoreKey):
        StoreKey.parse(text)


def test_generation_zero_has_no_suffix() -> None:
    key = StoreKey(Digest("sha256", HEX))
    assert str(key) == f"blobs/sha256/ab/{HEX}"
    assert str(StoreKey(key.digest, 3)) == f"blobs/sha256/ab/{HEX}.3"
