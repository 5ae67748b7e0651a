"""Archives between pyreg and docker, podman and skopeo, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.servers import dockerd
from tests.builders.tools import require_root, require_tool
from tests.interop.clients import Docker, Podman, run
from tests.interop.conftest import Pyreg

pytestmark = [pytest.mark.interop, pytest.mark.root]


@pytest.fixture(scope="module", params=["docker", "podman"])
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Docker | Podman]:
    require_root()
    root = tmp_path_factory.mktemp(request.param)
    program = require_tool(request.param)
    if request.param == "docker":
        with dockerd(root) as words:
            yield Docker(words)
    else:
        yield Podman(program, root)


def test_what_pyreg_saves_they_load(
    engine: Docker | Podman, pyreg: Pyreg, rootfs: Path, tmp_path: Path
) -> None:
    pyreg("import", str(rootfs), "localhost/saved/app:v1")
    pyreg("save", "-o", str(tmp_path / "out.tar"), "localhost/saved/app:v1")
    done = run([*engine.client, "load", "-i", str(tmp_path / "out.tar")])
    assert "localhost/saved/app:v1" in done
    image_id = pyreg("images", "-q", "--no-trunc", "localhost/saved/app:v1").strip()
    found = run([*engine.client, "inspect", "--format", "{{.Id}}", "localhost/saved/app:v1"])
    assert found.strip().removeprefix("sha256:") == image_id.removeprefix("sha256:")


def test_what_they_save_pyreg_loads(
    engine: Docker | Podman, pyreg: Pyreg, rootfs: Path, tmp_path: Path
) -> None:
    run([*engine.client, "import", str(rootfs), "localhost/theirs/app:v1"])
    words = ["save", "-o", str(tmp_path / "theirs.tar"), "localhost/theirs/app:v1"]
    run([*engine.client, *words])
    done = pyreg("load", "-i", str(tmp_path / "theirs.tar"))
    assert done == "Loaded image: localhost/theirs/app:v1\n"
    found = run([*engine.client, "inspect", "--format", "{{.Id}}", "localhost/theirs/app:v1"])
    image_id = pyreg("images", "-q", "--no-trunc", "localhost/theirs/app:v1").strip()
    assert found.strip().removeprefix("sha256:") == image_id.removeprefix("sha256:")


def test_skopeo_reads_and_writes_the_same_archives(
    pyreg: Pyreg, rootfs: Path, tmp_path: Path
) -> None:
    skopeo = require_tool("skopeo")
    pyreg("import", str(rootfs), "localhost/skopeo/app:v1")
    ours, back, docker = (tmp_path / name for name in ("ours.tar", "oci.tar", "docker.tar"))
    pyreg("save", "-o", str(ours), "localhost/skopeo/app:v1")
    run([skopeo, "copy", f"oci-archive:{ours}", f"oci-archive:{back}:localhost/back/app:v2"])
    assert pyreg("load", "-i", str(back)) == "Loaded image: localhost/back/app:v2\n"
    assert pyreg.digest("localhost/back/app:v2") == pyreg.digest("localhost/skopeo/app:v1")
    run([skopeo, "copy", f"docker-archive:{ours}", f"docker-archive:{docker}:localhost/old/app:v3"])
    assert pyreg("load", "-i", str(docker)) == "Loaded image: localhost/old/app:v3\n"
