"""Adopting trees that a real docker-registry wrote, and trees that somebody spoilt."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.adopt.adoption import Summary
from registry.adopt.take import adopt
from registry.adopt.tree import NotATree
from registry.settings import Settings
from tests.builders.servers import (
    pyreg_command,
    pyreg_environment,
    start_docker_registry,
    start_pyreg,
)

OCI = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push_blob(client: httpx.Client, name: str, data: bytes) -> None:
    begun = client.post(f"/v2/{name}/blobs/uploads/")
    where = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest_of(data)})
    headers = {"content-type": "application/octet-stream"}
    assert client.put(where, content=data, headers=headers).status_code == 201


def push_manifest(client: httpx.Client, name: str, tag: str, kind: str, raw: bytes) -> bytes:
    put = client.put(f"/v2/{name}/manifests/{tag}", content=raw, headers={"content-type": kind})
    assert put.status_code == 201, put.text
    return raw


def push_image(client: httpx.Client, name: str, tag: str, kind: str, salt: str) -> bytes:
    layer = f"layer {salt}".encode() * 5000
    config = json.dumps({"os": "linux", "architecture": "amd64", "salt": salt}).encode()
    for data in (layer, config, b"shared layer"):
        push_blob(client, name, data)
    is_docker = kind == DOCKER
    layer_type = (
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
        if is_docker
        else "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    config_type = (
        "application/vnd.docker.container.image.v1+json"
        if is_docker
        else "application/vnd.oci.image.config.v1+json"
    )
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": _descriptor(config_type, config),
        "layers": [_descriptor(layer_type, layer), _descriptor(layer_type, b"shared layer")],
    }
    return push_manifest(client, name, tag, kind, json.dumps(document, indent=3).encode())


def _descriptor(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}


def index_of(kind: str, child: str, *images: bytes) -> bytes:
    platform = {"os": "linux", "architecture": "amd64"}
    entries = [_descriptor(child, raw, platform=platform) for raw in images]
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, bytes]]]:
    """A tree made by real pushes; repository → reference → manifest."""
    root = tmp_path_factory.mktemp("old")
    server = start_docker_registry(root)
    wanted: dict[str, dict[str, bytes]] = {}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            for name, kind, list_kind in (
                ("team/oci", OCI, INDEX),
                ("team/docker", DOCKER, DOCKER_LIST),
                ("plain", DOCKER, DOCKER_LIST),
            ):
                refs = {t: push_image(client, name, t, kind, f"{name}{t}") for t in ("1", "2")}
                both = index_of(list_kind, kind, refs["1"], refs["2"])
                refs["both"] = push_manifest(client, name, "both", list_kind, both)
                wanted[name] = refs
            # A tag that moved leaves a revision without one; an upload that never ended.
            moved = push_image(client, "plain", "moved", DOCKER, "before")
            wanted["plain"][digest_of(moved)] = moved
            wanted["plain"]["moved"] = push_image(client, "plain", "moved", DOCKER, "after")
            assert client.post("/v2/plain/blobs/uploads/").status_code == 202
    finally:
        server.stop()
    return root / "data", wanted


@pytest.fixture
def tree(pushed: tuple[Path, dict[str, dict[str, bytes]]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(pushed[0], tmp_path / "tree", symlinks=True))


def files_of(tree: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(tree)): (path.stat().st_mode, path.read_bytes())
        for path in tree.rglob("*")
        if path.is_file()
    }


def settings_of(tmp_path: Path) -> Settings:
    return Settings(root=str(tmp_path / "new"))


def blob_file(tree: Path, digest: str) -> Path:
    hexes = digest.partition(":")[2]
    return tree / "docker/registry/v2/blobs/sha256" / hexes[:2] / hexes / "data"


def pulls(root: Path, wanted: dict[str, dict[str, bytes]]) -> None:
    """Everything by tag and by digest, byte for byte, from our server."""
    server = start_pyreg(root)
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{server.port}", auth=(server.username, server.password)
        ) as client:
            for name, refs in wanted.items():
                tags = client.get(f"/v2/{name}/tags/list").json()["tags"]
                assert tags == sorted(t for t in refs if ":" not in t)
                for reference, raw in refs.items():
                    for one in (reference, digest_of(raw)):
                        got = client.get(f"/v2/{name}/manifests/{one}")
                        assert got.content == raw
                        assert got.headers["content-type"] == json.loads(raw)["mediaType"]
                    document = json.loads(raw)
                    for blob in (*document.get("layers", ()), document.get("config")):
                        if blob is not None:
                            data = client.get(f"/v2/{name}/blobs/{blob['digest']}").content
                            assert digest_of(data) == blob["digest"]
    finally:
        server.stop()


def test_every_image_pulls_and_the_old_tree_is_as_it_was(pushed, tree, tmp_path):
    before = files_of(tree)
    root = tmp_path / "new"
    words = [*pyreg_command(), "adopt", "--root", str(root), str(tree)]
    dry = subprocess.run([*words, "--dry-run"], env=pyreg_environment(), capture_output=True)
    assert (dry.returncode, dry.stdout.split(b" (")[0].split()[:2]) == (0, [b"Would", b"adopt"])
    done = subprocess.run(words, env=pyreg_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Adopted 3 repositories, 11 manifests, 10 tags, 17 blobs")
    assert files_of(tree) == before
    # Not copied: the same file by two names.
    layer = json.loads(pushed[1]["plain"]["1"])["layers"][0]["digest"]
    hexes = layer.partition(":")[2]
    ours = root / "registry/blobs/sha256" / hexes[:2] / hexes
    assert ours.samefile(blob_file(tree, layer))
    pulls(root, pushed[1])
    again = subprocess.run(words, env=pyreg_environment(), capture_output=True, text=True)
    assert "0 blobs (0B)" in again.stdout and again.returncode == 0
    # The old registry still serves its tree, and ours goes on when it is gone.
    shutil.rmtree(tree)
    pulls(root, pushed[1])


def test_it_goes_on_after_a_kill(pushed, tree, tmp_path):
    root = tmp_path / "new"
    words = [*pyreg_command(), "adopt", "--root", str(root), str(tree)]
    for delay in (0.4, 0.6, 0.8, 1.0):
        running = subprocess.Popen(
            words, env=pyreg_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        running.send_signal(signal.SIGKILL)
        running.wait()
    done = subprocess.run(words, env=pyreg_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pulls(root, pushed[1])


def reasons(summary: Summary) -> str:
    return " | ".join(f"{where}: {why}" for where, why in summary.skipped)


def test_attack_damaged_and_missing_blobs(pushed, tree, tmp_path):
    images = pushed[1]["team/oci"]
    layers = {t: json.loads(images[t])["layers"][0]["digest"] for t in ("1", "2")}
    damaged = blob_file(tree, layers["1"])
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"X")
    blob_file(tree, layers["2"]).unlink()
    summary = adopt(tree, settings_of(tmp_path))
    assert f"{layers['1']}: its bytes are damaged" in reasons(summary)
    assert f"{layers['2']}: its bytes are not there" in reasons(summary)
    wanted = {name: refs for name, refs in pushed[1].items() if name != "team/oci"}
    # The index is still there, sparse; its images are not.
    wanted["team/oci"] = {"both": images["both"]}
    pulls(tmp_path / "new", wanted)


def test_attack_links_lead_out_of_the_tree(pushed, tree, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    images = pushed[1]["plain"]
    layer = json.loads(images["1"])["layers"][0]["digest"]
    blob_file(tree, layer).unlink()
    blob_file(tree, layer).symlink_to(secret)
    repositories = tree / "docker/registry/v2/repositories"
    (repositories / "outside").symlink_to(tmp_path)
    tags = repositories / "plain/_manifests/tags"
    (tags / "2/current/link").unlink()
    (tags / "2/current/link").symlink_to(secret)
    os.mkfifo(tags / "both/current/link.fifo")
    (tags / "both/current/link").unlink()
    os.rename(tags / "both/current/link.fifo", tags / "both/current/link")
    summary = adopt(tree, settings_of(tmp_path))
    said = reasons(summary)
    assert "outside: not a directory" in said
    assert f"{layer}: cannot be opened" in said
    assert "plain:2: cannot be opened" in said
    assert "plain:both: is no regular file" in said
    assert not any(p.is_symlink() for p in (tmp_path / "new/registry/blobs").rglob("*"))
    assert b"secret" not in {
        p.read_bytes() for p in (tmp_path / "new/registry/blobs").rglob("*") if p.is_file()
    }


def test_attack_odd_links_names_and_manifests(pushed, tree, tmp_path):
    repositories = tree / "docker/registry/v2/repositories"
    tags = repositories / "plain/_manifests/tags"
    (tags / "1/current/link").write_bytes(b"sha256:" + b"a" * (1 << 20))
    (tags / "2/current/link").write_bytes(b"../../../etc/passwd")
    (tags / "bad tag").mkdir()
    lost = digest_of(b"never pushed")
    (tags / "moved/current/link").write_text(lost)
    revisions = repositories / "plain/_manifests/revisions/sha256"
    (revisions / ("b" * 64)).mkdir()
    (revisions / ("b" * 64) / "link").write_text(lost)
    bomb = b"[" * 100_000
    for raw in (bomb, b'{"schemaVersion": 1, "name": "old"}', b"{}"):
        path = blob_file(tree, digest_of(raw))
        path.parent.mkdir(parents=True)
        path.write_bytes(raw)
        link = revisions / digest_of(raw).partition(":")[2] / "link"
        link.parent.mkdir()
        link.write_text(digest_of(raw))
    (repositories / "BAD/_manifests").mkdir(parents=True)
    summary = adopt(tree, settings_of(tmp_path))
    said = reasons(summary)
    for why in (
        "plain:1: its link is no digest: it is too long",
        "plain:2: its link is no digest",
        "plain:bad tag: ",
        "plain:moved: names a manifest that the repository does not hold",
        "its link holds another digest",
        f"{digest_of(bomb)}: is no manifest that can be kept",
        "is an image of schema 1",
        "BAD: not a repository's name",
    ):
        assert why in said, (why, said)
    wanted = {name: refs for name, refs in pushed[1].items() if name != "plain"}
    wanted["plain"] = {"both": pushed[1]["plain"]["both"]}
    pulls(tmp_path / "new", wanted)


def test_attack_another_repositorys_layer_is_not_given(pushed, tree, tmp_path):
    """A repository gets the layers that are linked in it, whatever its manifests say."""
    image = pushed[1]["team/docker"]["1"]
    layer = json.loads(image)["layers"][0]["digest"].partition(":")[2]
    layers = tree / "docker/registry/v2/repositories/team/docker/_layers/sha256"
    shutil.rmtree(layers / layer)
    summary = adopt(tree, settings_of(tmp_path))
    where = f"team/docker@{digest_of(image)}"
    assert (where, "needs a layer that the repository does not hold") in summary.skipped


def test_a_tag_that_moved_here_stays(pushed, tree, tmp_path):
    settings = settings_of(tmp_path)
    adopt(tree, settings)
    tags = tree / "docker/registry/v2/repositories/plain/_manifests/tags"
    shutil.copy(tags / "2/current/link", tags / "1/current/link")
    summary = adopt(tree, settings)
    assert summary.skipped == [("plain:1", "names another manifest here already")]


def test_what_is_no_tree_and_what_cannot_link(tmp_path):
    with pytest.raises(NotATree, match="no docker/registry/v2"):
        adopt(tmp_path, settings_of(tmp_path))
    for name in ("blobs", "repositories"):
        (tmp_path / "docker/registry/v2" / name).mkdir(parents=True)
    other = Path("/dev/shm") / f"pyreg-adopt-{os.getpid()}"
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system")
    try:
        with pytest.raises(NotATree, match="different file systems"):
            adopt(tmp_path, Settings(root=str(other)))
    finally:
        shutil.rmtree(other, ignore_errors=True)
