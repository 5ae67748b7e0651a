"""`kill -9` of the command at random moments: the next one works, and nothing is left over."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.builders.machine import Machine
from tests.builders.proxy import proxy
from tests.builders.raw import RawRegistry, raw_image
from tests.builders.rootfs import archive, busybox_tree
from tests.builders.servers import Server
from tests.crash.conftest import SEED, kills
from tests.integration.conftest import MakeMachine

pytestmark = pytest.mark.root
KILLS = kills(8)
MIB = 1 << 20


def assert_alone(machine: Machine, ids: set[str] | None = None) -> None:
    """No process, mount, cgroup or half-unpacked layer of the killed command is left.

    Its helpers notice within a moment that it is gone.
    """
    deadline = time.monotonic() + 10
    while (left := machine.leftovers(ids or set())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def test_pull(new_machine: MakeMachine, registry: Server, raw: RawRegistry) -> None:
    moment = random.Random(f"{SEED} pull")
    base = archive(busybox_tree())
    layers = [archive({f"n{n}": moment.randbytes(MIB)}) for n in range(3)]
    raw.put_image("killed/pull", "latest", raw_image(base, *layers, cmd=("ls", "/")))
    with proxy(registry.port, bytes_per_s=4 * MIB) as slow:
        machine = new_machine(slow.host)
        for _ in range(KILLS):
            pulling = machine.begin("pull", "killed/pull")
            time.sleep(moment.uniform(0.05, 0.9))
            pulling.kill()
            pulling.end()
            assert_alone(machine)
            assert machine.names() in ([], ["killed/pull:latest"])
            if machine.names():
                assert "n2" in machine("run", "--rm", "killed/pull").out
                machine("rmi", "killed/pull")
        slow.bytes_per_s = 0
        machine("pull", "killed/pull")
    assert "n2" in machine("run", "--rm", "killed/pull").out
    assert machine.half_unpacked() == []
    assert list((machine.root / "images/ingest").iterdir()) == []
    machine("rmi", "killed/pull")
    assert machine.unpacked() == []
    assert list((machine.root / "images/blobs/sha256").iterdir()) == []


def test_push(new_machine: MakeMachine, registry: Server, raw: RawRegistry) -> None:
    moment = random.Random(f"{SEED} push")
    with proxy(registry.port, bytes_per_s=4 * MIB) as slow:
        machine = new_machine(slow.host)
        for kill in range(KILLS):
            name = f"killed/push:v{kill}"
            machine.load(name, files={"noise": moment.randbytes(MIB), "n": str(kill)})
            pushing = machine.begin("push", name)
            time.sleep(moment.uniform(0.05, 0.5))
            pushing.kill()
            pushing.end()
            assert_alone(machine)
            if f"v{kill}" in raw.tags("killed/push"):
                new_machine()("pull", "-q", name)  # then all of it is there
        slow.bytes_per_s = 0
        machine("push", "-a", "killed/push")
    other = new_machine()
    other("pull", "-a", "-q", "killed/push")
    for kill in range(KILLS):
        assert other("run", "--rm", f"killed/push:v{kill}", "cat", "/n").out == str(kill)


def test_import(machine: Machine) -> None:
    moment = random.Random(f"{SEED} import")
    machine.load("whole/app")
    for kill in range(KILLS):
        tree = {**busybox_tree(), "noise": moment.randbytes(2 * MIB), "n": str(kill)}
        (machine.home / "rootfs.tar").write_bytes(archive(tree))
        words = ("import", str(machine.home / "rootfs.tar"), "killed/import")
        importing = machine.begin(*words)
        time.sleep(moment.uniform(0.05, 0.4))
        importing.kill()
        importing.end()
        assert_alone(machine)
        names = machine.names()
        assert names in (["killed/import:latest", "whole/app:latest"], ["whole/app:latest"])
        if "killed/import:latest" in names:
            done = machine("run", "--rm", "killed/import", "cat", "/n")
            assert done.out == str(kill)
            machine("rmi", "killed/import")
        machine(*words)
        assert machine("run", "--rm", "killed/import", "cat", "/n").out == str(kill)
        machine("rmi", "killed/import")
    assert machine("run", "--rm", "whole/app", "echo", "fine").out == "fine\n"


@pytest.mark.parametrize("flags", [("--rm",), (), ("-d",)], ids=["rm", "kept", "detached"])
def test_run(machine: Machine, flags: tuple[str, ...]) -> None:
    """A quarter of the kills meets the unpacking of a fresh image, too."""
    moment = random.Random(f"{SEED} {flags}")
    marker = f"{moment.randrange(10**8, 10**9)}"  # how long it sleeps: its name among processes
    machine.load("killed/run")
    for kill in range(KILLS):
        if kill % 4 == 0:
            machine.load("killed/run", files={"noise": moment.randbytes(MIB)})
        words = ("run", *flags, "--name", "job", "killed/run", "sh", "-c", f"sleep {marker} & wait")
        running = machine.begin(*words)
        time.sleep(moment.uniform(0.02, 0.35))
        running.kill()
        running.end()
        ids = machine.container_ids()
        # Any next command that changes containers finishes what was left.
        found = machine("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}}").lines
        if "-d" not in flags:
            assert not [line for line in found if line.endswith("running")], found
        if found:
            machine("rm", "-f", *(line.split()[0] for line in found))
        # One that was killed before it was written down is in no list; it must block nothing.
        assert machine("run", "--rm", "--name", "job", "killed/run", "echo", "next").out == "next\n"
        assert processes_with(marker) == [], "the container outlived its supervisor"
        assert_alone(machine, ids)
        assert machine.half_unpacked() == []
    assert machine("run", "--name", "job", "killed/run", "echo", "again").out == "again\n"
    machine("rm", "job")


def processes_with(word: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if word.encode() in words:
            found.append(words.decode(errors="replace"))
    return found
