"""A bare client of the Distribution API for benchmarks: the same few bytes to every server."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"

#: Docker's client sends chunks of this size.
CHUNK = 32 << 10
#: Three buffers each; the kernel takes 1024 in one call.
CHUNKS_A_CALL = 340


@dataclass
class Target:
    """A registry under load and the header that opens its doors."""

    name: str
    port: int
    authorization: str = ""

    @property
    def headers(self) -> dict[str, str]:
        base = {"Host": f"localhost:{self.port}"}
        return {**base, "Authorization": self.authorization} if self.authorization else base

    def head(self, method: str, path: str, **headers: str) -> bytes:
        """A request head as bytes."""
        fields = {**self.headers, **headers}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, {**self.headers, **headers})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def begin_upload(self, repository: str) -> str:
        """The path to PUT a blob to, without its digest."""
        response, _ = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert response.status == 202, response.status
        parts = urlsplit(response.headers["Location"])
        return f"{parts.path}?{parts.query}{'&' if parts.query else ''}"

    def put_blob(
        self, repository: str, content: bytes | memoryview, digest: str, last: bytes = b""
    ) -> None:
        """Upload `content + last` in a single PUT, the bytes sent as the kernel takes them."""
        path = f"{self.begin_upload(repository)}digest={quote(digest, safe='')}"
        head = self.head("PUT", path, **{"Content-Length": str(len(content) + len(last))})
        with socket.create_connection(("127.0.0.1", self.port)) as to:
            to.sendall(head)
            to.sendall(content)
            to.sendall(last)
            answer = _answer(to)
        assert answer.startswith("HTTP/1.1 201"), answer[:300]

    def patch_blob(
        self, repository: str, content: bytes | memoryview, digest: str, last: bytes = b""
    ) -> None:
        """The same as docker does it: one PATCH in chunks of 32 KiB, and an empty PUT."""
        path = self.begin_upload(repository).rstrip("&?")
        fields = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
        with socket.create_connection(("127.0.0.1", self.port)) as to:
            to.sendall(self.head("PATCH", path, **fields))
            with memoryview(content) as view:
                for start in range(0, len(view), CHUNK * CHUNKS_A_CALL):
                    _send_chunks(to, view[start : start + CHUNK * CHUNKS_A_CALL])
            _send_chunks(to, memoryview(last))
            to.sendall(b"0\r\n\r\n")
            answer = _answer(to)
            assert answer.startswith("HTTP/1.1 202"), answer[:300]
            lines = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:] if line)
            parts = urlsplit({name.lower(): text for name, text in lines.items()}["location"])
            query = f"{parts.query}&" if parts.query else ""
            path = f"{parts.path}?{query}digest={quote(digest, safe='')}"
            to.sendall(self.head("PUT", path, **{"Content-Length": "0"}))
            answer = _answer(to)
        assert answer.startswith("HTTP/1.1 201"), answer[:300]

    def put_manifest(self, repository: str, tag: str, manifest: bytes) -> str:
        response, body = self.request(
            "PUT", f"/v2/{repository}/manifests/{tag}", manifest, **{"Content-Type": OCI_MANIFEST}
        )
        assert response.status == 201, (response.status, body)
        return digest_of(manifest)

    def push_image(self, repository: str, tag: str, layers: list[tuple[bytes, str]]) -> str:
        """Push gzip layers, each with its diff id; the manifest digest."""
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"]},
                "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
            }
        ).encode()
        described = []
        for content, media_type in [
            (config, OCI_CONFIG),
            *((layer, OCI_LAYER_GZIP) for layer, _ in layers),
        ]:
            digest = digest_of(content)
            self.put_blob(repository, content, digest)
            described.append({"mediaType": media_type, "digest": digest, "size": len(content)})
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described[0]}
        manifest["layers"] = described[1:]
        return self.put_manifest(repository, tag, json.dumps(manifest).encode())


def _answer(to: socket.socket) -> str:
    """The head of an answer without a body."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = to.recv(65536)
        assert piece, f"closed after {answer[:300]!r}"
        answer += piece
    return answer.decode("latin-1")


def _send_chunks(to: socket.socket, content: memoryview) -> None:
    """One call for many chunks: the client must not be the slower side."""
    parts: list[bytes | memoryview] = []
    for start in range(0, len(content), CHUNK):
        piece = content[start : start + CHUNK]
        parts += [b"%x\r\n" % len(piece), piece, b"\r\n"]
    size = sum(map(len, parts))
    sent = to.sendmsg(parts) if parts else 0
    assert sent == size, f"sent {sent} of {size} bytes"


def digest_of(content: bytes | memoryview) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def bearer(port: int, username: str, password: str, scopes: list[str]) -> str:
    """The Authorization header with a token of our own registry."""
    target = Target("", port)
    basic = base64.b64encode(f"{username}:{password}".encode()).decode()
    query = "&".join(f"scope={quote(scope)}" for scope in scopes)
    challenge, _ = target.request("GET", "/v2/")
    fields = dict(
        part.split("=", 1) for part in challenge.headers["WWW-Authenticate"][7:].split(",")
    )
    realm = urlsplit(fields["realm"].strip('"'))
    service = quote(fields["service"].strip('"'))
    response, body = target.request(
        "GET", f"{realm.path}?service={service}&{query}", Authorization=f"Basic {basic}"
    )
    assert response.status == 200, body
    return f"Bearer {json.loads(body)['token']}"
