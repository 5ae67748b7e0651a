from __future__ import annotations

import resource

import pytest

from runtime.errors import EngineError
from runtime.linux import rlimits
from runtime.linux.rlimits import InvalidLimit, ResourceLimit
from tests.runtime.linux.forked import in_child


@pytest.mark.parametrize("name", [n for n in dir(resource) if n.startswith("RLIMIT_")])
def test_numbers_are_those_of_the_c_library(name: str) -> None:
    if name not in ("RLIMIT_OFILE",):  # another name of NOFILE
        assert rlimits.NUMBERS[name] == getattr(resource, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nofile=1024", ("RLIMIT_NOFILE", 1024, 1024)),
        ("nofile=1024:4096", ("RLIMIT_NOFILE", 1024, 4096)),
        ("core=-1", ("RLIMIT_CORE", -1, -1)),
        ("nproc=5:-1", ("RLIMIT_NPROC", 5, -1)),
    ],
)
def test_ulimit_notation(text: str, expected: tuple[str, int, int]) -> None:
    assert ResourceLimit.parse(text) == ResourceLimit(*expected)


@pytest.mark.parametrize(
    "text", ["", "nofile", "nofile=", "nofile=a", "wings=3", "nofile=9:3", "nofile=-1:3", "cpu=-2"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidLimit):
        ResourceLimit.parse(text)


def test_runtime_spec_writes_unlimited_as_the_largest_number() -> None:
    assert ResourceLimit.of("RLIMIT_CORE", 0, (1 << 64) - 1) == ResourceLimit("RLIMIT_CORE", 0, -1)


def test_a_limit_is_set_on_this_process() -> None:
    def limited() -> tuple[int, int]:
        rlimits.apply(ResourceLimit("RLIMIT_NOFILE", 64, 128))
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert in_child(limited) == (64, 128)


def test_raising_beyond_what_is_allowed_says_so() -> None:
    def refused() -> str:
        rlimits.apply(ResourceLimit("RLIMIT_NOFILE", 64, 64))
        try:
            import os

            os.setuid(65534)
        except PermissionError:
            pass
        try:
            rlimits.apply(ResourceLimit("RLIMIT_NOFILE", 64, 1 << 20))
        except EngineError as error:
            return f"{error} | {error.hint}"
        return ""

    assert "RLIMIT_NOFILE" in (text := in_child(refused)) and "CAP_SYS_RESOURCE" in text
