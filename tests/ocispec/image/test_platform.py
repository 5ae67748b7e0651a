from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import InvalidName
from ocispec.image.manifest import new_index
from ocispec.image.platform import Platform, select
from ocispec.mediatype import OCI_MANIFEST
from tests.ocispec.strategies import platforms


@given(platforms)
def test_text_reads_back(platform: Platform) -> None:
    assert Platform.parse(str(platform)) == platform


@given(st.text())
def test_any_text_is_a_platform_or_refused(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except InvalidName:
        return
    assert Platform.parse(str(platform)) == platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("linux/x86_64", Platform("linux", "amd64")),
        ("Linux/AARCH64", Platform("linux", "arm64")),
        ("linux/armhf", Platform("linux", "arm", "v7")),
        ("linux/armel", Platform("linux", "arm", "v6")),
        ("linux/i686", Platform("linux", "386")),
    ],
)
def test_as_people_type_it(text: str, expected: Platform) -> None:
    assert Platform.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd64\n", "linux/ä", "a/" * 1000]
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidName, match="is not a platform") as caught:
        Platform.parse(text)
    assert "linux/arm64" in caught.value.hint


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        ("x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("armv7l", "linux/arm/v7"),
        ("armv6l", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("riscv64", "linux/riscv64"),
        ("s390x", "linux/s390x"),
    ],
)
def test_machine_names(machine: str, expected: str) -> None:
    assert str(Platform.of_machine(machine)) == expected


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64", "linux/arm64/8", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64", "linux/amd64/v3", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/amd64", "linux/arm64", False),
    ],
)
def test_matches_both_ways(one: str, other: str, same: bool) -> None:
    assert Platform.parse(one).matches(Platform.parse(other)) is same
    assert Platform.parse(other).matches(Platform.parse(one)) is same


def test_a_version_of_the_system_counts_if_both_have_one() -> None:
    windows = Platform("windows", "amd64", os_version="10.0.17763")
    assert windows.matches(Platform("windows", "amd64"))
    assert not windows.matches(Platform("windows", "amd64", os_version="10.0.20348"))


def entry(platform: str | None) -> Descriptor:
    return Descriptor(
        OCI_MANIFEST,
        Digest.of(repr(platform).encode()),
        1,
        platform=None if platform is None else Platform.parse(platform),
    )


@pytest.mark.parametrize(
    ("offered", "wanted", "expected", "description"),
    [
        (["linux/arm64", "linux/amd64"], "linux/amd64", "linux/amd64", "the same"),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", "linux/amd64", "not a newer variant"),
        (["linux/amd64/v3"], "linux/amd64", None, "nothing the processor may not run"),
        (["linux/amd64", "linux/amd64/v2"], "linux/amd64/v3", "linux/amd64/v2", "newest first"),
        (["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7", "linux/arm/v7", "same variant"),
        (["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", "linux/arm/v6", "next older variant"),
        (["linux/arm/v7"], "linux/arm/v6", None, "no newer variant"),
        (["linux/arm/v7", "linux/arm64/v8"], "linux/arm64", "linux/arm64/v8", "64 bits first"),
        (["linux/arm/v7"], "linux/arm64", "linux/arm/v7", "32 bits on a 64-bit processor"),
        (["linux/386"], "linux/amd64", "linux/386", "32 bits on a 64-bit processor"),
        (["unknown/unknown", "linux/amd64"], "linux/amd64", "linux/amd64", "attestations"),
        (["unknown/unknown"], "linux/amd64", None, "only attestations"),
        (["windows/amd64"], "linux/amd64", None, "another system"),
        ([], "linux/amd64", None, "empty index"),
    ],
)
def test_select(offered: list[str], wanted: str, expected: str | None, description: str) -> None:
    index = new_index([entry(platform) for platform in offered])
    chosen = select(index, Platform.parse(wanted))
    assert chosen == (None if expected is None else entry(expected))


def test_an_only_entry_without_platform_is_taken() -> None:
    wanted = Platform("linux", "amd64")
    assert select(new_index([entry(None)]), wanted) == entry(None)
    assert select(new_index([entry(None), entry("linux/arm64")]), wanted) is None
    assert select(new_index([entry(None), entry("linux/amd64")]), wanted) == entry("linux/amd64")


def test_the_first_of_equals_wins() -> None:
    first = entry("linux/amd64")
    second = Descriptor(OCI_MANIFEST, Digest.of(b"second"), 1, platform=first.platform)
    assert select(new_index([first, second]), Platform("linux", "amd64")) == first
