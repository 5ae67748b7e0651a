"""Many commands at once on one store and one registry."""

from __future__ import annotations

import random

import pytest

from tests.builders.machine import Machine
from tests.builders.proxy import proxy
from tests.builders.raw import RawRegistry, raw_image
from tests.builders.rootfs import archive, busybox_tree
from tests.builders.servers import Server
from tests.integration.conftest import MakeMachine

pytestmark = pytest.mark.root
MIB = 1 << 20
NUMBERS = range(4)


def test_parallel_pushes_and_pulls_of_images_that_share_layers(
    new_machine: MakeMachine, registry: Server, raw: RawRegistry
) -> None:
    """Four images over the same two layers, pushed by four processes of one machine at once, into
    one repository and others; then pulled by four processes into one empty store."""
    source = random.Random("together")
    base = archive(busybox_tree())
    shared = archive({"shared": source.randbytes(2 * MIB)})
    machine = new_machine()
    images = {}
    for n in NUMBERS:
        own = archive({"own": f"image {n}" * 1000, "noise": source.randbytes(MIB)})
        image = raw_image(base, shared, own, cmd=("head", "-c", "7", "/own"))
        raw.put_image("staging/app", f"v{n}", image)
        images[f"v{n}"] = image
    machine("pull", "-a", "-q", "staging/app")
    names = {n: f"together/{'one' if n < 2 else f'app{n}'}:v{n}" for n in NUMBERS}
    for n, name in names.items():
        machine("tag", f"staging/app:v{n}", name)
    running = [machine.begin("push", name) for name in names.values()]
    for done in [each.end() for each in running]:
        assert done.status == 0, done.err
    for n, name in names.items():
        raw.assert_whole(name.partition(":")[0], f"v{n}", images[f"v{n}"])

    with proxy(registry.port, bytes_per_s=8 * MIB) as slow:
        fresh = new_machine(slow.host)
        running = [fresh.begin("pull", name) for name in names.values()]
        for done in [each.end() for each in running]:
            assert done.status == 0, done.err
    assert fresh.names() == sorted(names.values())
    assert len(fresh.unpacked()) == 2 + len(NUMBERS) and fresh.half_unpacked() == []
    assert list((fresh.root / "images/ingest").iterdir()) == []
    running = [fresh.begin("run", "--rm", name) for name in names.values()]
    assert [each.end().out for each in running] == [f"image {n}" for n in NUMBERS]


def test_the_same_image_pulled_by_many_is_fetched_once(
    new_machine: MakeMachine, registry: Server, raw: RawRegistry
) -> None:
    layer = archive({"noise": random.Random("same").randbytes(3 * MIB)})
    image = raw_image(archive(busybox_tree()), layer, cmd=("echo", "once"))
    raw.put_image("same/once", "latest", image)
    with proxy(registry.port, bytes_per_s=8 * MIB) as slow:
        machine = new_machine(slow.host)
        running = [machine.begin("run", "--rm", "same/once") for _ in NUMBERS]
        assert [each.end().out for each in running] == ["once\n"] * len(NUMBERS)
        assert slow.carried < 1.5 * sum(len(blob) for blob in image.blobs)
    assert machine.half_unpacked() == []


def test_rmi_during_a_pull_takes_nothing_away_from_it(
    new_machine: MakeMachine, registry: Server, raw: RawRegistry
) -> None:
    """The removed image shares its layers with the one on its way, and is removed all the while."""
    base = archive(busybox_tree())
    shared = archive({"shared": "s" * MIB})
    raw.put_image("remove/old", "latest", raw_image(base, shared))
    noise = random.Random("rmi").randbytes(2 * MIB)
    new = raw_image(base, shared, archive({"noise": noise}), cmd=("wc", "-c", "/noise", "/shared"))
    raw.put_image("remove/new", "latest", new)
    with proxy(registry.port, bytes_per_s=2 * MIB) as slow:
        quick, machine = new_machine(), new_machine(slow.host)
        beside = Machine(quick.home, registry.host, root=machine.root)
        pulling = machine.begin("pull", "remove/new")
        removed = 0
        while pulling.process.poll() is None:
            assert beside("pull", "-q", "remove/old", status=None).status == 0
            removed += "Deleted:" in beside("rmi", f"{registry.host}/remove/old").out
        done = pulling.end()
        assert done.status == 0, done.err
        assert removed > 0
    counts = machine("run", "--rm", "remove/new").out.split()[::2]
    assert counts == [str(2 * MIB), str(MIB), str(3 * MIB)]
    machine("rmi", "remove/new")
    assert machine.unpacked() == [] and machine.names() == []


def test_rmi_of_an_image_while_it_is_run(machine: Machine) -> None:
    """Whoever comes first: the container runs, or the image is gone; never half of either."""
    for n in range(4):
        machine.load("race/app", files={"number": str(n)})
        running = machine.begin("run", "--rm", "--pull", "never", "race/app", "cat", "/number")
        removing = machine.begin("rmi", "race/app")
        ran, removed = running.end(), removing.end()
        assert (ran.status, ran.out) == (0, str(n)) or (ran.status == 125 and ran.error), ran.err
        assert removed.status == 0 or "is using image" in removed.error, removed.err
        machine("rmi", "-f", "race/app", status=None)
        assert machine.names() == [] and machine.half_unpacked() == []
