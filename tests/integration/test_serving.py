"""How `pyreg serve` runs: certificates, worker processes, signals, and what a stop leaves."""

from __future__ import annotations

import base64
import datetime
import hashlib
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.builders.servers import (
    PASSWORD,
    USER,
    Server,
    add_user,
    free_port,
    pyreg_command,
    pyreg_environment,
    start,
)

BASIC = {"authorization": "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


def certificate(directory: Path, name: str) -> None:
    """A self-signed certificate for localhost, `cert.pem` and `key.pem`, each replaced at once."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    for file, data in (
        ("cert.pem", made.public_bytes(encoding)),
        ("key.pem", key.private_bytes(encoding, form, none)),
    ):
        directory.joinpath(file + ".new").write_bytes(data)
        directory.joinpath(file + ".new").rename(directory / file)


def shown_name(port: int) -> str:
    """The common name of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        with context.wrap_socket(plain) as sock:
            raw = sock.getpeercert(binary_form=True)
    assert raw is not None
    [name] = x509.load_der_x509_certificate(raw).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def eventually(check: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    deadline = time.monotonic() + limit_s
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def serving(root: Path, *words: str, tls: bool = False, **environment: str) -> Iterator[Server]:
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "registry").exists():
        add_user(root)
    port = free_port()
    server = start(
        [*pyreg_command(), "--root", str(root), "serve", "--host", "127.0.0.1",
         "--port", str(port), *words],
        port,
        root / "serve.log",
        environment=pyreg_environment(**environment),
        ready=lambda _: "registry ready at" in (root / "serve.log").read_text(),
    )  # fmt: skip
    try:
        yield server
    finally:
        server.stop()
        assert "Traceback" not in server.log.read_text()
        server.log.unlink()


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> http.client.HTTPResponse:
    """One request on a connection of its own; the body is in `.body`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {**BASIC, "connection": "close", **headers})
    answer = connection.getresponse()
    answer.body = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def workers_of(server: Server) -> list[int]:
    pid = server.process.pid
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# --- TLS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_certificate_is_used_while_a_transfer_goes_on(tmp_path: Path, workers: str) -> None:
    certificate(tmp_path, "first")
    files = (
        "--tls-certificate",
        str(tmp_path / "cert.pem"),
        "--tls-key",
        str(tmp_path / "key.pem"),
    )
    with serving(
        tmp_path / "data", *files, "--workers", workers, PYREG_ANONYMOUS_PULL="1"
    ) as server:
        assert shown_name(server.port) == "first"
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        blob = os.urandom(3 << 20)
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        pushing = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=20)
        pushing.request("POST", "/v2/a/b/blobs/uploads/", headers=BASIC)
        answer = pushing.getresponse()
        answer.read()
        where = answer.headers["location"]
        assert where.startswith("/v2/")
        pushing.putrequest("PUT", f"{where}{'&' if '?' in where else '?'}digest={digest}")
        for name, value in {**BASIC, "content-length": str(len(blob))}.items():
            pushing.putheader(name, value)
        pushing.endheaders()
        pushing.send(blob[: 1 << 20])

        certificate(tmp_path, "second")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: shown_name(server.port) == "second", "SIGHUP reloads")

        certificate(tmp_path, "third")
        eventually(lambda: {shown_name(server.port) for _ in range(6)} == {"third"}, "files change")

        (tmp_path / "key.pem").write_text("broken")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "keeping the certificate" in server.log.read_text(), "it is logged")
        assert shown_name(server.port) == "third"

        pushing.send(blob[1 << 20 :])
        answer = pushing.getresponse()
        answer.read()
        assert answer.status == 201
        pushing.close()


def test_old_protocols_and_weak_ciphers_are_refused(tmp_path: Path) -> None:
    certificate(tmp_path, "x")
    files = (
        "--tls-certificate",
        str(tmp_path / "cert.pem"),
        "--tls-key",
        str(tmp_path / "key.pem"),
    )
    with serving(tmp_path / "data", *files) as server:

        def connect(context: ssl.SSLContext) -> str | None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
                with context.wrap_socket(plain) as sock:
                    return sock.version()

        def client() -> ssl.SSLContext:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            return context

        assert connect(client()) == "TLSv1.3"
        cbc = client()
        cbc.maximum_version = ssl.TLSVersion.TLSv1_2
        assert connect(cbc) == "TLSv1.2"
        cbc.set_ciphers("ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(cbc)
        done = subprocess.run(
            ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1",
             "-cipher", "ALL:@SECLEVEL=0"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
        )  # fmt: skip
        assert done.returncode != 0


def test_clients_without_a_certificate_are_refused_when_one_is_wanted(tmp_path: Path) -> None:
    certificate(tmp_path, "authority and client")
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    words = ("--tls-certificate", cert, "--tls-key", key)
    with serving(tmp_path / "data", *words, PYREG_TLS_CLIENT_CA=cert) as server:
        context = ssl.create_default_context(cafile=cert)
        bare = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=10)
        with pytest.raises((ssl.SSLError, OSError)):
            bare.request("GET", "/livez")
            bare.getresponse()
        bare.close()
        context.load_cert_chain(cert, key)
        shown = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=10)
        shown.request("GET", "/livez")
        assert shown.getresponse().status == 200
        shown.close()


def test_a_start_that_cannot_work_is_one_line_and_touches_nothing(tmp_path: Path) -> None:
    def fails(*words: str) -> str:
        done = subprocess.run(
            [*pyreg_command(), "--root", str(tmp_path / "data"), "serve", "--port", "0", *words],
            env=pyreg_environment(), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "data" / "registry").exists()
        return done.stderr

    certificate(tmp_path, "one")
    os.rename(tmp_path / "key.pem", tmp_path / "other.pem")
    certificate(tmp_path, "two")
    cert = str(tmp_path / "cert.pem")
    assert "another certificate's" in fails(
        "--tls-certificate", cert, "--tls-key", str(tmp_path / "other.pem")
    )
    assert "cannot read /nope" in fails("--tls-certificate", cert, "--tls-key", "/nope")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "already in use" in fails("--host", "127.0.0.1", "--port", port)


# --- workers ------------------------------------------------------------------------------------


def test_an_upload_begun_on_one_worker_goes_on_on_another(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        assert len(workers_of(server)) == 2
        blob = os.urandom(300_000)
        digest = "sha256:" + hashlib.sha256(blob).hexdigest()
        first, second = workers_of(server)
        # One worker stands still at a time, so that the other has to take the request.
        answers = []

        def on(worker: int, *request: object, **headers: str) -> http.client.HTTPResponse:
            other = second if worker == first else first
            os.kill(other, signal.SIGSTOP)
            try:
                return ask(server.port, *request, **headers)  # type: ignore[arg-type]
            finally:
                os.kill(other, signal.SIGCONT)

        answers.append(on(first, "POST", "/v2/a/b/blobs/uploads/"))
        where = answers[-1].headers["location"]
        for number, worker in enumerate((second, first, second)):
            piece = blob[number * 100_000 : (number + 1) * 100_000]
            answer = on(worker, "PATCH", where, piece)
            assert answer.status == 202, answer.body  # type: ignore[attr-defined]
            where = answer.headers["location"]
        sign = "&" if "?" in where else "?"
        assert on(first, "PUT", f"{where}{sign}digest={digest}", b"").status == 201
        pulled = on(second, "GET", f"/v2/a/b/blobs/{digest}")
        assert pulled.body == blob  # type: ignore[attr-defined]
        assert on(first, "DELETE", f"/v2/a/b/blobs/{digest}").status == 202
        assert on(second, "HEAD", f"/v2/a/b/blobs/{digest}").status == 404


def test_a_worker_that_dies_is_replaced_and_nobody_is_left_over(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        before = workers_of(server)
        os.kill(before[0], signal.SIGKILL)
        for _ in range(20):
            assert ask(server.port, "GET", "/v2/").status == 200
        eventually(lambda: len(set(workers_of(server)) - set(before)) == 1, "a new one comes")
        eventually(
            lambda: "ended by SIGKILL" in server.log.read_text(), "and the log says what happened"
        )
        after = workers_of(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert not any(os.path.exists(f"/proc/{pid}") for pid in (*before, *after))
        assert list((tmp_path / "run" / "registry").iterdir()) == []


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        workers = workers_of(server)
        server.kill()

        # Not children of ours: who adopts them may leave them as zombies.
        def is_gone(pid: int) -> bool:
            try:
                return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
            except FileNotFoundError:
                return True

        eventually(lambda: all(map(is_gone, workers)), "the kernel tells them")


# --- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_slow_upload_is_parked_and_goes_on_after_the_restart(
    tmp_path: Path, workers: str
) -> None:
    blob = os.urandom(2_000_000)
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    words = ("--workers", workers)
    with serving(tmp_path, *words, PYREG_GRACEFUL_S="1") as server:
        where = ask(server.port, "POST", "/v2/a/b/blobs/uploads/").headers["location"]
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"PATCH {where} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(blob)}\r\n"
        head += f"authorization: {BASIC['authorization']}\r\n\r\n"
        slow.sendall(head.encode() + blob[:1_200_000])
        upload = next((tmp_path / "registry" / "uploads").rglob("*"))
        eventually(lambda: _bytes_below(upload.parent) >= 1_200_000, "the bytes are stored")
        idle = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        idle.request("GET", "/v2/", headers=BASIC)
        idle.getresponse().read()
        server.process.send_signal(signal.SIGTERM)
        assert idle.sock.recv(1) == b"", "an idle connection is closed"
        idle.close()
        eventually(lambda: not can_connect(server.port), "nobody new")
        assert server.process.wait(20) == 0
        answer = slow.recv(4096)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in answer.lower()
        slow.close()
    with serving(tmp_path, *words) as server:
        status = ask(server.port, "GET", where)
        assert (status.status, status.headers["range"]) == (204, "0-1199999")
        where = status.headers["location"]
        answer = ask(server.port, "PATCH", where, blob[1_200_000:])
        assert answer.status == 202
        where = answer.headers["location"]
        sign = "&" if "?" in where else "?"
        assert ask(server.port, "PUT", f"{where}{sign}digest={digest}", b"").status == 201
        pulled = ask(server.port, "GET", f"/v2/a/b/blobs/{digest}")
        assert pulled.body == blob  # type: ignore[attr-defined]


def _bytes_below(directory: Path) -> int:
    return sum(each.stat().st_size for each in directory.rglob("*") if each.is_file())


def test_a_running_request_is_finished(tmp_path: Path) -> None:
    blob = os.urandom(500_000)
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    with serving(tmp_path) as server:
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"POST /v2/a/b/blobs/uploads/?digest={digest} HTTP/1.1\r\nhost: x\r\n"
        head += f"content-length: {len(blob)}\r\nauthorization: {BASIC['authorization']}\r\n\r\n"
        slow.sendall(head.encode() + blob[:100_000])
        eventually(
            lambda: _bytes_below(tmp_path / "registry" / "uploads") >= 100_000, "it has begun"
        )
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not can_connect(server.port), "nobody new")
        slow.sendall(blob[100_000:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 201 ")
        slow.close()
        assert server.process.wait(20) == 0


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionError:
        return False
    return True


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_second_signal_does_not_wait(tmp_path: Path, workers: str) -> None:
    with serving(tmp_path, "--workers", workers, PYREG_GRACEFUL_S="3600") as server:
        where = ask(server.port, "POST", "/v2/a/b/blobs/uploads/").headers["location"]
        slow = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        head = f"PATCH {where} HTTP/1.1\r\nhost: x\r\ncontent-length: 900000\r\n"
        slow.sendall(f"{head}authorization: {BASIC['authorization']}\r\n\r\n".encode() + b"x" * 9)
        eventually(lambda: _bytes_below(tmp_path / "registry" / "uploads") >= 9, "it has begun")
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: not can_connect(server.port), "it stops")
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        slow.close()


# --- the service manager ------------------------------------------------------------------------


def test_readiness_and_stopping_are_told_and_sockets_taken(tmp_path: Path) -> None:
    """As systemd does it: descriptor 3 listens, NOTIFY_SOCKET hears."""
    add_user(tmp_path)
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(20)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    words = json.dumps([*pyreg_command(), "--root", str(tmp_path), "serve"])
    # LISTEN_PID is known only in the process itself, just before it becomes the server.
    program = (
        f"import os; os.dup2({listening.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid());"
        f"words = {words}; os.execv(words[0], words)"
    )
    process = subprocess.Popen(
        [pyreg_command()[0], "-c", program],
        env=pyreg_environment(NOTIFY_SOCKET=str(tmp_path / "notify"), LISTEN_FDS="1"),
        pass_fds=(listening.fileno(), 3) if listening.fileno() != 3 else (3,),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert told.recv(100) == b"READY=1"
        assert ask(port, "GET", "/v2/").status == 200
        process.send_signal(signal.SIGTERM)
        assert told.recv(100) == b"STOPPING=1"
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        listening.close()
        told.close()
