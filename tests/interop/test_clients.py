"""Each client logs in, pushes and pulls through `pyreg serve`; ours pulls theirs, and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.servers import Server, dockerd
from tests.builders.tools import require_root, require_tool
from tests.interop.clients import Buildah, Docker, Podman, Skopeo, run
from tests.interop.conftest import Pyreg

pytestmark = [pytest.mark.interop, pytest.mark.root]

Client = Docker | Podman | Buildah | Skopeo


@pytest.fixture(scope="module", params=["docker", "podman", "skopeo", "buildah"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    require_root()
    root = tmp_path_factory.mktemp(request.param)
    program = require_tool(request.param)
    if request.param == "docker":
        with dockerd(root) as words:
            yield Docker(words)
    elif request.param == "skopeo":
        yield Skopeo(program, root)
    else:
        yield (Podman if request.param == "podman" else Buildah)(program, root)


def test_a_wrong_password_is_refused(client: Client, registry: Server) -> None:
    status, _, text = client.login(registry, "wrong", check=False).partition(" ")
    assert status != "0"
    assert "unauthorized" in text.lower() or "invalid username/password" in text.lower()


def test_pyreg_pulls_what_it_pushed(
    client: Client, registry: Server, rootfs: Path, pyreg: Pyreg
) -> None:
    client.login(registry, registry.password)
    reference = f"{registry.host}/theirs/{client.name}:v1"
    digest = client.push_new(rootfs, reference)
    pyreg("pull", reference)
    assert pyreg.digest(reference) == digest
    assert client.pull(reference) == digest


def test_it_pulls_what_pyreg_pushed(
    client: Client, registry: Server, rootfs: Path, pyreg: Pyreg
) -> None:
    client.login(registry, registry.password)
    reference = f"{registry.host}/ours/{client.name}:v1"
    pyreg("import", str(rootfs), reference)
    pyreg("push", reference)
    digest = pyreg.digest(reference)
    assert client.pull(reference) == digest


def test_an_image_travels_round_and_keeps_its_layers(
    client: Client, registry: Server, rootfs: Path, pyreg: Pyreg
) -> None:
    """Ours → registry → theirs → registry again → ours; skopeo keeps every byte, so the digest."""
    client.login(registry, registry.password)
    reference = f"{registry.host}/round/{client.name}:v1"
    pyreg("import", str(rootfs), reference)
    pyreg("push", reference)
    first = client.pull(reference)
    digest = client.push_again(reference)
    if isinstance(client, Skopeo):
        assert digest == first
    pyreg("rmi", reference)
    pyreg("pull", reference)
    assert pyreg.digest(reference) == digest


@pytest.mark.parametrize("client", ["docker", "podman"], indirect=True)
def test_search_finds_what_the_user_may_pull(
    client: Client, registry: Server, rootfs: Path, pyreg: Pyreg
) -> None:
    client.login(registry, registry.password)
    reference = f"{registry.host}/found/by-{client.name}:v1"
    pyreg("import", str(rootfs), reference)
    pyreg("push", reference)
    assert isinstance(client, Docker | Podman)
    tls = client.tls if isinstance(client, Podman) else []
    found = run([*client.client, "search", *tls, f"{registry.host}/by-{client.name}"])
    assert f"found/by-{client.name}" in found
    none = run([*client.client, "search", *tls, f"{registry.host}/no-such-image"])
    assert "found/" not in none
