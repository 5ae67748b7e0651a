"""Names, sets, Docker's rules for adding and dropping, and the real thing in a child."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.linux import capabilities
from tests.runtime.linux.forked import in_child


def test_names_and_numbers_are_the_kernels() -> None:
    assert len(capabilities.NAMES) == 41
    assert capabilities.NUMBERS["CAP_CHOWN"] == 0
    assert capabilities.NUMBERS["CAP_SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CAP_CHECKPOINT_RESTORE"] == 40


def test_dockers_default_is_the_well_known_mask() -> None:
    assert capabilities.mask(capabilities.DEFAULT) == 0xA80425FB
    assert set(capabilities.names(0xA80425FB)) == set(capabilities.DEFAULT)


@pytest.mark.parametrize("name", ["net_admin", "NET_ADMIN", "CAP_NET_ADMIN", " cap_net_admin "])
def test_a_name_may_be_written_in_several_ways(name: str) -> None:
    assert capabilities.parse(name) == "CAP_NET_ADMIN"


def test_an_unknown_name_is_an_error_with_advice() -> None:
    with pytest.raises(capabilities.CapabilityUnknown, match="FLY") as failure:
        capabilities.mask(["FLY"])
    assert "NET_ADMIN" in failure.value.hint


@pytest.mark.parametrize(
    ("add", "drop", "expected", "why"),
    [
        ([], [], ["CHOWN", "KILL"], "the base"),
        (["NET_ADMIN"], [], ["CHOWN", "KILL", "NET_ADMIN"], "one more"),
        ([], ["KILL"], ["CHOWN"], "one less"),
        (["SYS_TIME"], ["ALL"], ["SYS_TIME"], "dropping all leaves what is added"),
        (["kill"], ["kill"], ["CHOWN", "KILL"], "added wins over dropped"),
        ([], ["ALL"], [], "nothing"),
    ],
)
def test_adding_and_dropping_follow_docker(
    add: list[str], drop: list[str], expected: list[str], why: str
) -> None:
    result = capabilities.adjust(["CAP_CHOWN", "CAP_KILL"], add, drop)
    assert result == tuple(f"CAP_{name}" for name in expected), why


def test_adding_all_less_one() -> None:
    result = capabilities.adjust([], ["ALL"], ["SYS_ADMIN"])
    assert len(result) == 40 and "CAP_SYS_ADMIN" not in result


def test_last_cap_is_what_the_kernel_publishes() -> None:
    published = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert capabilities.last_cap() == published


def _status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line[3:6]: int(line[8:], 16) for line in lines if line.startswith("Cap")}


@pytest.mark.root
def test_cve_2022_24769_nothing_inheritable_or_ambient_is_left() -> None:
    def confined() -> tuple[dict[str, int], int]:
        capabilities.confine(capabilities.mask(["CHOWN", "KILL"]))
        return _status(), capabilities.bounding()

    status, bounding = in_child(confined)
    kept = capabilities.mask(["CHOWN", "KILL"])
    assert status == {"Inh": 0, "Prm": kept, "Eff": kept, "Bnd": kept, "Amb": 0}
    assert bounding == kept


@pytest.mark.root
def test_ambient_can_be_raised_on_request() -> None:
    kill = capabilities.mask(["KILL"])

    def raised() -> int:
        capabilities.set_all(kill, kill, inheritable=kill, ambient=kill)
        return _status()["Amb"]

    assert in_child(raised) == kill
