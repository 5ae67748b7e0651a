"""Races of starts against somebody who rewrites the directories they mount into, a while of each.

The attacker is a process of the host: it is faster than a second container and may do more.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.builders.pyreg import Pyreg
from tests.builders.rootfs import busybox_tree

pytestmark = pytest.mark.root

ROUND_S = 2.5

_SWAP = """
import ctypes, sys
exchange = ctypes.CDLL(None).renameat2  # RENAME_EXCHANGE: never a moment without the name
one, two = (name.encode() for name in sys.argv[1:])
while True:
    exchange(-100, one, -100, two, 2)
"""


@contextmanager
def swapping(one: Path, two: Path) -> Iterator[None]:
    """Two names exchange what they are, as fast as the kernel does it."""
    attacker = subprocess.Popen([sys.executable, "-c", _SWAP, str(one), str(two)])
    try:
        yield
    finally:
        attacker.kill()
        attacker.wait()


def _listing(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def starts(engine: Pyreg, *words: str) -> list[subprocess.CompletedProcess[str]]:
    """As many as fit in the time; each may fail, cleanly."""
    done = []
    deadline = time.monotonic() + ROUND_S
    while time.monotonic() < deadline:
        done.append(engine("run", "--rm", *words))
    assert len(done) > 3
    assert {one.returncode for one in done} <= {0, 125, 127}  # 127: the working directory went away
    assert not any("internal error" in one.stderr for one in done)
    return done


@pytest.mark.parametrize("deep", ["", "/made/deep"])
def test_cve_2021_30465_target_in_a_shared_volume_is_swapped_for_a_link(
    engine: Pyreg, tmp_path: Path, deep: str
) -> None:
    """Also CVE-2024-45310: the missing part of the target is not made on the host."""
    shared, victim, source = tmp_path / "shared", tmp_path / "victim", tmp_path / "source"
    for directory in (shared / "a", victim, source):
        directory.mkdir(parents=True)
    (source / "marker").write_text("x")
    (shared / "b").symlink_to(victim)
    with swapping(shared / "a", shared / "b"):
        starts(
            engine, "-v", f"{shared}:/shared", "-v", f"{source}:/shared/a{deep}", "bb", "true"
        )  # fmt: skip
    assert _listing(victim) == []
    with open("/proc/self/mountinfo") as mounts:
        assert str(tmp_path) not in mounts.read()


def test_cve_2024_45310_a_file_target_is_swapped_for_a_link(engine: Pyreg, tmp_path: Path) -> None:
    shared, victim, source = tmp_path / "shared", tmp_path / "victim", tmp_path / "source"
    (shared / "a").mkdir(parents=True)
    victim.mkdir()
    source.write_text("x")
    (shared / "b").symlink_to(victim)
    with swapping(shared / "a", shared / "b"):
        starts(engine, "-v", f"{shared}:/shared", "-v", f"{source}:/shared/a/file", "bb", "true")
    assert _listing(victim) == []


def test_cve_2025_31133_a_volume_over_dev_swaps_null_for_a_link(
    engine: Pyreg, tmp_path: Path
) -> None:
    """What masks /proc/keys is the null device or the start is refused; nothing else is shown."""
    shared = tmp_path / "dev"
    shared.mkdir()
    os.mknod(shared / "null", 0o666 | 0o020000, os.makedev(1, 3))
    (shared / "other").symlink_to("/proc/sys/kernel/core_pattern")
    engine.load("devs", busybox_tree())
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    script = "test -c /proc/keys && ! test -s /proc/timer_list && ! echo x > /proc/kcore/x"
    with swapping(shared / "null", shared / "other"):
        starts(engine, "-v", f"{shared}:/dev", "devs", "sh", "-c", script)
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_the_working_directory_is_swapped_for_a_link(engine: Pyreg, tmp_path: Path) -> None:
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    (shared / "a").mkdir(parents=True)
    victim.mkdir()
    (shared / "b").symlink_to(victim)
    with swapping(shared / "a", shared / "b"):
        starts(engine, "-v", f"{shared}:/shared", "-w", "/shared/a/made", "bb", "touch", "x")
    assert _listing(victim) == []
