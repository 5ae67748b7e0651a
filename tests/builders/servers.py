"""Real servers on loopback, started as processes and stopped by pid."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.builders.tools import require_root, require_tool

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 20.0
USER = "tester"
PASSWORD = "correct horse battery"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def pyreg_command() -> list[str]:
    """How tests run pyreg: this interpreter, this checkout."""
    return [sys.executable, "-m", "pyreg"]


def pyreg_environment(**extra: str) -> dict[str, str]:
    """A clean environment: nothing of the developer's own configuration leaks into a test."""
    keep = ("PATH", "LANG", "TMPDIR", "PYREG_TEST_REQUIRE_TOOLS")
    kept = {name: os.environ[name] for name in keep if name in os.environ}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


@dataclass
class Server:
    """A running server process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    username: str = ""
    password: str = ""

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def kill(self) -> None:
        """As a crash: SIGKILL, and no time to say goodbye."""
        self.process.kill()
        self.process.wait(STOP_SECONDS)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()


def start(
    command: Sequence[str],
    port: int,
    log: Path,
    *,
    environment: dict[str, str] | None = None,
    ready: Callable[[int], bool] | None = None,
) -> Server:
    """Start a server and wait until it answers on its port; fails with its log's end."""
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
    server = Server(process, port, log)
    deadline = time.monotonic() + START_SECONDS
    check = ready or answers_http
    while not check(port):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise AssertionError(f"{command[0]} did not start:\n{log.read_text()[-4000:]}")
        time.sleep(0.05)
    return server


def answers_http(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    except OSError:
        return False
    finally:
        connection.close()


def add_user(
    root: Path,
    name: str = USER,
    password: str = PASSWORD,
    *,
    role: str = "",
    environment: dict[str, str] | None = None,
) -> None:
    words = ["--root", str(root), "user", "add", name, "--password-stdin"]
    subprocess.run(
        [*pyreg_command(), *words, *(("--role", role) if role else ())],
        input=password.encode(),
        env=pyreg_environment(**(environment or {})),
        check=True,
        capture_output=True,
        timeout=60,
    )


def start_pyreg(
    root: Path, *arguments: str, port: int = 0, environment: dict[str, str] | None = None
) -> Server:
    """`pyreg serve` on its own data, with one ordinary user."""
    root.mkdir(parents=True, exist_ok=True)
    add_user_once = root / ".user-added"
    if not add_user_once.exists():
        add_user(root, environment=environment)
        add_user_once.touch()
    port = port or free_port()
    words = ["--root", str(root), "serve", "--host", "127.0.0.1", "--port", str(port), *arguments]
    server = start(
        [*pyreg_command(), *words],
        port,
        root / "serve.log",
        environment=pyreg_environment(**(environment or {})),
    )
    server.username, server.password = USER, PASSWORD
    return server


def start_docker_registry(
    root: Path, *, port: int = 0, htpasswd: str = "", program: str = ""
) -> Server:
    """CNCF distribution as Debian packages it, at its best: in-memory cache, no access log.

    `program` is another version of it.
    """
    program = program or require_tool("docker-registry")
    port = port or free_port()
    root.mkdir(parents=True, exist_ok=True)
    auth = ""
    if htpasswd:
        (root / "htpasswd").write_text(htpasswd)
        auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {root}/htpasswd\n"
    (root / "config.yml").write_text(
        "version: 0.1\n"
        "log:\n  level: error\n  accesslog:\n    disabled: true\n"
        "storage:\n"
        f"  filesystem:\n    rootdirectory: {root}/data\n"
        "  delete:\n    enabled: true\n"
        "  cache:\n    blobdescriptor: inmemory\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{auth}"
    )
    return start(
        [program, "serve", str(root / "config.yml")],
        port,
        root / "registry.log",
        environment={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
    )


def start_nginx(root: Path, *, port: int = 0) -> Server:
    """nginx that serves the files of `root/www` at its best: two workers, sendfile, no log."""
    program = require_tool("nginx")
    port = port or free_port()
    (root / "www").mkdir(parents=True, exist_ok=True)
    temporary = "".join(
        f"  {kind}_temp_path {root}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;\n" if os.geteuid() == 0 else ""
    (root / "nginx.conf").write_text(
        f"{user}daemon off;\nworker_processes 2;\npid {root}/nginx.pid;\n"
        f"error_log {root}/error.log;\nevents {{}}\n"
        "http {\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n"
        f"{temporary}"
        f"  server {{ listen 127.0.0.1:{port}; root {root}/www; }}\n}}\n"
    )

    def listens(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    words = [program, "-e", str(root / "error.log"), "-c", str(root / "nginx.conf")]
    return start(words, port, root / "nginx.log", ready=listens)


@contextmanager
def dockerd(root: Path) -> Iterator[list[str]]:
    """A Docker engine of our own; gives the words that start a docker command against it."""
    require_root()
    docker, daemon = require_tool("docker"), require_tool("dockerd")
    root.mkdir(parents=True, exist_ok=True)
    socket_path = f"/run/pyreg-test-docker-{os.getpid()}.sock"  # socket paths must be short
    client = [docker, "--config", str(root / "config"), "-H", f"unix://{socket_path}"]

    def ready(_: int) -> bool:
        return subprocess.run([*client, "version"], capture_output=True).returncode == 0

    server = start(
        [
            daemon,
            "--data-root", str(root / "data"),
            "--exec-root", str(root / "exec"),
            "--pidfile", str(root / "docker.pid"),
            "--host", f"unix://{socket_path}",
            "--bridge", "none",
            "--iptables=false",
            "--ip6tables=false",
        ],
        0,
        root / "dockerd.log",
        ready=ready,
    )  # fmt: skip
    try:
        yield client
    finally:
        server.stop()
        for namespace in (root / "exec" / "netns").glob("*"):  # the engine leaves it mounted
            subprocess.run(["umount", str(namespace)], capture_output=True)
        if os.path.exists(socket_path):
            os.unlink(socket_path)
