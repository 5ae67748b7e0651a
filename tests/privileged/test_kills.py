"""`kill -9` of our own process at any moment: the next command leaves nothing behind."""

from __future__ import annotations

import os
import random
import subprocess
import time

import pytest

from tests.builders.pyreg import Pyreg

pytestmark = pytest.mark.root

KILLS = int(os.environ.get("PYREG_TEST_KILLS", "40"))


@pytest.mark.parametrize("words", [["--rm"], ["--rm", "-d"], ["--rm", "-v", "/v"]], ids=" ".join)
def test_random_kills(engine: Pyreg, words: list[str]) -> None:
    before, cgroups = engine.leftovers(), set(_cgroups())
    chance = random.Random(1)
    started = time.monotonic()
    engine("run", *words, "bb", "sleep", "0.01")
    length_s = time.monotonic() - started
    for _ in range(KILLS):
        process = engine.begin(
            "run",
            *words,
            "bb",
            "sleep",
            "0.02",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.2, 1.1) * length_s)
        process.kill()
        process.wait()
    deadline = time.monotonic() + 10
    while True:
        _forget_time(engine)
        engine("ps", "-a")
        left = [found for found in engine.leftovers() if found not in before]
        if (not left and not set(_cgroups()) - cgroups) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert left == []
    assert set(_cgroups()) - cgroups == set()
    assert not _processes(engine)


def _forget_time(engine: Pyreg) -> None:
    """What is half made is given a minute; make it older than that."""
    directory = f"{engine.root}/run/containers"
    for name in os.listdir(directory):
        os.utime(f"{directory}/{name}", (0, 0))


def _processes(engine: Pyreg) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if engine.root.encode() in file.read():
                    found.append(pid)
        except OSError:
            continue
    return found


def _cgroups() -> list[str]:
    found = []
    for hierarchy in os.listdir("/sys/fs/cgroup"):
        parent = f"/sys/fs/cgroup/{hierarchy}/pyreg"
        if os.path.isdir(parent):
            found += [f"{parent}/{name}" for name in os.listdir(parent) if len(name) == 64]
    return found
