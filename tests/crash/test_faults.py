"""EIO and ENOSPC from every call that writes: an error answer, nothing half-visible, and then on.

The server runs with a preloaded library that makes the n-th open, mkdir, write, fdatasync, fsync
or rename below its data directory fail, blobs and database alike. For every n up to the number of
such calls in a push.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ocispec.digest import Digest
from tests.builders.faults import CALLS, ERRORS, Faults
from tests.builders.raw import RawImage, RawRegistry, raw_image
from tests.builders.rootfs import archive
from tests.builders.servers import Server, start_pyreg

REPOSITORY = "faulty/app"
KIB = 1 << 10
# More calls of one kind than this are not in one push.
MOST = 1000
# The database writes page by page: not each of these is tried.
STRIDE = {"write": 5}


@dataclass
class Faulty:
    server: Server
    faults: Faults


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    directory = tmp_path_factory.mktemp("faults")
    root = directory / "serve"
    root.mkdir()
    faults = Faults(directory, root)
    server = start_pyreg(root, environment=faults.environment)
    yield Faulty(server, faults)
    server.stop()
    faults.close()
    assert "Traceback" not in server.log.read_text()


def push(registry: RawRegistry, tag: str, image: RawImage) -> bool:
    """Layers in pieces, the config at once; whether all of it was acknowledged."""
    config, *layers = image.blobs
    statuses = [put_in_pieces(registry, layer) for layer in layers]
    statuses.append(put_at_once(registry, config))
    statuses.append(registry.put_manifest(REPOSITORY, tag, image.manifest).status)
    for status in statuses:
        # Nothing of ours crashed: the error is told as what it is, and asks to try again.
        assert status in (201, 404, 400, 503, 507), statuses
    return statuses[-1] == 201


def put_at_once(registry: RawRegistry, blob: bytes) -> int:
    where = f"/v2/{REPOSITORY}/blobs/uploads/"
    return registry.ask("POST", f"{where}?digest={Digest.of(blob)}", blob).status


def put_in_pieces(registry: RawRegistry, blob: bytes) -> int:
    answer = registry.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", b"")
    if answer.status != 202:
        return answer.status
    where = str(answer.headers["Location"])
    for piece in (blob[: len(blob) // 2], blob[len(blob) // 2 :]):
        answer = registry.ask("PATCH", where, piece)
        if answer.status != 202:
            return answer.status
        where = str(answer.headers["Location"])
    return registry.ask("PUT", f"{where}?digest={Digest.of(blob)}", b"").status


@pytest.mark.parametrize("error", list(ERRORS))
@pytest.mark.parametrize("call", CALLS)
def test_every_write_that_fails(faulty: Faulty, call: str, error: str) -> None:
    moment = random.Random(f"{call} {error}")
    struck = skip = 0
    registry = RawRegistry(faulty.server.port)
    sound: dict[str, RawImage] = {}
    hits = 1
    try:
        while hits:
            assert skip < MOST, "these were not all calls"
            noise = (moment.randbytes(n * KIB) for n in (3, 90))
            image = raw_image(*(archive({"noise": each}) for each in noise))
            tag = f"{call}-{error}-{skip}".lower()
            faulty.faults.arm(call, ERRORS[error], skip=skip)
            acknowledged = push(registry, tag, image)
            hits = faulty.faults.disarm()
            struck += hits
            shown = tag in registry.tags(REPOSITORY)
            assert acknowledged <= shown
            if shown:
                registry.assert_whole(REPOSITORY, tag, image)
            else:
                assert registry.manifest(REPOSITORY, str(image.manifest.digest)).status == 404
            assert push(registry, tag, image), f"{call} {skip}: does not work again"
            sound[tag] = image
            skip += moment.randint(1, STRIDE.get(call, 1))
        for tag, image in sound.items():
            registry.assert_whole(REPOSITORY, tag, image)
    finally:
        registry.close()
    assert struck, f"{call} is never called: the test shows nothing"
