"""docker and podman with data of their own, as contestants."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.builders.servers import pyreg_environment
from tests.builders.tools import find_tool


def timed(words: Sequence[str], *, environment: dict[str, str] | None = None) -> float:
    """Seconds of one whole command; it must succeed."""
    started = time.perf_counter()
    done = subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    took = time.perf_counter() - started
    if done.returncode:
        raise AssertionError(
            f"{' '.join(words)}: {done.returncode}\n{done.stderr.decode()[-2000:]}"
        )
    return took


class Pyreg:
    """Our own command as it is installed: the script beside the interpreter."""

    name = "pyreg"

    def __init__(self, root: Path, registry: str) -> None:
        script = Path(sys.executable).with_name("pyreg")
        self.words = [str(script)] if script.exists() else [sys.executable, "-m", "pyreg"]
        self.environment = pyreg_environment(
            PYREG_ROOT=str(root / "pyreg"), PYREG_DEFAULT_REGISTRY=registry, HOME=str(root)
        )

    def pull(self, image: str) -> float:
        return timed([*self.words, "pull", "-q", image], environment=self.environment)

    def run(self, image: str, *command: str) -> float:
        words = [*self.words, "run", "--rm", "--network", "none", image, *command]
        return timed(words, environment=self.environment)


class Docker:
    name = "docker"

    def __init__(self, client: list[str]) -> None:
        self.client = client

    def pull(self, image: str) -> float:
        return timed([*self.client, "pull", "-q", image])

    def run(self, image: str, *command: str) -> float:
        return timed([*self.client, "run", "--rm", "--network", "none", image, *command])


class Podman:
    name = "podman"

    def __init__(self, root: Path) -> None:
        self.client = [
            find_tool("podman"),
            "--root", str(root / "podman"),
            "--runroot", str(root / "podman-run"),
            "--storage-driver", "overlay",
        ]  # fmt: skip
        # runc, since crun refuses hosts with both cgroup versions; limits that this process may
        # grant, since podman asks for more by default
        self.client += ["--runtime", "runc"]
        self.limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]

    def pull(self, image: str) -> float:
        return timed([*self.client, "pull", "-q", "--tls-verify=false", image])

    def run(self, image: str, *command: str) -> float:
        words = ["run", "--rm", "--network", "none", *self.limits, image, *command]
        return timed([*self.client, *words])
