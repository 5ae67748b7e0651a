"""Docker, podman, skopeo and buildah as judges: one registry of ours, many clients."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.images import small_rootfs
from tests.builders.servers import Server, pyreg_command, pyreg_environment, start_pyreg


class Pyreg:
    """Our own command with its own data and credentials, as on another host."""

    def __init__(self, root: Path, registry: Server) -> None:
        self.root = root
        self.registry = registry
        self.environment = pyreg_environment(
            PYREG_ROOT=str(root / "data"),
            PYREG_DEFAULT_REGISTRY=registry.host,
            HOME=str(root / "home"),
        )
        (root / "home").mkdir(parents=True)

    def __call__(self, *words: str, stdin: bytes = b"", check: bool = True) -> str:
        done = subprocess.run(
            [*pyreg_command(), *words],
            input=stdin,
            env=self.environment,
            capture_output=True,
            timeout=120,
        )
        if check and done.returncode:
            raise AssertionError(
                f"pyreg {' '.join(words)}: {done.returncode}\n{done.stderr.decode()}"
            )
        return done.stdout.decode() if check else f"{done.returncode} {done.stderr.decode()}"

    def login(self) -> None:
        self(
            "login", "-u", self.registry.username, "--password-stdin", self.registry.host,
            stdin=self.registry.password.encode(),
        )  # fmt: skip

    def digest(self, image: str) -> str:
        """The manifest digest of a local image."""
        lines = self("images", "--digests", "--format", "{{.Digest}}", image).split()
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_pyreg(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rootfs") / "rootfs.tar"
    path.write_bytes(small_rootfs())
    return path


@pytest.fixture
def pyreg(tmp_path: Path, registry: Server) -> Pyreg:
    ours = Pyreg(tmp_path / "pyreg", registry)
    ours.login()
    return ours
