"""Makes `metadata.sql` and `content.json`: a registry as the first schema's version left it.

Run in a checkout of 64557c3 … 38a7b5a^ (migration 0001 only), once: `python make.py DIRECTORY`.
The files are kept, so that no later change of the code reaches what they hold.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.builders.servers import PASSWORD, USER, add_user, start_pyreg

IMAGE = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
# What the running registry does not write by itself in a few seconds.
ROWS = (
    f"INSERT INTO doomed_object VALUES ('blobs/sha256/ff/{'f' * 64}', 4, 5)",
    "UPDATE manifest SET pulled_at = pushed_at + 1 WHERE digest IN (SELECT min(digest) FROM"
    " manifest)",
    "UPDATE refresh_token SET expires_at = 4000000000",
    "UPDATE upload SET expires_at = 4000000000",
)


def digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "data")
        root.mkdir()
        for name, role in (("root", "admin"), ("reed", "reader"), ("gone", "reader")):
            add_user(root, name, PASSWORD, role=role)
        server = start_pyreg(root)
        try:
            token = fill(server.port)
        finally:
            server.stop()
        content = {
            str(path.relative_to(root)): base64.b64encode(path.read_bytes()).decode()
            for part in ("blobs", "uploads")
            for path in sorted((root / "registry" / part).rglob("*"))
            if path.is_file()
        }
        with closing(sqlite3.connect(root / "registry" / "metadata.db")) as database:
            database.execute("PRAGMA foreign_keys = ON")
            with database:
                database.execute("DELETE FROM account WHERE name = 'gone'")
                for statement in ROWS:
                    database.execute(statement)
            (target / "metadata.sql").write_text("\n".join(database.iterdump()) + "\n")
        document = {"refresh_token": token, "files": content}
        (target / "content.json").write_text(json.dumps(document, indent=1) + "\n")


def fill(port: int) -> str:
    """Pushes of every kind; a refresh token."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=(USER, PASSWORD)) as http:

        def call(method: str, path: str, **options: Any) -> httpx.Response:
            answer = http.request(method, path, **options)
            assert answer.status_code < 300, answer.text
            return answer

        def blob(name: str, content: bytes) -> dict[str, object]:
            begun = call("POST", f"/v2/{name}/blobs/uploads/")
            call("PUT", begun.headers["location"], params={"digest": digest(content)},
                 content=content)  # fmt: skip
            return {"digest": digest(content), "size": len(content)}

        def put(name: str, reference: str, document: dict[str, object]) -> dict[str, object]:
            raw = json.dumps(document).encode()
            kind = str(document["mediaType"])
            call("PUT", f"/v2/{name}/manifests/{reference or digest(raw)}", content=raw,
                 headers={"Content-Type": kind})  # fmt: skip
            return {"mediaType": kind, "digest": digest(raw), "size": len(raw)}

        def image(name: str, reference: str, *layers: bytes, **more: object) -> dict[str, object]:
            config = {"architecture": "amd64", "os": "linux", "layers": len(layers)}
            config |= {"config": {"Labels": {"origin": reference or "untagged"}}}
            document: dict[str, object] = {
                "schemaVersion": 2,
                "mediaType": IMAGE,
                "config": {"mediaType": CONFIG} | blob(name, json.dumps(config).encode()),
                "layers": [{"mediaType": LAYER} | blob(name, layer) for layer in layers],
            }
            return put(name, reference, document | more)

        first = image("team/app", "v1", b"layer one" * 40, b"shared" * 30)
        image("team/app", "latest", b"layer one" * 40)
        image("team/app", "latest", b"layer two" * 40, b"shared" * 30)
        children = [image("team/app", "", b"child %d" % number * 9) for number in range(2)]
        put("team/app", "all",
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": children})  # fmt: skip
        image("team/app", "", b"sbom", subject=first, artifactType="application/spdx+json",
              annotations={"org.example.kind": "sbom"})  # fmt: skip
        image("other/needle", "v1", b"shared" * 30)
        image("other/needle", "old", b"to be deleted")
        call("DELETE", "/v2/other/needle/manifests/old")
        blob("other/needle", b"nothing names it")
        call("POST", "/v2/mounted/app/blobs/uploads/",
             params={"mount": digest(b"shared" * 30), "from": "team/app"})  # fmt: skip
        begun = call("POST", "/v2/team/app/blobs/uploads/")
        call("PATCH", begun.headers["location"], content=b"half of an upload")
        answer = call("GET", "/token", params={"service": "pyreg", "offline_token": "true",
                      "client_id": "docker", "scope": "repository:team/app:pull"})  # fmt: skip
        return str(answer.json()["refresh_token"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
