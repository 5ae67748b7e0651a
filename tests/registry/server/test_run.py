"""Starting and stopping, and what the server says about itself."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httptools
import pytest
import uvicorn

from registry.server import run
from registry.server.protocol import missing_names
from registry.server.run import CannotListen, Listening, ServerOptions, describe, serve
from tests.registry.server.toy import Client, running

PROGRAM = """
import sys
from registry.server.run import ServerOptions, serve
from tests.registry.server.toy import Toy
serve(Toy(sys.argv[1]), ServerOptions(port=0, loop=sys.argv[2], graceful_s=1),
      lambda listening: print(listening, flush=True))
"""


def test_this_uvicorn_has_what_the_fast_paths_need() -> None:
    assert missing_names() == []
    assert uvicorn.__version__ and httptools.__version__


def test_the_active_path_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ServerOptions(loop="asyncio")
    assert describe(options) == "blob transfers: sendfile and socket intake in threads (asyncio)"
    assert "switched off" in describe(dataclasses.replace(options, fast_paths=False))
    assert "TLS is on" in describe(dataclasses.replace(options, certificate="cert.pem"))
    monkeypatch.setattr(run, "missing_names", lambda: ["FlowControl.pause_reading"])
    assert "lacks FlowControl.pause_reading" in describe(options)
    assert "\n" not in describe(options)


def test_a_taken_port_is_explained() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListen, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            serve(None, ServerOptions(port=port))


def can_connect(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reached"),
    [
        ("localhost", {"127.0.0.1", "::1"}),
        ("::", {"127.0.0.1", "::1"}),
        ("127.0.0.1", {"127.0.0.1"}),
    ],
)
def test_where_a_host_is_listened_on(host: str, reached: set[str]) -> None:
    if not can_bind_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    sockets = run.listen(ServerOptions(host=host, port=0))
    try:
        port = sockets[0].getsockname()[1]
        assert {name for name in ("127.0.0.1", "::1") if can_connect(name, port)} == reached
    finally:
        for sock in sockets:
            sock.close()


def can_bind_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_localhost_without_ipv6_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_ipv6(address: tuple[str, int], **options: Any) -> socket.socket:
        if options["family"] == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create_server(address, **options)

    create_server = socket.create_server
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    [only] = run.listen(ServerOptions(host="localhost", port=0))
    only.close()


def test_an_ipv6_address_is_written_in_brackets() -> None:
    assert str(Listening("http", "::1", 5000)) == "http://[::1]:5000"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_program_serves_and_stops_with_transfers_under_way(file: str, loop: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, file, loop], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        port = int(url.rpartition(":")[2])
        stalled = Client(port, receive_buffer=4096)
        stalled.get("/blob")
        uploading = Client(port)
        uploading.send(b"PUT /body HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\nx")
        with Client(port) as client:
            client.get("/small")
            assert client.response().body == b"small"
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        assert time.monotonic() - began < 5, "the graceful limit is one second"
        stalled.socket.close()
        uploading.socket.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_tls_goes_without_the_fast_paths(file: str, content: bytes, tmp_path: Path) -> None:
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost"
    subprocess.run(
        ["openssl", *request.split(), "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    options = ServerOptions(certificate=certificate, private_key=key, graceful_s=2)
    with running(file, options) as server:
        context = ssl.create_default_context(cafile=certificate)
        context.check_hostname = False
        with server.connect() as client:
            client.socket = context.wrap_socket(client.socket)
            client.get("/blob")
            assert client.response().body == content
            body = os.urandom(3_000_000)
            client.put("/body", body)
            assert client.response().status == 201
