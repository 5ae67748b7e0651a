"""Several processes on one store, and processes that die in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ocispec.digest import Digest
from tests.builders.servers import Server, pyreg_environment
from tests.client.conftest import Client, make, put
from tests.client.rogue import Answer, Rogue, Seen

ROOT = Path(__file__).resolve().parents[2]

PULL = """
import sys
from client.credentials import FixedKeychain
from client.local import LocalStore
from client.options import ClientOptions
from client.pull import pull
from client.remote import Registry
from client.transport import Transport
from ocispec.distribution.reference import Reference
from ocispec.image.platform import Platform
options = ClientOptions(default_registry="localhost:5000")
reference = Reference.parse(sys.argv[2], default_registry="localhost:5000")
registry = Registry(reference.registry, Transport(options), FixedKeychain(None))
store = LocalStore(sys.argv[1], default_registry="localhost:5000")
done = pull(reference, registry.repository(reference.repository), store, Platform("linux", "amd64"))
print(done.image.id)
"""


def start_pull(store: str, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, store, name],
        cwd=ROOT,
        env=pyreg_environment(),
        stdout=subprocess.PIPE,
    )


def finished(process: subprocess.Popen[bytes]) -> bytes:
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out


def test_two_processes_pull_one_image_and_download_it_once(
    client: Client, tmp_path: Path, rogue: Rogue
) -> None:
    layer = os.urandom(2_000_000)
    made = make(layer)
    rogue.serve_image("x", "1", made.manifest, *made.blobs)
    path = f"/v2/x/blobs/{Digest.of(layer)}"
    at_once = rogue.answers[path]

    def slowly(seen: Seen) -> Answer:
        time.sleep(1.0)  # so that the other one surely meets it
        return at_once(seen)

    rogue.on(path, slowly)
    processes = [start_pull(client.store.root, f"{rogue.host}/x:1") for _ in range(2)]
    assert finished(processes[0]) == finished(processes[1])
    assert len(rogue.requests("GET", path)) == 1
    assert client.store.resolve(f"{rogue.host}/x:1").id == made.config.digest
    assert os.listdir(os.path.join(client.store.root, "ingest")) == []


def test_many_processes_pull_different_images_with_shared_layers(
    client: Client, docker_registry: Server, another_client: Callable[..., Client]
) -> None:
    shared = os.urandom(1_000_000)
    names = []
    for number in range(4):
        name = f"{docker_registry.host}/shared/image{number}:1"
        put(client.store, make(shared, os.urandom(200_000)), name)
        client.push(name)
        names.append(name)
    store = another_client().store
    for process in [start_pull(store.root, name) for name in names]:
        finished(process)
    assert len(store.images()) == 4
    for digest in store.layout.digests():
        store.layout.read(digest, 10_000_000)


def test_kill_9_in_the_middle_and_the_next_pull_continues(client: Client, rogue: Rogue) -> None:
    layer = os.urandom(40 << 20)
    made = make(layer)
    rogue.serve_image("x", "1", made.manifest, *made.blobs)
    path = f"/v2/x/blobs/{Digest.of(layer)}"
    name = f"{rogue.host}/x:1"
    partial = Path(client.store.root, "ingest", f"sha256-{Digest.of(layer).encoded}.partial")
    half = len(layer) // 2
    stopped = False

    def stall(seen: Seen) -> Answer:
        nonlocal stopped
        if stopped:
            return at_once(seen)
        stopped = True
        return Answer(200, layer[:half], {"Transfer-Encoding": "identity"}, length=False)

    at_once = rogue.answers[path]
    rogue.on(path, stall)
    process = start_pull(client.store.root, name)
    deadline = time.monotonic() + 30
    while not (partial.exists() and partial.stat().st_size >= 1 << 20):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert client.store.images() == ()  # nothing half-visible
    client.pull(name)
    assert client.store.layout.read(Digest.of(layer), 64 << 20) == layer
    last = rogue.requests("GET", path)[-1]
    start = int(last.headers["Range"].removeprefix("bytes=").rstrip("-"))
    assert start >= 1 << 20  # what had arrived was not sent again


def test_removal_beside_pulls_leaves_whole_images(
    client: Client, docker_registry: Server, another_client: Callable[..., Client]
) -> None:
    """Pull and remove an image in turns from two processes: every pull ends with all its blobs."""
    shared = os.urandom(300_000)
    names = []
    for number in range(2):
        name = f"{docker_registry.host}/removed/image{number}:1"
        put(client.store, make(shared, b"%d" % number), name)
        client.push(name)
        names.append(name)
    there = another_client()
    for _ in range(5):
        there.pull(names[0])
        process = start_pull(there.store.root, names[1])
        while process.poll() is None:
            if there.store.find(names[0]):
                there.store.remove(names[0])
            there.pull(names[0])
        finished(process)
        image = there.store.resolve(names[1])
        for blob in image.manifest.references():
            assert there.store.layout.has(blob.digest)
        there.store.remove(names[1])
