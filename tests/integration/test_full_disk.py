"""A disk without space: one clear line, what was there stays, and with space the same works."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.digest import Digest
from tests.builders.machine import Machine
from tests.builders.raw import RawRegistry, raw_image
from tests.builders.rootfs import archive, busybox_tree
from tests.builders.servers import PASSWORD, USER, Server, start_pyreg
from tests.integration.conftest import MakeMachine

pytestmark = pytest.mark.root
MIB = 1 << 20


class Disk:
    """A small disk of its own, of which a file takes what a test wants taken."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def free(self) -> int:
        state = os.statvfs(self.path)
        return state.f_bavail * state.f_frsize

    def leave(self, free: int) -> None:
        """Fill it up to so many free bytes."""
        with open(self.path / "filler", "ab", buffering=0) as file:
            while self.free > free:
                file.write(bytes(max(4096, min(MIB, self.free - free)) & ~4095))

    def release(self) -> None:
        (self.path / "filler").unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    options = "size=192m,mode=0755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "pyreg-test", path], check=True)
    yield Disk(path)
    subprocess.run(["umount", path], check=True)


@pytest.fixture
def small_machine(disk: Disk, new_machine: MakeMachine) -> Iterator[Machine]:
    """Its data is on the small disk, with one image that works."""
    machine = new_machine(root=disk.path / "data")
    machine.load("good/app")
    assert machine("run", "--rm", "good/app", "echo", "fine").out == "fine\n"
    yield machine
    machine("rm", "-f", *machine("ps", "-aq").lines, status=None)


# So much of a disk is left free by what can be foreseen; what cannot, fills it.
RESERVE = 64 * MIB


def coarse(count: int) -> dict[str, bytes]:
    """So many files of 1 MiB that compress well, but not as well as a bomb."""
    return {f"coarse{n}": random.Random(n).randbytes(4 << 10) * 256 for n in range(count)}


def assert_others_are_fine(machine: Machine) -> None:
    assert machine.names() == ["good/app:latest"]
    assert machine.half_unpacked() == [] and machine.container_ids() == set()
    assert machine("run", "--rm", "good/app", "echo", "fine").out == "fine\n"


def test_pull_of_what_cannot_fit_fetches_nothing(
    disk: Disk, small_machine: Machine, raw: RawRegistry
) -> None:
    noise = archive({"noise": random.Random(1).randbytes(8 * MIB)})
    raw.put_image("full/noise", "latest", raw_image(archive(busybox_tree()), noise))
    disk.leave(RESERVE + 6 * MIB)
    for words, status in [(("pull", "full/noise"), 1), (("run", "full/noise", "true"), 125)]:
        done = small_machine(*words, status=status)
        assert "space" in done.error, done.err
        assert disk.free > RESERVE + 5 * MIB
        assert_others_are_fine(small_machine)
    disk.release()
    small_machine("pull", "full/noise")
    done = small_machine("run", "--rm", "full/noise", "wc", "-c", "/noise")
    assert done.out.split()[0] == str(8 * MIB)


def test_pull_that_fills_the_disk_while_it_unpacks(
    disk: Disk, small_machine: Machine, raw: RawRegistry
) -> None:
    tree = archive(coarse(80))
    packed = gzip.compress(tree, 1)
    base = archive(busybox_tree())
    raw.put_image("full/zeros", "latest", raw_image(base, packed, diffs=(base, tree)))
    disk.leave(RESERVE + 10 * MIB)
    done = small_machine("pull", "full/zeros", status=1)
    assert "no space left" in done.error.lower(), done.err
    assert_others_are_fine(small_machine)
    disk.release()
    small_machine("pull", "full/zeros")
    assert small_machine("run", "--rm", "full/zeros", "ls", "/").out.count("coarse") == 80


def test_pull_that_fills_the_disk_while_it_downloads(
    disk: Disk, small_machine: Machine, raw: RawRegistry
) -> None:
    """The layer is unpacked already, from a smaller blob: nothing foresees that this one is big."""
    tree = archive(coarse(12))
    raw.put_image("full/small", "latest", raw_image(gzip.compress(tree, 1), diffs=(tree,)))
    raw.put_image("full/large", "latest", raw_image(tree))
    small_machine("pull", "full/small")
    disk.leave(8 * MIB)
    done = small_machine("pull", "full/large", status=1)
    assert "no space left" in done.error.lower(), done.err
    assert "full/large:latest" not in small_machine.names()
    disk.release()
    small_machine("pull", "full/large")
    small_machine("rmi", "full/large", "full/small")
    assert_others_are_fine(small_machine)


def test_import_and_the_unpacking_of_run(disk: Disk, small_machine: Machine) -> None:
    noise = archive({**busybox_tree(), "noise": random.Random(2).randbytes(8 * MIB)})
    disk.leave(6 * MIB)
    done = small_machine("import", "-", "full/imported", given=noise, status=1)
    assert "no space left" in done.error.lower(), done.err
    assert_others_are_fine(small_machine)
    disk.release()
    assert list((small_machine.root / "images/ingest").iterdir()) == []
    disk.leave(RESERVE + 10 * MIB)
    tree = archive({**busybox_tree(), **coarse(80)})
    small_machine("import", "-", "full/imported", given=tree)  # a small blob
    done = small_machine("run", "--rm", "full/imported", "true", status=125)
    assert "no space left" in done.error.lower(), done.err
    assert small_machine.half_unpacked() == [] and small_machine.container_ids() == set()
    disk.release()
    assert small_machine("run", "--rm", "full/imported", "echo", "now").out == "now\n"


def test_a_disk_without_a_single_byte(disk: Disk, small_machine: Machine) -> None:
    """Reading commands work; those that must write say why they cannot."""
    disk.leave(0)
    assert small_machine.names() == ["good/app:latest"]
    assert small_machine("ps", "-a").lines[1:] == []
    for words, status in [
        (("run", "--rm", "good/app", "true"), 125),
        (("run", "-d", "good/app", "true"), 125),
        (("tag", "good/app", "other/name"), 1),
        (("import", "-", "other/app"), 1),
    ]:
        done = small_machine(*words, given=archive(busybox_tree()), status=status)
        assert "space" in done.error.lower(), (words, done.err)
    disk.release()
    assert_others_are_fine(small_machine)


@pytest.fixture
def small_registry(disk: Disk) -> Iterator[Server]:
    server = start_pyreg(disk.path / "serve")
    yield server
    server.stop()
    assert "Traceback" not in server.log.read_text(), server.log.read_text()


def test_push_to_a_full_registry(
    disk: Disk, small_registry: Server, new_machine: MakeMachine
) -> None:
    machine = new_machine(small_registry.host)
    machine.load("before/app")
    digest = machine("push", "before/app").out.split()[2]
    noise = random.Random(3).randbytes(8 * MIB)
    machine.load("full/app", files={"noise": noise})
    disk.leave(5 * MIB)
    done = machine("push", "full/app", status=1)
    assert "507" in done.error and "space" in done.error, done.err
    other = new_machine(small_registry.host)
    assert other("pull", "before/app").lines[0] == f"Digest: {digest}"
    assert other("run", "--rm", "before/app", "echo", "fine").out == "fine\n"
    raw = RawRegistry(small_registry.port)
    assert raw.tags("full/app") == []
    disk.release()
    pushed = machine("push", "full/app").out.split()[2]
    assert other("pull", f"full/app@{pushed}").lines[0] == f"Digest: {pushed}"
    raw.close()


def test_a_registry_without_a_single_byte(disk: Disk, small_registry: Server) -> None:
    """Not even the database can write: it says so by 507 or 503, and goes on serving."""
    raw = RawRegistry(small_registry.port, USER, PASSWORD)
    image = raw_image(archive({"a": "x" * 100}))
    raw.put_image("before/app", "v1", image)
    where = raw.begin_upload("before/app")
    disk.leave(0)
    joint = "&" if "?" in where else "?"
    blob = os.urandom(100_000)
    for answer in (
        raw.ask("PUT", f"{where}{joint}digest={Digest.of(blob)}", blob),
        raw.ask("POST", "/v2/before/app/blobs/uploads/", b""),
        raw.put_manifest("before/app", "v2", image.manifest),
    ):
        # SQLite may still find room in its journal for a small change.
        assert answer.status in (503, 507, 201, 202), answer
        if answer.status > 500:
            assert answer.codes == ["UNAVAILABLE"]
    raw.assert_whole("before/app", "v1", image)
    disk.release()
    raw.put_image("before/app", "v3", image)
    raw.assert_whole("before/app", "v3", image)
    assert raw.put_blob("before/app", blob).status == 201
    raw.close()
