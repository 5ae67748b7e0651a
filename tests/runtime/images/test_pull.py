"""From an image in the local store to mounted layers: at `run`, and beside a pull."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.local import LocalStore
from client.localimage import LocalImage
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.distribution.reference import Reference
from ocispec.image.config import ImageConfig
from ocispec.image.manifest import new_manifest
from ocispec.mediatype import OCI_CONFIG, OCI_LAYER_GZIP
from runtime.errors import HostileEntry, LayerError, LayerMismatch
from runtime.images.pull import Unpacking, ensure_layers, image_layers
from runtime.images.store import LayerStore
from runtime.paths import Paths
from tests.builders.archives import archive, file

pytestmark = pytest.mark.root


class Machine:
    """A local image store and a layer store, with an image put in by hand."""

    def __init__(self, path: Path) -> None:
        self.images = LocalStore(str(path / "root/images"), default_registry="localhost:5000")
        self.layers = LayerStore(Paths(str(path / "root"), str(path / "run")))

    def blob(self, raw: bytes, media_type: str) -> Descriptor:
        digest = Digest.of(raw)
        os.makedirs(os.path.dirname(self.images.layout.blob_path(digest)), exist_ok=True)
        Path(self.images.layout.blob_path(digest)).write_bytes(raw)
        return Descriptor(media_type=media_type, digest=digest, size=len(raw))

    def image(self, *archives: bytes, diff_ids: list[str] | None = None) -> LocalImage:
        layers = [self.blob(gzip.compress(raw, 1, mtime=0), OCI_LAYER_GZIP) for raw in archives]
        if diff_ids is None:
            diff_ids = [f"sha256:{hashlib.sha256(raw).hexdigest()}" for raw in archives]
        config = self.blob(
            json.dumps(
                {
                    "os": "linux",
                    "architecture": "amd64",
                    "rootfs": {"type": "layers", "diff_ids": diff_ids},
                }
            ).encode(),
            OCI_CONFIG,
        )
        manifest = new_manifest(config, tuple(layers))
        target = self.blob(manifest.raw, manifest.media_type)
        name = Reference.parse("test/image", default_registry="localhost:5000")
        return self.images.record(target, names=(name,))


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_missing_layers_are_unpacked_from_the_blobs(machine: Machine) -> None:
    image = machine.image(archive(file("a", b"1")), archive(file("b", b"2")))
    layers = ensure_layers(image, machine.images.layout, machine.layers)
    assert layers == image.config.diff_ids
    assert [os.listdir(machine.layers.path(layer)) for layer in layers] == [["a"], ["b"]]


def test_nothing_is_loaded_when_all_layers_are_there(machine: Machine, tmp_path: Path) -> None:
    image = machine.image(archive(file("a", b"1")))
    ensure_layers(image, machine.images.layout, machine.layers)
    program = (
        "import sys\n"
        "from client.local import LocalStore\n"
        "from runtime.images.pull import ensure_layers\n"
        "from runtime.images.store import LayerStore\n"
        "from runtime.paths import Paths\n"
        "from runtime.snapshots.overlay import OverlaySnapshotter\n"
        f"images = LocalStore({machine.images.root!r}, default_registry='localhost:5000')\n"
        f"layers = LayerStore(Paths({machine.layers.paths.root!r}, {str(tmp_path / 'run')!r}))\n"
        "image = images.resolve('test/image')\n"
        "found = ensure_layers(image, images.layout, layers)\n"
        "OverlaySnapshotter(layers).prepare('key', found)\n"
        "print(*sorted(sys.modules))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.')\n{program}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    heavy = {"hashlib", "dataclasses", "typing", "threading", "socket", "tempfile", "shutil"}
    heavy |= {"runtime.images.pool", "runtime.images.unpack", "zlib", "subprocess", "asyncio"}
    assert heavy.isdisjoint(loaded)


def test_manifest_and_config_that_do_not_fit(machine: Machine) -> None:
    image = machine.image(archive(file("a")), diff_ids=[])
    with pytest.raises(LayerError, match="not one image"):
        ensure_layers(image, machine.images.layout, machine.layers)


def test_a_config_that_lies_about_a_layer(machine: Machine) -> None:
    image = machine.image(archive(file("a")), diff_ids=[str(Digest.of(b"other"))])
    with pytest.raises(LayerMismatch, match="diff id"):
        ensure_layers(image, machine.images.layout, machine.layers)
    assert os.listdir(machine.layers.paths.layers) == []


def test_a_blob_that_was_damaged_on_disk(machine: Machine) -> None:
    image = machine.image(archive(file("a", b"x" * 9999)))
    path = machine.images.layout.blob_path(image.manifest.layers[0].digest)
    raw = bytearray(Path(path).read_bytes())
    raw[30] ^= 0xFF
    os.chmod(path, 0o600)
    Path(path).write_bytes(raw)
    with pytest.raises(LayerMismatch, match="digest of the blob"):
        ensure_layers(image, machine.images.layout, machine.layers)


def pull_by_hand(machine: Machine, image: LocalImage, order: list[int]) -> list[Digest]:
    manifest, told = image.manifest, []
    with Unpacking(
        machine.layers,
        machine.images.layout,
        on_unpacked=lambda layer: told.append(layer.digest),
    ) as unpacking:
        unpacking.on_image(manifest, image.config)
        for position in order:
            unpacking.on_layer(position, manifest.layers[position])
    return told


def test_the_last_layer_of_a_pull_waits_for_all(machine: Machine) -> None:
    image = machine.image(*(archive(file(f"f{i}", b"x" * i)) for i in range(6)))
    told = pull_by_hand(machine, image, [3, 1, 5, 0, 2, 4])
    assert all(machine.layers.has(layer) for layer in image.config.diff_ids)
    assert set(told) == {layer.digest for layer in image.manifest.layers}


def test_a_layer_that_is_in_an_image_twice(machine: Machine) -> None:
    same = archive(file("a"))
    image = machine.image(same, archive(file("b")), same)
    pull_by_hand(machine, image, [0, 1, 2])
    assert len(list(machine.layers.names())) == 2


def test_a_hostile_layer_ends_the_pull(machine: Machine) -> None:
    image = machine.image(archive(file("a")), archive(file("../evil")))
    with pytest.raises(HostileEntry):
        pull_by_hand(machine, image, [1, 0])
    assert not machine.layers.has(image.config.diff_ids[1])


def test_layers_pair_blobs_with_diff_ids(machine: Machine) -> None:
    image = machine.image(archive(file("a")), archive(file("b")))
    config: ImageConfig = image.config
    pairs = image_layers(image.manifest, config)
    assert [pair.blob for pair in pairs] == list(image.manifest.layers)
    assert [pair.diff_id for pair in pairs] == list(config.diff_ids)
