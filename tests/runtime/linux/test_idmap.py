from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.linux import flags, idmap, syscalls
from runtime.linux.idmap import IdMaps, IdRange, MappingFailed
from tests.runtime.linux.forked import in_child


def test_ranges_of_a_user_by_name_and_by_number() -> None:
    content = b"""alice:100000:65536
1000:200000:10
bob:300000:65536
alice:bad:1
alice:1:2:3
alice:5:0
alice:4294967295:2
"""
    assert idmap.parse_subids(content, "alice", 1000) == ((100000, 65536), (200000, 10))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_fail(content: bytes) -> None:
    idmap.parse_subids(content, "a", 1)


def test_root_is_the_user_and_the_rest_their_subordinates() -> None:
    maps = idmap.plan_rootless(1000, 1001, [(100000, 10), (5, 3)], [(7, 2)], helpers=True)
    assert maps.uids == (IdRange(0, 1000, 1), IdRange(1, 100000, 10), IdRange(11, 5, 3))
    assert maps.gids == (IdRange(0, 1001, 1), IdRange(1, 7, 2))
    assert maps.by_helper and not maps.note and not maps.is_single


@pytest.mark.parametrize(
    ("subids", "helpers", "says"),
    [([], True, "/etc/subuid"), ([(1, 2)], False, "uidmap"), ([], False, "and a range")],
)
def test_what_is_missing_is_said(subids: list[tuple[int, int]], helpers: bool, says: str) -> None:
    maps = idmap.plan_rootless(1000, 1000, subids, subids, helpers=helpers)
    assert maps.is_single and not maps.by_helper and says in maps.note


@pytest.mark.parametrize("numbers", [(0, 0, 0), (-1, 0, 1), (0, -1, 1), (0, 1, 1 << 32)])
def test_impossible_ranges_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(MappingFailed):
        IdRange(*numbers)


def _ids_inside(maps: IdMaps, *, as_user: int = 0) -> tuple[str, str, int]:
    """uid_map, setgroups and uid as a child in a new user namespace sees them."""

    def outer() -> tuple[str, str, int]:
        if as_user:
            os.setgroups([])
            os.setgid(as_user)
            os.setuid(as_user)
            syscalls.prctl(flags.PR_SET_DUMPABLE, 1)  # else /proc/PID belongs to root
        ready, entered = os.pipe()
        mapped, go = os.pipe()
        answer, out = os.pipe()
        pid = os.fork()
        if pid == 0:
            syscalls.unshare(flags.CLONE_NEWUSER)
            os.write(entered, b"x")
            os.read(mapped, 1)
            uid_map = Path("/proc/self/uid_map").read_text()
            setgroups = Path("/proc/self/setgroups").read_text()
            os.write(out, repr((uid_map, setgroups, os.getuid())).encode())
            os._exit(0)
        os.read(ready, 1)
        try:
            idmap.write(pid, maps)
        finally:
            os.write(go, b"x")
        text = os.read(answer, 4096).decode()
        os.waitpid(pid, 0)
        result: tuple[str, str, int] = eval(text)
        return result

    return in_child(outer)


@pytest.mark.root
def test_an_ordinary_user_maps_only_themself_and_may_not_drop_groups() -> None:
    uid_map, setgroups, uid = _ids_inside(idmap.single(1234, 1234), as_user=1234)
    assert (uid_map.split(), setgroups.strip(), uid) == (["0", "1234", "1"], "deny", 0)


@pytest.mark.root
def test_root_maps_ranges_directly() -> None:
    maps = IdMaps((IdRange(0, 100000, 65536),), (IdRange(0, 100000, 65536),), by_helper=False)
    uid_map, setgroups, _ = _ids_inside(maps)
    assert (uid_map.split(), setgroups.strip()) == (["0", "100000", "65536"], "allow")


@pytest.mark.root
@pytest.mark.skipif(not idmap.find_helper("newuidmap"), reason="package uidmap is missing")
def test_newuidmap_refuses_what_is_not_in_subuid_and_we_say_so() -> None:
    maps = IdMaps((IdRange(0, 5, 100),), (IdRange(0, 5, 100),), by_helper=True)
    with pytest.raises(AssertionError, match="newuidmap failed with status 1"):
        _ids_inside(maps, as_user=1234)
