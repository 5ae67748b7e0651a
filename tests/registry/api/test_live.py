"""A real server on loopback: dropped connections, kills, restarts, full disks, hostile bytes."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_MANIFEST
from tests.builders.servers import (
    PASSWORD,
    USER,
    Server,
    add_user,
    free_port,
    pyreg_command,
    pyreg_environment,
    start_pyreg,
)
from tests.registry.api.conftest import manifest_of

DATA = os.urandom(3 << 20)
DIGEST = str(Digest.of(DATA))
UPLOADS = "/v2/team/app/blobs/uploads/"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests that leave it as it was; who kills one starts it."""
    running = start_pyreg(tmp_path_factory.mktemp("shared") / "data")
    yield running
    running.stop()


def root_of(server: Server) -> Path:
    return server.log.parent


@contextmanager
def client_of(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{server.port}", auth=(USER, PASSWORD), timeout=60
    ) as client:
        yield client


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with client_of(server) as opened:
        yield opened


def begin(client: httpx.Client) -> str:
    answer = client.post(UPLOADS)
    assert answer.status_code == 202, answer.text
    location: str = answer.headers["location"]
    return location


def received(client: httpx.Client, location: str) -> int:
    """Bytes that the server says it has."""
    answer = client.get(location)
    assert answer.status_code == 204, answer.text
    last = int(answer.headers["range"].partition("-")[2])
    return last + 1 if last else 0


def connect(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def start_patch(
    server: Server, location: str, data: bytes, *, chunked: bool, method: str = "PATCH"
) -> socket.socket:
    """Send the head of an upload and part of its body, and leave the connection open."""
    sock = connect(server)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(DATA)}"
    head = f"{method} {location} HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\n{framing}\r\n\r\n"
    sock.sendall(head.encode())
    sock.sendall(b"%x\r\n%s\r\n" % (len(data), data) if chunked else data)
    return sock


def wait_for(client: httpx.Client, location: str, size: int) -> None:
    deadline = time.monotonic() + 20
    while received(client, location) < size:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def raw_request(server: Server, request: bytes) -> bytes:
    with connect(server) as sock:
        sock.sendall(request)
        sock.settimeout(10)
        answer = b""
        try:
            while part := sock.recv(65536):
                answer += part
        except (TimeoutError, ConnectionResetError):
            pass
        return answer


# ---- connections and processes that end ---------------------------------------------------------


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("reset", [True, False])
def test_a_dropped_connection_keeps_what_arrived(
    server: Server, client: httpx.Client, chunked: bool, reset: bool
) -> None:
    location = begin(client)
    sent = 1_500_000
    sock = start_patch(server, location, DATA[:sent], chunked=chunked)
    wait_for(client, location, sent)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    deadline = time.monotonic() + 20
    while True:
        rest = client.patch(
            location,
            content=DATA[sent:],
            headers={"content-range": f"{sent}-{len(DATA) - 1}"},
        )
        if rest.status_code != 409 or time.monotonic() > deadline:
            break
        time.sleep(0.02)  # the server has not noticed yet
    assert rest.status_code == 202, rest.text
    assert client.put(location, params={"digest": DIGEST}).status_code == 201
    assert client.get(f"/v2/team/app/blobs/{DIGEST}").content == DATA


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_kill_in_the_middle_of_a_push_then_resume(root: Path, method: str) -> None:
    server = start_pyreg(root)
    sent = 1_500_000
    with client_of(server) as client:
        location = begin(client)
        path = location if method == "PATCH" else f"{location}?digest={DIGEST}"
        sock = start_patch(server, path, DATA[:sent], chunked=True, method=method)
        wait_for(client, location, sent)
        server.kill()
        sock.close()
    server = start_pyreg(root, port=server.port)
    try:
        with client_of(server) as client:
            assert client.get(f"/v2/team/app/blobs/{DIGEST}").status_code == 404
            size = received(client, location)
            assert size == sent
            done = client.put(location, params={"digest": DIGEST}, content=DATA[size:])
            assert done.status_code == 201
            assert client.get(f"/v2/team/app/blobs/{DIGEST}").content == DATA
    finally:
        server.stop()


def test_kill_after_an_answer_loses_nothing(root: Path) -> None:
    raw = manifest_of(DATA[:100])
    server = start_pyreg(root)
    with client_of(server) as client:
        config = DATA[:100]
        params = {"digest": str(Digest.of(config))}
        assert client.post(UPLOADS, params=params, content=config).status_code == 201
        put = client.put(
            "/v2/team/app/manifests/v1", content=raw, headers={"content-type": OCI_MANIFEST}
        )
        assert put.status_code == 201
        server.kill()
    server = start_pyreg(root, port=server.port)
    try:
        with client_of(server) as client:
            assert client.get("/v2/team/app/manifests/v1").content == raw
            assert client.get(f"/v2/team/app/blobs/{params['digest']}").content == config
    finally:
        server.stop()


def test_sigterm_lets_a_running_upload_finish(root: Path) -> None:
    server = start_pyreg(root)
    with client_of(server) as client:
        location = begin(client)
        sock = start_patch(server, location, DATA[:1000], chunked=True)
        wait_for(client, location, 1000)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert server.process.poll() is None
    sock.sendall(b"4\r\nmore\r\n0\r\n\r\n")
    assert sock.recv(1000).startswith(b"HTTP/1.1 202")
    sock.close()
    assert server.process.wait(20) == 0


def test_two_clients_on_one_upload_one_of_them_wins(server: Server, client: httpx.Client) -> None:
    location = begin(client)
    barrier = threading.Barrier(4)

    def push(_: int) -> int:
        with client_of(server) as own:
            barrier.wait()
            return own.patch(
                location,
                content=DATA,
                headers={"content-range": f"0-{len(DATA) - 1}"},
            ).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(push, range(4)))
    assert statuses[0] == 202
    assert set(statuses[1:]) <= {409, 416}
    assert client.put(location, params={"digest": DIGEST}).status_code == 201
    assert client.get(f"/v2/team/app/blobs/{DIGEST}").content == DATA


def test_many_clients_push_the_same_blob(server: Server) -> None:
    def push(_: int) -> int:
        with client_of(server) as own:
            return own.put(begin(own), params={"digest": DIGEST}, content=DATA).status_code

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(push, range(6))) == {201}
    with client_of(server) as client:
        assert client.get(f"/v2/team/app/blobs/{DIGEST}").content == DATA


# ---- hostile bytes ------------------------------------------------------------------------------

HOSTILE_PATHS = [
    "/v2/..%2f..%2fetc/passwd/manifests/x",
    "/v2/%2F%2F..%2F..%2Fetc%2Fpasswd/blobs/" + DIGEST,
    "/v2/team/app/blobs/..%2f..%2fmetadata.db",
    "/v2/team/app/blobs/sha256:..%2f..%2f..%2fmetadata.db",
    "/v2/team/app/blobs/uploads/..%2f..%2fmetadata.db",
    "/v2/team/app/blobs/uploads/%2e%2e",
    "/v2/team/app/manifests/%00",
    "/v2/team/app%00/manifests/v1",
    "/v2/team%5c..%5capp/manifests/v1",
    "/v2/team/app/manifests/" + "a" * 10_000,
    "/v2/" + "a/" * 4000 + "manifests/v1",
    "/v2/%ff%fe/manifests/v1",
    "/v2/%c0%ae%c0%ae/manifests/v1",
    "/v2/TEAM/app/manifests/v1",
    "/v2/team/app/manifests/v1%0d%0aX-Injected:%201",
    "/v2/team/app/tags/list?n=1%0d%0aX-Injected:%201&last=%00%ff",
    "/v2/team/app/tags/list?last=%0d%0aX-Injected:%201",
    "/v2/%252e%252e/manifests/v1",
    "/..%2f..%2f..%2fetc/passwd",
    "/.%2e/.%2e/etc/passwd",
    "*",
    "http://evil/v2/",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=range(len(HOSTILE_PATHS)))
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_cve_2024_4956_hostile_paths(server: Server, method: str, path: str) -> None:
    """CVE-2022-47747 as well. An answer of ours, never a file, never a failure."""
    answer = raw_request(
        server,
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n".encode(),
    )
    status = int(answer.split()[1])
    assert status in (200, 400, 401, 404, 405, 414), answer[:300]
    if status == 200:
        assert path == "http://evil/v2/" or path.startswith("/v2/team/app/tags/list?last=")
    assert b"root:" not in answer
    assert b"SQLite" not in answer
    assert b"\r\nX-Injected" not in answer


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /v2/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\r\n" * 100,
    ],
    ids=range(8),
)
def test_smuggling_shapes_and_rubbish_are_400_or_closed(
    server: Server, request_bytes: bytes
) -> None:
    answer = raw_request(server, request_bytes + b"GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 401", b"")
    assert b"repositories" not in answer
    with client_of(server) as client:
        assert client.get("/v2/").status_code == 200


def test_a_refused_body_does_not_disturb_the_next_request(server: Server) -> None:
    body = b"x" * 200_000
    refused = (
        f"PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    after = f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {BASIC}\r\nConnection: close\r\n\r\n"
    answer = raw_request(server, refused + body + after.encode())
    assert answer.startswith(b"HTTP/1.1 401")
    assert answer.count(b"HTTP/1.1 ") in (1, 2)
    if answer.count(b"HTTP/1.1 ") == 2:
        assert b"HTTP/1.1 200" in answer


def test_expect_100_continue_is_not_given_to_who_may_not(server: Server) -> None:
    answer = raw_request(
        server,
        b"PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        b"Expect: 100-continue\r\nConnection: close\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 401")


def test_cve_2017_11468_a_huge_manifest_costs_no_memory(server: Server) -> None:
    def resident() -> int:
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) * 1024

    def body() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (1 << 20)

    with client_of(server) as client:
        client.get("/v2/")
        before = resident()
        for _ in range(3):
            try:
                answer = client.put("/v2/team/app/manifests/v1", content=body())
                assert answer.status_code == 413
            except httpx.WriteError:
                pass  # the server closed before all was sent, as it may
        assert resident() - before < 48 << 20


# ---- full disk ----------------------------------------------------------------------------------


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
@pytest.mark.parametrize("form", ["patch", "put", "post"])
def test_a_full_disk_is_507_and_nothing_becomes_visible(tmp_path: Path, form: str) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], check=True)
    big = os.urandom(12 << 20)
    digest = str(Digest.of(big))
    try:
        server = start_pyreg(small)
        try:
            with client_of(server) as client:
                keep = b"pushed before"
                params = {"digest": str(Digest.of(keep))}
                assert client.post(UPLOADS, params=params, content=keep).status_code == 201
                location = begin(client)
                if form == "patch":
                    refused = client.patch(location, content=big)
                elif form == "put":
                    refused = client.put(location, params={"digest": digest}, content=big)
                else:
                    refused = client.post(UPLOADS, params={"digest": digest}, content=big)
                assert refused.status_code == 507, refused.text
                [error] = refused.json()["errors"]
                assert "no space left" in error["message"]
                assert client.head(f"/v2/team/app/blobs/{digest}").status_code == 404
                assert client.get(f"/v2/team/app/blobs/{params['digest']}").content == keep
                # The room is there again, and the upload goes on from where it was.
                assert received(client, location) == 0
                done = client.put(location, params={"digest": DIGEST}, content=DATA)
                assert done.status_code == 201
                assert client.get(f"/v2/team/app/blobs/{DIGEST}").content == DATA
        finally:
            server.stop()
    finally:
        subprocess.run(["umount", str(small)], check=True)


# ---- the commands -------------------------------------------------------------------------------


def pyreg(*words: str, **options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*pyreg_command(), *words],
        env=pyreg_environment(**options),
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_the_first_start_tells_the_password_of_admin_once(root: Path) -> None:
    outputs = []
    for _ in range(2):
        port = free_port()
        process = subprocess.Popen(
            [*pyreg_command(), "--root", str(root), "serve", "--port", str(port)],
            env=pyreg_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout and process.stderr
        assert process.stdout.readline() == f"pyreg registry ready at http://localhost:{port}\n"
        outputs.append((port, process))
        if len(outputs) == 1:
            first = process.stderr.readline()
            password = first.rpartition(" ")[2].strip()
            answer = httpx.get(f"http://127.0.0.1:{port}/v2/", auth=("admin", password))
            assert answer.status_code == 200
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0
        assert password not in errors
    assert (root / "registry").stat().st_mode & 0o777 == 0o700
    assert (root / "registry" / "metadata.db").stat().st_mode & 0o777 == 0o600


def test_users_change_while_the_server_runs(server: Server) -> None:
    root = root_of(server)

    def status(name: str, password: str) -> int:
        url = f"http://127.0.0.1:{server.port}/v2/"
        return httpx.get(url, auth=(name, password)).status_code

    add_user(root, "carol", "carol's password", role="reader")
    assert status("carol", "carol's password") == 200
    listed = pyreg("--root", str(root), "user", "list").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["carol", "reader"],
        [USER, "writer"],
    ]
    removed = pyreg("--root", str(root), "user", "remove", "carol")
    assert removed.returncode == 0
    deadline = time.monotonic() + 30
    while status("carol", "carol's password") != 401:
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("words", "variables", "message"),
    [
        (["--port", "{port}"], {}, "cannot listen on localhost:{port}"),
        (["--host", "256.0.0.1"], {}, "cannot listen on 256.0.0.1"),
        (["--root", "/proc/none"], {}, "cannot write to the data directory /proc/none/registry"),
        (["--config", "{root}/none.toml"], {}, "cannot read the configuration"),
        (["--config", "{root}/broken.toml"], {}, "is not valid TOML"),
        (["--config", "{root}/unknown.toml"], {}, "unknown setting 'prot'"),
        ([], {"PYREG_PORT": "many"}, "setting 'port' must be a whole number, not 'many'"),
        ([], {"PYREG_PAGE_SIZE": "0"}, "setting 'page_size' must be between"),
    ],
)
def test_what_stops_the_start_is_one_line(
    server: Server, words: list[str], variables: dict[str, str], message: str
) -> None:
    root = root_of(server)
    (root / "broken.toml").write_text("x = [")
    (root / "unknown.toml").write_text("[registry]\nprot = 1\n")
    filled = [word.format(port=server.port, root=root) for word in words]
    ended = pyreg("--root", str(root), "serve", *filled, **variables)
    assert ended.returncode == 1
    assert ended.stdout == ""
    first = ended.stderr.splitlines()[0]
    assert first.startswith("pyreg: " + message.format(port=server.port)) or message in first
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["user", "add", "bad:name"], "user name 'bad:name' is not possible"),
        (["user", "add", USER], "no terminal"),
        (["user", "add", "x", "--role", "king"], "role 'king' does not exist"),
        (["user", "remove", "nobody"], "user 'nobody' does not exist"),
        (["user", "passwd", "nobody"], "user 'nobody' does not exist"),
        (["user"], "needs one of"),
    ],
)
def test_mistakes_with_users(server: Server, words: list[str], message: str) -> None:
    ended = pyreg("--root", str(root_of(server)), *words)
    assert ended.returncode == 1
    assert message in ended.stderr


@pytest.mark.parametrize("chunked", [True, False])
def test_a_manifest_far_too_large_is_told_so_before_the_connection_ends(
    server: Server, chunked: bool
) -> None:
    """CVE-2017-11468; closing with unread bytes would reset the connection over the answer."""
    size = 24 << 20
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    with connect(server) as sock:
        sock.sendall(
            f"PUT /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {BASIC}\r\n{framing}\r\n\r\n".encode()
        )
        piece = bytes(1 << 20)
        for _ in range(size >> 20):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        assert sock.recv(64).startswith(b"HTTP/1.1 413 ")
