"""A real S3 service on loopback: versitygw on a directory, started as a process, stopped by pid."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.builders.servers import ROOT, free_port, start
from tests.builders.tools import find_tool, missing

MODULE = "github.com/versity/versitygw/cmd/versitygw@latest"
ACCESS_KEY = "test-access-key"
SECRET_KEY = "test-secret-key-not-to-be-seen"
REGION = "us-east-1"
INSTALL_SECONDS = 600


@dataclass(frozen=True)
class S3Service:
    """A running service, and what a registry needs to use it."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, endpoint: str = ""):  # type: ignore[no-untyped-def]
        """A client of our own, to look behind the registry; the caller closes it."""
        import botocore.session

        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name=REGION,
        )

    def make_bucket(self) -> str:
        name = f"test-{uuid4().hex[:12]}"
        client = self.client()
        client.create_bucket(Bucket=name)
        client.close()
        return name

    def settings(self, bucket: str, endpoint: str = "") -> dict[str, str]:
        """Settings of the registry that keeps its blobs in `bucket`, by name."""
        return {
            "storage": "s3",
            "s3_bucket": bucket,
            "s3_endpoint": endpoint or self.endpoint,
            "s3_region": REGION,
            "s3_access_key": ACCESS_KEY,
            "s3_secret_key": SECRET_KEY,
        }

    def environment(self, bucket: str, endpoint: str = "") -> dict[str, str]:
        """The same as variables for `pyreg serve`."""
        given = self.settings(bucket, endpoint)
        return {f"PYREG_{name.upper()}": value for name, value in given.items()}


def find_versitygw() -> str:
    """The program's path, built once where there is a Go toolchain; empty without either."""
    if found := find_tool("versitygw"):
        return found
    built = ROOT / "build" / "gotools" / "versitygw"
    go = find_tool("go")
    places = [built, Path.home() / "go" / "bin" / "versitygw"]
    if go:
        environment = subprocess.run(
            [go, "env", "GOBIN", "GOPATH"], capture_output=True, text=True, check=True
        ).stdout.split("\n")
        gobin, gopath = environment[0], environment[1]
        places += [Path(gobin or f"{gopath}/bin") / "versitygw"]
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    if not go:
        return ""
    built.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [go, "install", MODULE],
        env={**os.environ, "GOBIN": str(built.parent)},
        check=True,
        timeout=INSTALL_SECONDS,
    )
    return str(built)


@contextmanager
def s3_service(directory: Path) -> Iterator[S3Service]:
    """Run the service on `directory`; skips the test, or fails it where CI must have it."""
    program = find_versitygw()
    if not program:
        if not find_tool("go"):
            import pytest

            pytest.skip("no S3 service: versitygw needs a Go toolchain (apt-get install golang)")
        missing("versitygw is not installed")
    port = free_port()
    data, metadata = directory / "objects", directory / "metadata"
    data.mkdir(parents=True)
    metadata.mkdir()
    server = start(
        [
            program,
            "--access", ACCESS_KEY,
            "--secret", SECRET_KEY,
            "--region", REGION,
            "--port", f"127.0.0.1:{port}",
            "--quiet",
            "--keep-alive",
            "posix",
            "--sidecar", str(metadata),
            str(data),
        ],
        port,
        directory / "s3.log",
        environment={"PATH": os.environ["PATH"], "HOME": str(directory)},
        ready=_answers,
    )  # fmt: skip
    try:
        yield S3Service(port, server.process)
    finally:
        server.stop()


def _answers(port: int) -> bool:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status in (200, 403)
    except OSError:
        return False
    finally:
        connection.close()
