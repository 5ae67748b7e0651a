"""Two `pyreg serve` side by side: what one did, the next request to the other knows.

On one SQLite file and one directory (two processes of a machine), on PostgreSQL with a shared
directory, and on PostgreSQL with S3, where replicas share nothing else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from ocispec.digest import Digest
from registry.metadata.database import open_metadata
from tests.builders.postgres import PostgresServer, database_name, postgres_server
from tests.builders.s3 import S3Service, s3_service
from tests.builders.servers import (
    PASSWORD,
    USER,
    Server,
    add_user,
    pyreg_command,
    pyreg_environment,
    start_pyreg,
)

NAME = "team/app"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MIB = 1 << 20


class Replica:
    """One server, and a client of it that logs in with a password each time."""

    def __init__(self, server: Server, root: Path, environment: dict[str, str]) -> None:
        self.server = server
        self.root = root
        self.environment = environment
        # One connection for each thread that pushes, and none is reused after a kill.
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{server.port}", auth=(USER, PASSWORD), timeout=60
        )

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.http.request(method, f"/v2/{NAME}/{path}", **options)

    def token(self, name: str, password: str, scope: str) -> dict[str, str]:
        """An Authorization header as clients get it."""
        answer = httpx.get(
            f"{self.http.base_url}/token",
            params={"service": "pyreg", "scope": scope},
            auth=(name, password),
        )
        answer.raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['token']}"}

    def user(self, *words: str) -> None:
        """`pyreg user …` beside the running servers."""
        subprocess.run(
            [*pyreg_command(), "--root", str(self.root), "user", *words],
            env=pyreg_environment(**self.environment),
            check=True,
            capture_output=True,
            timeout=60,
        )

    def push_blob(self, content: bytes) -> Digest:
        digest = Digest.of(content)
        location = self("POST", "blobs/uploads/").headers["location"]
        answer = self.http.put(location, params={"digest": str(digest)}, content=content)
        assert answer.status_code == 201, answer.text
        return digest

    def push_manifest(
        self, reference: str, *layers: bytes, config: bytes = b"{}"
    ) -> httpx.Response:
        raw = manifest(*layers, config=config)
        return self(
            "PUT", f"manifests/{reference}", content=raw, headers={"Content-Type": MANIFEST}
        )

    def set_role(self, name: str, role: str) -> None:
        """As an operator's program does, in a process of its own."""
        metadata = open_metadata(
            self.root / "registry" / "metadata.db",
            database=self.environment.get("PYREG_DATABASE", ""),
        )
        asyncio.run(metadata.accounts.set_role(name, role))  # type: ignore[arg-type]
        metadata.close()

    def close(self) -> None:
        self.http.close()
        self.server.stop()


def manifest(*layers: bytes, config: bytes = b"{}") -> bytes:
    def descriptor(kind: str, content: bytes) -> dict[str, object]:
        return {"mediaType": kind, "digest": str(Digest.of(content)), "size": len(content)}

    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, config),
            "layers": [descriptor(LAYER, layer) for layer in layers],
        }
    ).encode()


@dataclass
class Pair:
    kind: str
    one: Replica
    two: Replica
    #: Of PostgreSQL.
    url: str

    def __iter__(self) -> Iterator[Replica]:
        return iter((self.one, self.two))

    def start_again(self, which: Replica) -> Replica:
        which.http.close()
        server = start_pyreg(which.root, environment=which.environment)
        return Replica(server, which.root, which.environment)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Service]:
    with s3_service(tmp_path_factory.mktemp("s3")) as service:
        yield service


@pytest.fixture(params=["sqlite+disk", "postgresql+disk", "postgresql+s3"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    roots = [tmp_path / "shared", tmp_path / "shared"]
    environment: dict[str, str] = {}
    url = ""
    if request.param != "sqlite+disk":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.create())
        environment["PYREG_DATABASE"] = url
    if request.param == "postgresql+s3":
        service: S3Service = request.getfixturevalue("s3")
        environment |= service.environment(service.make_bucket())
        roots = [tmp_path / "one", tmp_path / "two"]
    replicas: list[Replica] = []
    try:
        for root in roots:
            root.mkdir(exist_ok=True)
            if replicas:
                (root / ".user-added").touch()
            server = start_pyreg(root, environment=environment)
            replicas.append(Replica(server, root, environment))
        pair = Pair(request.param, *replicas, url)
        yield pair
        replicas += [pair.one, pair.two]
        for root in set(roots):
            assert "Traceback" not in (root / "serve.log").read_text()
    finally:
        for replica in replicas:
            replica.close()
        if url:
            postgres.drop(database_name(url))


def test_an_upload_moves_between_replicas(pair: Pair) -> None:
    """Begun on one, each piece to the other in turn, finished on either; read from both."""
    content = random.Random(1).randbytes(3 * MIB + 17)
    location = httpx.URL(pair.one("POST", "blobs/uploads/").headers["location"]).raw_path.decode()
    pieces = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    sent = 0
    for number, piece in enumerate(pieces):
        replica = (pair.two, pair.one)[number % 2]
        answer = replica.http.patch(
            location,
            content=piece,
            headers={
                "Content-Range": f"{sent}-{sent + len(piece) - 1}",
                "Content-Type": "application/octet-stream",
            },
        )
        assert answer.status_code == 202, answer.text
        sent += len(piece)
        location = answer.headers["location"]
        for other in pair:
            assert other.http.get(location).headers["range"] == f"0-{sent - 1}"
    digest = str(Digest.of(content))
    last = (pair.two, pair.one)[len(pieces) % 2]
    assert last.http.put(location, params={"digest": digest}).status_code == 201
    for replica in pair:
        assert replica("GET", f"blobs/{digest}", follow_redirects=True).content == content
        assert replica.http.get(location).status_code == 404


def test_what_one_changed_the_next_request_to_the_other_sees(pair: Pair) -> None:
    one, two = pair
    one.push_blob(b"{}")
    for number in range(3):
        layer = b"layer %d" % number
        one.push_blob(layer)
        assert two("HEAD", f"blobs/{Digest.of(layer)}").status_code == 200
        answer = one.push_manifest("latest", layer)
        assert answer.status_code == 201, answer.text
        seen = two("GET", "manifests/latest")
        assert seen.headers["docker-content-digest"] == answer.headers["docker-content-digest"]
        assert seen.content == manifest(layer)
    assert two("GET", "tags/list").json()["tags"] == ["latest"]
    old = str(Digest.of(manifest(b"layer 0")))
    assert two("GET", f"manifests/{old}").status_code == 200
    assert one("DELETE", f"manifests/{old}").status_code == 202
    assert two("GET", f"manifests/{old}").status_code == 404
    gone = Digest.of(b"layer 0")
    assert one("DELETE", f"blobs/{gone}").status_code == 202
    assert two("HEAD", f"blobs/{gone}").status_code == 404
    assert one("DELETE", "manifests/latest").status_code == 202
    assert two("HEAD", "manifests/latest").status_code == 404


def test_attack_rights_that_ended_end_on_every_replica_at_once(pair: Pair) -> None:
    """Tokens of one are good at the other (they share keys), and end with the account."""
    one, two = pair
    one.push_blob(b"{}")
    assert one.push_manifest("latest").status_code == 201
    add_user(one.root, "eve", "eves password!", role="writer", environment=one.environment)
    scope = f"repository:{NAME}:pull,push"
    header = one.token("eve", "eves password!", scope)

    def status(method: str, path: str, replica: Replica = two) -> int:
        return httpx.request(
            method, f"{replica.http.base_url}/v2/{NAME}/{path}", headers=header
        ).status_code

    assert status("HEAD", "manifests/latest") == 200
    assert status("POST", "blobs/uploads/") == 202
    one.set_role("eve", "reader")
    assert status("POST", "blobs/uploads/") == 401
    assert status("HEAD", "manifests/latest") == 200
    one.user("remove", "eve")
    for replica in pair:
        assert status("HEAD", "manifests/latest", replica) == 401


def test_the_same_content_and_tag_pushed_to_both_at_once(pair: Pair) -> None:
    layers = [random.Random(number).randbytes(300_000) for number in range(4)]

    def push(number: int) -> None:
        replica = (pair.one, pair.two)[number % 2]
        for layer in (b"{}", *layers[number % 4 :], *layers[: number % 4]):
            replica.push_blob(layer)
        answer = replica.push_manifest("latest", *layers)
        assert answer.status_code == 201, answer.text
        answer = replica.push_manifest(f"t{number}", *layers[: number % 4 + 1])
        assert answer.status_code == 201, answer.text

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(push, range(12)))
    for replica in pair:
        assert replica("GET", "manifests/latest").content == manifest(*layers)
        assert len(replica("GET", "tags/list").json()["tags"]) == 13
        for layer in layers:
            answer = replica("GET", f"blobs/{Digest.of(layer)}", follow_redirects=True)
            assert answer.content == layer


def test_a_manifest_never_stays_without_its_blob(pair: Pair) -> None:
    one, two = pair
    one.push_blob(b"{}")
    layer = b"wanted by one, unwanted by the other"
    with ThreadPoolExecutor(2) as threads:
        for number in range(12):
            digest = one.push_blob(layer)
            put = threads.submit(one.push_manifest, f"t{number}", layer)
            removal = threads.submit(two, "DELETE", f"blobs/{digest}")
            pushed, removed = put.result().status_code, removal.result().status_code
            assert (pushed, removed) in ((201, 405), (400, 202)), (pushed, removed)
            held = two("HEAD", f"blobs/{digest}").status_code == 200
            stored = two("HEAD", f"manifests/t{number}").status_code == 200
            assert held == stored == (pushed == 201)
            if stored:
                raw = str(Digest.of(manifest(layer)))
                assert one("DELETE", f"manifests/{raw}").status_code == 202
                assert one("DELETE", f"blobs/{digest}").status_code == 202


def test_a_killed_replica_leaves_no_lock_and_its_uploads_to_the_other(pair: Pair) -> None:
    content = random.Random(2).randbytes(2 * MIB)
    kept = httpx.URL(pair.one("POST", "blobs/uploads/").headers["location"]).raw_path.decode()
    answer = pair.one.http.patch(kept, content=content[:MIB])
    assert answer.status_code == 202
    kept = answer.headers["location"]
    shared = [b"shared %d" % number for number in range(4)]

    def push(number: int) -> None:
        try:
            for layer in (b"{}", *shared):
                pair.one.push_blob(layer)
            pair.one.push_manifest(f"one{number % 4}", *shared, config=b"{}")
        except (httpx.HTTPError, AssertionError, KeyError):
            pass  # it was killed; nothing is known of this one

    with ThreadPoolExecutor(6) as threads:
        running = [threads.submit(push, number) for number in range(60)]
        running[9].result()
        pair.one.server.kill()
        for each in running:
            each.cancel()
    for layer in (b"{}", *shared):
        pair.two.push_blob(layer)
    assert pair.two.push_manifest("after", *shared).status_code == 201
    digest = str(Digest.of(content))
    answer = pair.two.http.put(kept, params={"digest": digest}, content=content[MIB:])
    assert answer.status_code == 201, answer.text
    if pair.url:
        with psycopg.connect(pair.url) as connection:
            query = """SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in trans%%'
                       AND datname = current_database() AND pid <> pg_backend_pid()"""
            assert connection.execute(query).fetchone() == (0,)
    pair.one = pair.start_again(pair.one)
    answer = pair.one("GET", f"blobs/{digest}", follow_redirects=True)
    assert answer.content == content
    for tag in pair.one("GET", "tags/list").json()["tags"]:
        for layer in json.loads(pair.one("GET", f"manifests/{tag}").content)["layers"]:
            assert pair.one("HEAD", f"blobs/{layer['digest']}").status_code in (200, 307)


def test_without_its_database_a_replica_says_503_and_recovers(tmp_path: Path) -> None:
    with postgres_server() as server:
        url = server.url(server.create())
        environment = {"PYREG_DATABASE": url}
        root = tmp_path / "root"
        replica = Replica(start_pyreg(root, environment=environment), root, environment)
        try:
            replica.push_blob(b"{}")
            assert replica.push_manifest("latest").status_code == 201
            credentials = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            replica.http.headers["Authorization"] = f"Basic {credentials}"
            server.stop(crash=True)
            answer = replica("GET", "manifests/latest")
            assert answer.status_code == 503, answer.text
            assert answer.headers["retry-after"]
            server.start()
            assert replica("GET", "manifests/latest").status_code == 200
            log = replica.server.log.read_text()
            assert "Traceback" not in log
            assert server.url().split(":")[2].split("@")[0] not in log + answer.text
        finally:
            replica.close()
    shutil.rmtree(root)
