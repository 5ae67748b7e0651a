"""`kill -9` of the registry at random points of pushes, mounts, retags and deletes.

Each worker owns its repository and knows for every tag what was acknowledged last, and what one
request that got no answer may have changed. After every kill the registry must show the one or the
other, whole; then the request is repeated and must succeed.

30 kills by default, and 10 where blobs are on S3 and metadata on PostgreSQL;
`PYREG_TEST_KILLS=500 pytest tests/crash/test_soak.py` is the soak.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from ocispec.digest import Digest
from tests.builders.postgres import PostgresServer
from tests.builders.raw import RawImage, RawRegistry, raw_image
from tests.builders.rootfs import archive
from tests.builders.s3 import s3_service
from tests.builders.servers import Server, start_pyreg
from tests.crash.conftest import SEED, kills

WORKERS = 3
TAGS = ("a", "b", "c")
KIB = 1 << 10
BASE = "soak/base"
# Delete answers: accepted; or nothing is there, when the lost request had already done it.
GONE = (202, 404)


@dataclass
class Worker:
    """One repository, the truth about it, and the request that is under way."""

    number: int
    shared: bytes
    random: random.Random
    #: What every tag names, as acknowledged; a tag that is not here is not there.
    tags: dict[str, RawImage] = field(default_factory=dict)
    #: The tag that an unanswered request changes, and the image it has afterwards (None: gone).
    pending: tuple[str, RawImage | None] | None = None
    acknowledged: int = 0
    wrong: str = ""

    @property
    def repository(self) -> str:
        return f"soak/w{self.number}"

    def run(self, port: int) -> None:
        """Work until the registry is gone."""
        registry = RawRegistry(port)
        try:
            while True:
                self.step(registry)
        except OSError:
            pass
        except AssertionError as error:
            self.wrong = str(error)
        finally:
            registry.close()

    def step(self, registry: RawRegistry) -> None:
        if self.pending is None:
            tag = self.random.choice(TAGS)
            if tag in self.tags and self.random.random() < 0.4:
                self.pending = tag, None
            else:
                noise = self.random.randbytes(self.random.randrange(1, 300 * KIB))
                self.pending = tag, raw_image(archive({"noise": noise}), self.shared)
        tag, image = self.pending
        if image is None:
            self.delete(registry, tag)
            self.tags.pop(tag, None)
        else:
            self.push(registry, tag, image)
            self.tags[tag] = image
        self.pending = None
        self.acknowledged += 1

    def push(self, registry: RawRegistry, tag: str, image: RawImage) -> None:
        for blob in image.blobs:
            if blob is self.shared:
                self.mount(registry, blob)
            elif self.random.random() < 0.5:
                self.expect(registry.put_blob(self.repository, blob).status, 201)
            else:
                self.send_in_pieces(registry, blob)
        put = registry.put_manifest(self.repository, tag, image.manifest)
        self.expect(put.status, 201)

    def mount(self, registry: RawRegistry, blob: bytes) -> None:
        query = f"mount={Digest.of(blob)}&from={BASE}"
        mounted = registry.ask("POST", f"/v2/{self.repository}/blobs/uploads/?{query}", b"")
        self.expect(mounted.status, 201)

    def send_in_pieces(self, registry: RawRegistry, blob: bytes) -> None:
        where = registry.begin_upload(self.repository)
        middle = self.random.randrange(len(blob))
        for piece in (blob[:middle], blob[middle:]):
            if piece:
                answer = registry.ask("PATCH", where, piece)
                self.expect(answer.status, 202)
                where = str(answer.headers["Location"])
        joint = "&" if "?" in where else "?"
        put = registry.ask("PUT", f"{where}{joint}digest={Digest.of(blob)}", b"")
        self.expect(put.status, 201)

    def delete(self, registry: RawRegistry, tag: str) -> None:
        """The tag alone, or its manifest, which takes the tag along."""
        where = f"/v2/{self.repository}/manifests/"
        if self.random.random() < 0.5 or tag not in self.tags:
            self.expect(registry.ask("DELETE", where + tag).status, *GONE)
        else:
            digest = self.tags[tag].manifest.digest
            self.expect(registry.ask("DELETE", f"{where}{digest}").status, *GONE)
            self.expect(registry.ask("DELETE", where + tag).status, *GONE)

    def check(self, registry: RawRegistry) -> None:
        """What the registry shows is what was acknowledged, or what the lost request asked for."""
        visible = set(registry.tags(self.repository))
        touched = self.pending[0] if self.pending else ""
        assert visible - {touched} == set(self.tags) - {touched}
        for tag in visible - {touched}:
            registry.assert_whole(self.repository, tag, self.tags[tag])
        if touched in visible:
            found = registry.manifest(self.repository, touched).body
            possible = [each for each in (self.tags.get(touched), self.pending[1]) if each]
            (shown,) = [each for each in possible if each.manifest.raw == found]
            registry.assert_whole(self.repository, touched, shown)
        elif touched in self.tags:
            assert self.pending[1] is None, f"{touched} was lost"

    @staticmethod
    def expect(found: int, *wanted: int) -> None:
        assert found in wanted, f"answered {found}, not {wanted}"


def test_soak(tmp_path: Path) -> None:
    soak(tmp_path, kills(30), {})


def test_soak_on_s3_and_postgresql(tmp_path: Path, postgres: PostgresServer) -> None:
    database = postgres.create()
    try:
        with s3_service(tmp_path / "s3") as s3:
            environment = s3.environment(s3.make_bucket())
            soak(tmp_path, kills(10), {**environment, "PYREG_DATABASE": postgres.url(database)})
    finally:
        postgres.drop(database)


def soak(tmp_path: Path, rounds: int, environment: dict[str, str]) -> None:
    moment = random.Random(f"{SEED} soak")
    shared = archive({"shared": moment.randbytes(200 * KIB)})
    workers = [Worker(n, shared, random.Random(f"{SEED} {n}")) for n in range(WORKERS)]
    root = tmp_path / "serve"
    server = start_pyreg(root, environment=environment)
    base = raw_image(shared)
    registry = RawRegistry(server.port)
    registry.put_image(BASE, "latest", base)
    registry.close()
    try:
        for _ in range(rounds):
            meet_a_kill(server, workers, moment.uniform(0.01, 0.5))
            server = start_pyreg(root, port=server.port, environment=environment)
            registry = RawRegistry(server.port)
            for worker in workers:
                worker.check(registry)
                worker.step(registry)  # the lost request again
                worker.check(registry)
            registry.close()
        assert min(worker.acknowledged for worker in workers) >= rounds
        registry = RawRegistry(server.port)
        registry.assert_whole(BASE, "latest", base)
        registry.close()
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()


def meet_a_kill(server: Server, workers: list[Worker], after_s: float) -> None:
    threads = [threading.Thread(target=worker.run, args=(server.port,)) for worker in workers]
    for thread in threads:
        thread.start()
    time.sleep(after_s)
    server.kill()
    for thread in threads:
        thread.join(30)
    assert not [worker.wrong for worker in workers if worker.wrong]
