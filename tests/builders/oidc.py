"""An issuer of tokens: a real HTTP server on loopback, with keys that rotate, and with faults."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

AUDIENCE = "pyreg"
SUBJECT = "repo:team/app:ref:refs/heads/main"


class Issuer:
    """`with Issuer() as issuer:` serves discovery and keys; `token` signs claims.

    `discovery` replaces members of the document; `faults` are "giant", "slow", "redirect".
    """

    def __init__(self) -> None:
        self.discovery: dict[str, Any] = {}
        self.fault = ""
        self.asked: list[str] = []
        self.done = threading.Event()
        self.keys: dict[str, tuple[str, Any]] = {}
        self.rotate("RS256")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Issuer:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def rotate(self, algorithm: str) -> None:
        """Another key from now on; the ones before are not shown any more."""
        key: Any = (
            rsa.generate_private_key(65537, 2048)
            if algorithm.startswith("RS")
            else ec.generate_private_key(ec.SECP256R1())
        )
        self.kid = f"key-{time.monotonic_ns()}"
        self.keys = {self.kid: (algorithm, key)}

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": self.url, "sub": SUBJECT, "aud": AUDIENCE, "iat": now, "exp": now + 300,
            "repository": "team/app", **changes,
        }  # fmt: skip

    def token(self, **changes: Any) -> str:
        algorithm, key = self.keys[self.kid]
        return jwt.encode(self.claims(**changes), key, algorithm, headers={"kid": self.kid})

    def unsigned(self, **changes: Any) -> str:
        parts = ({"alg": "none", "kid": self.kid, "typ": "JWT"}, self.claims(**changes))
        return ".".join(map(_encoded, (json.dumps(part).encode() for part in parts))) + "."

    def signed_with_public_key(self, **changes: Any) -> str:
        """HS256 with the public key as its secret."""
        pem = self.keys[self.kid][1].public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )  # fmt: skip
        parts = ({"alg": "HS256", "kid": self.kid, "typ": "JWT"}, self.claims(**changes))
        text = ".".join(map(_encoded, (json.dumps(part).encode() for part in parts)))
        return f"{text}.{_encoded(hmac.digest(pem, text.encode(), hashlib.sha256))}"

    def _jwks(self) -> dict[str, Any]:
        shown = []
        for kid, (algorithm, key) in self.keys.items():
            kind = jwt.algorithms.get_default_algorithms()[algorithm]
            document = kind.to_jwk(key.public_key(), as_dict=True)
            shown.append({**document, "kid": kid, "use": "sig", "alg": algorithm})
        return {"keys": shown}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                document: Any = issuer._jwks()
                if self.path.endswith("/.well-known/openid-configuration"):
                    jwks = f"{issuer.url}/keys"
                    document = {"issuer": issuer.url, "jwks_uri": jwks, **issuer.discovery}
                elif issuer.fault == "redirect":
                    self.send_response(302)
                    self.send_header("location", f"{issuer.url}/elsewhere")
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                elif issuer.fault == "slow":
                    issuer.done.wait(20)
                elif issuer.fault == "giant":
                    document["padding"] = "x" * (1 << 20)
                body = json.dumps(document).encode()
                try:
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # whoever asked has had enough

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
