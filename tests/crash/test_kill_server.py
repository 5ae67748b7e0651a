"""`kill -9` of the registry in the middle of pushes, again and again, on the same data."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import pytest

from ocispec.digest import Digest
from tests.builders.machine import Machine
from tests.builders.raw import RawImage, RawRegistry, raw_image
from tests.builders.rootfs import archive
from tests.builders.servers import Server, start_pyreg
from tests.crash.conftest import SEED, kills
from tests.integration.conftest import needs_containers

pytestmark = pytest.mark.root
KILLS = kills(10)
PUSHERS = 3
REPOSITORY = "crash/app"
KIB = 1 << 10


class Pusher(threading.Thread):
    """Pushes one image after another until the registry is gone; knows what was acknowledged."""

    def __init__(self, port: int, round_: int, number: int, shared: bytes) -> None:
        super().__init__()
        self._source = random.Random(f"{SEED} {round_} {number}")
        self._prefix = f"r{round_}-p{number}"
        self._port = port
        self._shared = shared
        self.tried: dict[str, RawImage] = {}
        self.acknowledged: set[str] = set()
        self.wrong: list[str] = []

    def run(self) -> None:
        registry = RawRegistry(self._port)
        try:
            for n in range(1000):
                tag = f"{self._prefix}-{n}"
                noise = self._source.randbytes(self._source.randrange(1, 400 * KIB))
                image = raw_image(archive({"noise": noise}), self._shared)
                self.tried[tag] = image
                for blob in image.blobs:
                    self._expect(registry.put_blob(REPOSITORY, blob).status, 201)
                self._expect(registry.put_manifest(REPOSITORY, tag, image.manifest).status, 201)
                self.acknowledged.add(tag)
        except (OSError, AssertionError) as error:
            if isinstance(error, AssertionError):
                self.wrong.append(str(error))
        finally:
            registry.close()

    @staticmethod
    def _expect(found: int, wanted: int) -> None:
        assert found == wanted, f"answered {found}, not {wanted}"


def test_every_acknowledged_push_survives_and_nothing_else_is_visible(tmp_path: Path) -> None:
    needs_containers()
    moment = random.Random(f"{SEED} server")
    shared = archive({"shared": moment.randbytes(200 * KIB)})
    tried: dict[str, RawImage] = {}
    acknowledged: set[str] = set()
    checked: set[str] = set()
    server = start_pyreg(tmp_path / "serve")
    machine = Machine(tmp_path / "machine", server.host)
    machine.login()
    try:
        for kill in range(KILLS):
            name = f"crash/pushed:v{kill}"
            machine.load(name, files={"noise": moment.randbytes(500 * KIB), "n": str(kill)})
            pushers = [Pusher(server.port, kill, n, shared) for n in range(PUSHERS)]
            for pusher in pushers:
                pusher.start()
            pushing = machine.begin("push", name)
            time.sleep(moment.uniform(0.02, 0.6))
            server.kill()
            for pusher in pushers:
                pusher.join(30)
                assert not pusher.wrong, pusher.wrong
                tried |= pusher.tried
                acknowledged |= pusher.acknowledged
            server = start_pyreg(tmp_path / "serve", port=server.port)
            done = pushing.end()  # it may have gone on with the new server by itself
            assert done.status == 0 or done.error
            registry = RawRegistry(server.port)
            visible = set(registry.tags(REPOSITORY))
            assert acknowledged <= visible, f"lost after kill {kill}"
            assert visible <= set(tried)
            for tag in sorted(visible - checked):
                # What was not acknowledged is visible whole (the answer was lost), or not at all.
                registry.assert_whole(REPOSITORY, tag, tried[tag])
            checked = visible
            for tag in tried.keys() - visible:
                assert registry.manifest(REPOSITORY, tag).status == 404
                digest = str(tried[tag].manifest.digest)
                assert registry.manifest(REPOSITORY, digest).status == 404
            registry.close()
        assert len(acknowledged) >= KILLS, "too slow to have shown anything"
        # Once more over everything, oldest kills included; then what was cut short converges.
        registry = RawRegistry(server.port)
        for tag in sorted(checked):
            registry.assert_whole(REPOSITORY, tag, tried[tag])
        for tag in sorted(tried.keys() - checked):
            registry.put_image(REPOSITORY, tag, tried[tag])
            registry.assert_whole(REPOSITORY, tag, tried[tag])
        registry.close()
        machine("push", "-a", "crash/pushed")
        other = Machine(tmp_path / "other", server.host)
        other.login()
        other("pull", "-a", "-q", "crash/pushed")
        for kill in range(KILLS):
            assert other("run", "--rm", f"crash/pushed:v{kill}", "cat", "/n").out == str(kill)
    finally:
        server.stop()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("resume", ["PATCH", "PUT"])
def test_an_upload_goes_on_where_the_killed_server_left_it(tmp_path: Path, resume: str) -> None:
    source = random.Random(resume)
    blob = source.randbytes(900 * KIB)
    digest = Digest.of(blob)
    server = start_pyreg(tmp_path / "serve")
    try:
        registry = RawRegistry(server.port)
        where = registry.begin_upload("crash/upload")
        answer = registry.ask("PATCH", where, blob[: 300 * KIB])
        assert answer.status == 202
        where = str(answer.headers["Location"])
        registry.close()
        _send_half(server, where, blob[300 * KIB :])
        server.kill()
        server = start_pyreg(tmp_path / "serve", port=server.port)
        registry = RawRegistry(server.port)
        assert registry.blob("crash/upload", digest).status == 404
        status = registry.ask("GET", where)
        assert status.status == 204
        offset = int(status.headers["Range"].partition("-")[2]) + 1
        assert 300 * KIB <= offset < len(blob)
        where = str(status.headers["Location"])
        rest = blob[offset:]
        if resume == "PATCH":
            answer = registry.ask("PATCH", where, rest, Content_Range=f"{offset}-{len(blob) - 1}")
            assert answer.status == 202, answer
            where, rest = str(answer.headers["Location"]), b""
        joint = "&" if "?" in where else "?"
        answer = registry.ask("PUT", f"{where}{joint}digest={digest}", rest)
        assert answer.status == 201, answer
        assert registry.blob("crash/upload", digest).body == blob
        registry.close()
    finally:
        server.stop()


def _send_half(server: Server, where: str, rest: bytes) -> None:
    """Begin a PATCH and leave it open with half of its body sent, so that the kill meets it."""
    import base64
    import socket

    from tests.builders.servers import PASSWORD, USER

    secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    peer = socket.create_connection(("127.0.0.1", server.port))
    head = (
        f"PATCH {where} HTTP/1.1\r\nHost: {server.host}\r\nAuthorization: Basic {secret}\r\n"
        f"Content-Length: {len(rest)}\r\n\r\n"
    )
    peer.sendall(head.encode() + rest[: len(rest) // 2])
    time.sleep(0.3)
    peer.close()
