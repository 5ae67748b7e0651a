"""The nginx.conf of deploy/ before two real replicas on one database, with TLS."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.builders.servers import PASSWORD, USER, free_port, start_pyreg
from tests.builders.tools import require_tool

CONFIGURATION = Path(__file__).parents[2] / "deploy/nginx.conf"
BLOB = os.urandom(1 << 20) * 6
DIGEST = "sha256:" + hashlib.sha256(BLOB).hexdigest()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Where nginx listens, and a directory with tls.crt and the replicas' logs."""
    nginx, openssl = require_tool("nginx"), require_tool("openssl")
    place = tmp_path_factory.mktemp("nginx")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-keyout", place / "tls.key", "-out", place / "tls.crt", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    environment = {"PYREG_TRUSTED_PROXIES": "127.0.0.0/8", "PYREG_ACCESS_LOG": "text"}
    replicas = []
    ended = None
    try:
        for _ in range(2):
            replicas.append(start_pyreg(place / "data", environment=environment))
        port = free_port()
        text = CONFIGURATION.read_text()
        for number, replica in enumerate(replicas, 1):
            text = text.replace(f"registry-{number}:5000", f"127.0.0.1:{replica.port}")
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        text = text.replace("        listen [::]:443 ssl;\n", "")
        text = text.replace("/etc/pyreg/", f"{place}/").replace("/tmp/nginx", f"{place}/nginx")
        # Nowhere to put a body: what nginx would store aside is refused.
        text = text.replace(
            "    server_tokens off;",
            "    server_tokens off;\n"
            + "".join(
                f"    {kind}_temp_path {place}/{kind};\n"
                for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        )
        (place / "nginx.conf").write_text(text)
        command = [nginx, "-p", str(place), "-c", str(place / "nginx.conf")]
        command += ["-e", str(place / "error.log")]
        subprocess.run([*command, "-t"], check=True, capture_output=True, timeout=30)
        ended = subprocess.Popen([*command, "-g", "daemon off;"])
        url = f"https://localhost:{port}"
        deadline = time.monotonic() + 20
        with client(url, place) as probe:
            while True:
                try:
                    probe.get("/v2/")
                    break
                except httpx.ConnectError:
                    assert time.monotonic() < deadline and ended.poll() is None
                    time.sleep(0.05)
        yield url, place
    finally:
        if ended is not None:
            ended.terminate()
            ended.wait(20)
        for replica in replicas:
            replica.stop()


def client(url: str, place: Path, **options: object) -> httpx.Client:
    trust = ssl.create_default_context(cafile=place / "tls.crt")
    return httpx.Client(base_url=url, verify=trust, trust_env=False, **options)  # type: ignore[arg-type]


def test_push_and_pull_of_megabytes_through_nginx(proxy: tuple[str, Path]) -> None:
    url, place = proxy
    with client(url, place) as anonymous:
        challenge = anonymous.get("/v2/").headers["www-authenticate"]
        # The scheme and host that the client used, not those of the replica.
        assert f'realm="{url}/token"' in challenge
        token = anonymous.get(
            "/token", params={"scope": "repository:a/b:pull,push"}, auth=(USER, PASSWORD)
        ).json()["token"]
    with client(url, place, headers={"authorization": f"Bearer {token}"}, timeout=60) as alice:
        begun = alice.post("/v2/a/b/blobs/uploads/")
        assert begun.status_code == 202
        location = begun.headers["location"]
        assert location.startswith("/")
        # Chunked, as docker does: the two requests may meet different replicas.
        sent = alice.patch(
            location, content=(BLOB[i : i + 65536] for i in range(0, len(BLOB), 65536))
        )
        assert sent.status_code == 202, sent.text
        done = alice.put(sent.headers["location"], params={"digest": DIGEST})
        assert done.status_code == 201, done.text
        for _ in range(2):
            answer = alice.get(f"/v2/a/b/blobs/{DIGEST}")
            assert answer.content == BLOB
        part = alice.get(f"/v2/a/b/blobs/{DIGEST}", headers={"range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, BLOB[5:10])


def test_nginx_stored_no_body(proxy: tuple[str, Path]) -> None:
    _, place = proxy
    test_push_and_pull_of_megabytes_through_nginx(proxy)
    assert "buffered to a temporary file" not in (place / "error.log").read_text()
    for kind in ("client_body", "proxy"):
        assert not [path for path in (place / kind).rglob("*") if path.is_file()]


def test_attack_operators_paths_and_forged_headers_through_the_proxy(
    proxy: tuple[str, Path],
) -> None:
    url, place = proxy
    with client(url, place) as anonymous:
        for path in ("/metrics", "/readyz", "/livez", "//metrics", "/./metrics", "/%6detrics"):
            answer = anonymous.get(path, headers={"host": "localhost"})
            assert answer.status_code in (403, 404), path
        answer = anonymous.get(
            "/v2/",
            headers={"x-forwarded-host": "evil.example", "x-forwarded-for": "127.0.0.1"},
        )
        assert "evil.example" not in answer.headers["www-authenticate"]
        assert len(answer.headers["x-request-id"]) == 32  # of nginx, taken over by the replica
