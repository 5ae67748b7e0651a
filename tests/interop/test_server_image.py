"""deploy/Dockerfile is built and run as deploy/compose.yaml does: by docker, with as little as it
needs, on a volume that outlives the container."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.builders.servers import Server, dockerd, free_port, start
from tests.interop.clients import Docker, run
from tests.interop.conftest import Pyreg
from tests.interop.server_image import base_archive, make_context

pytestmark = [pytest.mark.interop, pytest.mark.root]

IMAGE = "pyreg:test"
BUILD_SECONDS = 300
HEALTHY_SECONDS = 60


@pytest.fixture(scope="module")
def engine() -> Iterator[list[str]]:
    """The docker command, with our image built. Nothing of it is left afterwards."""
    base = base_archive()
    with tempfile.TemporaryDirectory(prefix="pyreg-image-") as scratch:
        with dockerd(Path(scratch)) as docker:
            context = Path(scratch, "context")
            make_context(context)
            run([*docker, "import", str(base), "pyreg-base:test"])
            words = [*docker, "build", "--network", "host", "-f", f"{context}/deploy/Dockerfile"]
            words += ["--build-arg", "BASE=pyreg-base:test"]
            words += ["--build-arg", "PIP_FIND_LINKS=/src/wheels", "--build-arg", "PIP_NO_INDEX=1"]
            done = subprocess.run(
                [*words, "-t", IMAGE, str(context)],
                env={**os.environ, "DOCKER_BUILDKIT": "0"},
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
            )
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            try:
                yield docker
            finally:
                left = run([*docker, "ps", "-aq"]).split()
                if left:
                    run([*docker, "rm", "-f", *left])


@contextmanager
def container(docker: list[str], log: Path, name: str, port: int) -> Iterator[Server]:
    """A container as compose.yaml makes it, on the host's network and the volume `data`."""
    words = [*docker, "run", "--name", name, "--network", "host", "--init", "--read-only"]
    words += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--tmpfs", "/tmp"]
    words += ["--log-opt", "max-size=1m", "--health-interval", "1s", "-v", "data:/var/lib/pyreg"]
    words += ["-e", "PYREG_HOST=127.0.0.1", "-e", f"PYREG_PORT={port}", IMAGE]
    server = start(words, port, log)
    try:
        yield server
    finally:
        server.stop()


def state(docker: list[str], name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run([*docker, "inspect", "-f", "{{json .State}}", name]))
    return found


def wait_healthy(docker: list[str], name: str) -> None:
    deadline = time.monotonic() + HEALTHY_SECONDS
    while (health := state(docker, name)["Health"])["Status"] != "healthy":
        assert time.monotonic() < deadline, health
        time.sleep(0.2)


def test_the_image_holds_no_tools_of_its_build(engine: list[str]) -> None:
    [about] = json.loads(run([*engine, "image", "inspect", IMAGE]))
    assert about["Config"]["User"] == "10001:10001"
    words = ["run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c"]
    seen = run([*engine, *words, "ls /opt/pyreg/bin /opt/pyreg/lib/*/site-packages /"])
    names = seen.split()
    assert "pyreg" in names and "uvicorn" in names and "pip" not in names
    assert not {"src", "wheels", "tests", "deploy"} & set(names)
    # All optional parts are there: S3, PostgreSQL, traces, the faster loop.
    modules = "boto3, psycopg, opentelemetry.sdk, uvloop, isal, zstandard"
    run([*engine, *words, f"python3 -c 'import {modules}'"])


def test_it_serves_stops_and_keeps_what_was_pushed(
    engine: list[str], tmp_path: Path, rootfs: Path
) -> None:
    port = free_port()
    docker = Docker(engine)
    with container(engine, tmp_path / "first.log", "first", port) as server:
        wait_healthy(engine, "first")
        [server.password] = re.findall(r"'admin' with the password  (\S+)", server.log.read_text())
        server.username = "admin"
        docker.login(server, server.password)
        theirs = f"{server.host}/theirs/app:v1"
        pushed = docker.push_new(rootfs, theirs)
        ours = Pyreg(tmp_path / "pyreg", server)
        ours.login()
        ours("pull", theirs)
        assert ours.digest(theirs) == pushed
        mine = f"{server.host}/ours/app:v1"
        ours("import", str(rootfs), mine)
        ours("push", mine)
        assert docker.pull(mine) == ours.digest(mine)
        # How an operator adds somebody: with the same image, beside the server.
        words = [*engine, "exec", "-i", "first", "pyreg", "user", "add", "ann", "--password-stdin"]
        run(words, stdin=b"a password of ann")
        run([*engine, "stop", "--time", "40", "first"])
        assert server.process.wait(20) == 0
        assert state(engine, "first")["ExitCode"] == 0  # not 143 or 137: it ended by itself
        assert "Traceback" not in server.log.read_text()
    run([*engine, "rm", "first"])  # and with it all but the volume
    with container(engine, tmp_path / "second.log", "second", port) as server:
        wait_healthy(engine, "second")
        assert "password" not in server.log.read_text()
        assert docker.pull(theirs) == pushed
        server.username = "ann"
        docker.login(server, "a password of ann")
        assert docker.pull(mine) == ours.digest(mine)
