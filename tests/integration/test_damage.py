"""Bytes that change or stop on the way: found, said in one line, and nothing half is visible."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ocispec.digest import Digest
from tests.builders.machine import Machine
from tests.builders.proxy import proxy
from tests.builders.raw import RawImage, RawRegistry, raw_image
from tests.builders.rootfs import archive, busybox_tree
from tests.builders.servers import Server
from tests.integration.conftest import MakeMachine

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture
def image(request: pytest.FixtureRequest) -> RawImage:
    """busybox, and a layer of 3 MiB that nothing compresses; other bytes in each test."""
    noise = random.Random(request.node.name).randbytes(3 * MIB)
    return raw_image(archive(busybox_tree()), archive({"noise": noise}), cmd=("echo", "whole"))


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def flip_a_byte(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x40]))


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def blob_of_the_registry(server: Server, digest: Digest) -> Path:
    directory = server.log.parent / "registry"
    (found,) = directory.glob(f"**/blobs/sha256/{digest.encoded[:2]}/{digest.encoded}*")
    return found


def assert_nothing_visible(machine: Machine) -> None:
    assert machine.names() == []
    assert machine.half_unpacked() == []
    assert machine("images", "-aq").out == ""
    assert machine("inspect", "damaged/app", status=1).out == "[]\n"


@pytest.mark.parametrize("spoil", [flip_a_byte, cut_in_half])
def test_a_layer_damaged_on_the_registrys_disk(
    machine: Machine,
    registry: Server,
    raw: RawRegistry,
    image: RawImage,
    spoil: Callable[[Path], None],
) -> None:
    raw.put_image("damaged/app", "latest", image)
    stored = blob_of_the_registry(registry, image.manifest.layers[1].digest)
    whole = stored.read_bytes()
    spoil(stored)
    done = machine("pull", "damaged/app", status=1)
    assert str(image.manifest.layers[1].digest) in done.error, done.err
    assert_nothing_visible(machine)
    assert machine("run", "damaged/app", status=125).out == ""
    assert_nothing_visible(machine)
    stored.write_bytes(whole)
    machine("pull", "damaged/app")
    assert machine("run", "--rm", "damaged/app").out == "whole\n"


@pytest.mark.parametrize("spoil", [flip_a_byte, cut_in_half])
def test_a_layer_damaged_in_the_local_store(
    machine: Machine,
    raw: RawRegistry,
    image: RawImage,
    spoil: Callable[[Path], None],
) -> None:
    """It is not run, not pushed; removing and pulling again heals."""
    raw.put_image("damaged/app", "latest", image)
    machine("pull", "damaged/app")
    digest = image.manifest.layers[1].digest
    # The unpacked layers go with another store's directory, so that run has to unpack again.
    spoil(machine.root / "images/blobs/sha256" / digest.encoded)
    for layer in machine.unpacked():
        (machine.root / "layers" / layer).rename(machine.home / layer)
    done = machine("run", "--rm", "damaged/app", status=125)
    assert digest.encoded[:12] in done.error, done.err
    assert "pull it again" in done.hint
    assert machine.half_unpacked() == [] and machine.container_ids() == set()
    machine("rmi", "damaged/app")
    assert machine.names() == []
    machine("pull", "damaged/app")
    assert machine("run", "--rm", "damaged/app").out == "whole\n"


@pytest.mark.parametrize("spoil", [flip_a_byte, cut_in_half])
def test_a_damaged_layer_is_not_pushed(
    machine: Machine, raw: RawRegistry, spoil: Callable[[Path], None]
) -> None:
    name = f"damaged/{spoil.__name__}"
    noise = random.Random(spoil.__name__).randbytes(MIB)
    machine.load(name, files={"noise": noise})
    layer = max((machine.root / "images/blobs/sha256").iterdir(), key=lambda f: f.stat().st_size)
    whole = layer.read_bytes()
    spoil(layer)
    done = machine("push", name, status=1)
    assert layer.name in done.error, done.err
    assert raw.tags(name) == []
    layer.write_bytes(whole)
    machine("push", name)


def test_bytes_that_are_not_what_the_digest_says(machine: Machine, raw: RawRegistry) -> None:
    """The registry takes no blob under a wrong digest, so nobody can be given one."""
    where = raw.begin_upload("bad/digest")
    wrong = Digest.of(b"something else")
    joint = "&" if "?" in where else "?"
    answer = raw.ask("PUT", f"{where}{joint}digest={wrong}", b"these bytes")
    assert answer.status == 400 and answer.codes == ["DIGEST_INVALID"]
    assert raw.blob("bad/digest", wrong).status == 404
    image = raw_image(archive({"a": "b"}))
    raw.put_blob("bad/digest", image.blobs[0])
    answer = raw.put_manifest("bad/digest", "latest", image.manifest)  # its layer never came
    assert answer.status == 400 and answer.codes == ["MANIFEST_BLOB_UNKNOWN"]
    assert raw.tags("bad/digest") == []
    assert "not found" in machine("pull", "bad/digest", status=1).error


def test_a_connection_cut_in_the_middle_of_a_layer_is_continued(
    new_machine: MakeMachine, registry: Server, raw: RawRegistry, image: RawImage
) -> None:
    raw.put_image("cut/app", "latest", image)
    size = image.manifest.layers[1].size
    with proxy(registry.port, cuts=(MIB, MIB + 1, 2 * MIB - 5)) as cutting:
        machine = new_machine(cutting.host)
        machine("pull", "cut/app")
        assert cutting.cuts == []
        # Continued, not begun again: little was carried twice.
        assert cutting.carried < size + image.manifest.layers[0].size + 3 * MIB
        assert machine("run", "--rm", "cut/app").out == "whole\n"


def test_a_pull_that_was_interrupted_is_continued_by_the_next(
    new_machine: MakeMachine, registry: Server, raw: RawRegistry, image: RawImage
) -> None:
    raw.put_image("cut/again", "latest", image)
    with proxy(registry.port, bytes_per_s=2 * MIB) as slow:
        machine = new_machine(slow.host)
        pulling = machine.begin("pull", "cut/again")
        ingest = machine.root / "images/ingest"
        wait_until(lambda: ingest.is_dir() and size_of(ingest) > MIB)
        pulling.process.send_signal(signal.SIGINT)
        done = pulling.end()
        assert done.status == 130 and "pyreg: " not in done.err
        assert_nothing_visible(machine)
        kept = size_of(machine.root / "images")
        assert kept > MIB
        slow.bytes_per_s = slow.carried = 0
        machine("pull", "cut/again")
        assert slow.carried < sum(len(blob) for blob in image.blobs) - kept + MIB // 4
        assert machine("run", "--rm", "cut/again").out == "whole\n"


def test_a_push_cut_in_the_middle_of_a_layer_goes_on(
    new_machine: MakeMachine, registry: Server, raw: RawRegistry, image: RawImage
) -> None:
    raw.put_image("cut/source", "latest", image)
    with proxy(registry.port, cuts=(2 * MIB, MIB)) as cutting:
        machine = new_machine(cutting.host)
        noise = random.Random("cut push").randbytes(3 * MIB)
        machine.load("cut/pushed", files={"noise": noise})
        cutting.cuts, cutting.carried = [2 * MIB, MIB], 0
        digest = machine("push", "cut/pushed").out.split()[2]
        assert cutting.cuts == []
    assert raw.manifest("cut/pushed", "latest").headers["Docker-Content-Digest"] == digest
    other = new_machine()
    other("pull", "cut/pushed")
    assert other("run", "--rm", "cut/pushed", "wc", "-c", "/noise").out.split()[0] == str(3 * MIB)
