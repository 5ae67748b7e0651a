"""A registry that does what it is told to: the peer in tests of faults and attacks."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ocispec.digest import Digest
from ocispec.image.manifest import ImageManifest


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What to send. `cut` closes the connection after so many bytes of the body."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    length: bool = True  # announce Content-Length


Responder = Callable[[Seen], Answer]


class Rogue:
    """Answers by exact path first, then by the longest prefix; 404 otherwise."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.connections = 0
        self.answers: dict[str, Responder] = {}
        rogue = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                rogue.connections += 1
                super().setup()

            def log_message(self, format: str, *args: object) -> None:
                pass

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length)
                seen = Seen(self.command, self.path, dict(self.headers.items()), body)
                rogue.seen.append(seen)
                answer = rogue.answer(seen)
                self.send_response(answer.status)
                for name, text in answer.headers.items():
                    self.send_header(name, text)
                if answer.length:
                    self.send_header("Content-Length", str(len(answer.body)))
                else:
                    self.close_connection = True
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(answer.body[: answer.cut])
                if answer.cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that hangs up early is what many of these tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            # The handshake belongs to the connection's thread, not to the accepting one.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    def on(self, path: str, answer: Answer | Responder) -> None:
        self.answers[path] = (lambda _: answer) if isinstance(answer, Answer) else answer

    def answer(self, seen: Seen) -> Answer:
        path = seen.path.partition("?")[0]
        for known in sorted(self.answers, key=len, reverse=True):
            if path == known or (known.endswith("*") and path.startswith(known[:-1])):
                return self.answers[known](seen)
        if path == "/v2/":
            return Answer(body=b"{}")
        return Answer(404, b'{"errors":[{"code":"NAME_UNKNOWN","message":"unknown"}]}')

    def requests(self, method: str, path: str = "") -> list[Seen]:
        return [s for s in self.seen if s.method == method and s.path.startswith(path)]

    def serve_image(self, name: str, tag: str, manifest: ImageManifest, *blobs: bytes) -> None:
        """A well-behaved image, of which a test then spoils a part."""
        for reference in (tag, str(manifest.digest)):
            self.on(
                f"/v2/{name}/manifests/{reference}",
                Answer(
                    body=manifest.raw,
                    headers={
                        "Content-Type": manifest.media_type,
                        "Docker-Content-Digest": str(manifest.digest),
                    },
                ),
            )
        for blob in blobs:
            self.on(f"/v2/{name}/blobs/{Digest.of(blob)}", ranged(blob))

    def challenge(self, realm: str, *, scope: str = "") -> Answer:
        text = f'Bearer realm="{realm}",service="rogue"'
        if scope:
            text += f',scope="{scope}"'
        return Answer(401, b"{}", {"WWW-Authenticate": text})

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def ranged(blob: bytes, *, cut: int | None = None) -> Responder:
    """A blob that can be continued from an offset; every answer ends after `cut` bytes."""

    def answer(seen: Seen) -> Answer:
        start = 0
        if "Range" in seen.headers:
            start = int(seen.headers["Range"].removeprefix("bytes=").rstrip("-"))
        headers = {"Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(blob) - 1}/{len(blob)}"
        return Answer(206 if start else 200, blob[start:], headers, cut=cut)

    return answer


def token(text: str, **more: object) -> Answer:
    return Answer(
        body=json.dumps({"token": text, "expires_in": 300, **more}).encode(),
        headers={"Content-Type": "application/json"},
    )


@contextmanager
def rogue_registry(tls: ssl.SSLContext | None = None) -> Iterator[Rogue]:
    rogue = Rogue(tls)
    rogue.start()
    try:
        yield rogue
    finally:
        rogue.stop()
