"""The collector: how many manifests a minute it removes, and what requests notice of it.

The database and the store are filled directly with what 10,000 images leave behind when nobody
wants them any more: manifests whose time is over, blobs that no manifest uses, and bytes that are
to be swept, two of each an image. The server has its usual settings. Beside it runs a burst of GET
of a manifest, before and while it collects.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from pathlib import Path

from tests.benchmarks.distribution import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Target, bearer
from tests.benchmarks.harness import Row, compiled, contest
from tests.benchmarks.registry import small_requests
from tests.builders.servers import start_pyreg

IMAGES = 10_000
REPOSITORIES = 100
CONNECTIONS = 16
BURST_S = 3.0
#: So many times the p99 without the collector is fine.
P99 = 1.2
A_MINUTE = 10_000
KEPT = "bench/kept"


def fill(root: Path, images: int, *, salt: str) -> None:
    """Images nobody wants any more in each of three states, and one that stays."""
    connection = sqlite3.connect(root / "registry" / "metadata.db")
    store = root / "registry"

    def blob(content: bytes, *, file: bool) -> tuple[str, str]:
        encoded = hashlib.sha256(content).hexdigest()
        key = f"blobs/sha256/{encoded[:2]}/{encoded}"
        if file:
            path = store / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return f"sha256:{encoded}", key

    def add_blob(content: bytes, repository: int, *, used: bool) -> str:
        digest, key = blob(content, file=used)
        connection.execute(
            "INSERT INTO blob (digest, size, state, generation, store_key, created_at,"
            " unreferenced_since, lease_until) VALUES (?, ?, 'live', 0, ?, 0, ?, 0)",
            (digest, len(content), key, None if used else 1),
        )
        connection.execute("INSERT INTO repository_blob VALUES (?, ?, 0)", (repository, digest))
        return digest

    def repository(name: str) -> int:
        connection.execute(
            "INSERT INTO repository (name, created_at) VALUES (?, 0) ON CONFLICT DO NOTHING",
            (name,),
        )
        found = connection.execute("SELECT id FROM repository WHERE name = ?", (name,))
        return int(found.fetchone()[0])

    def image(id: int, name: str) -> tuple[int, str]:
        blobs = [add_blob(f"{salt} {name} {kind}".encode(), id, used=True) for kind in "cl"]
        sized = [
            {"mediaType": kind, "digest": digest, "size": len(f"{salt} {name} c")}
            for kind, digest in zip((OCI_CONFIG, OCI_LAYER_GZIP), blobs, strict=True)
        ]
        raw = json.dumps(
            {
                "schemaVersion": 2, "mediaType": OCI_MANIFEST,
                "config": sized[0], "layers": sized[1:],
            }
        ).encode()  # fmt: skip
        digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
        added = connection.execute(
            "INSERT INTO manifest (repository_id, digest, media_type, size, artifact_type,"
            " config_media_type, actor, pushed_at, raw, annotations)"
            " VALUES (?, ?, ?, ?, '', ?, '', 0, ?, '{}')",
            (id, digest, OCI_MANIFEST, len(raw), OCI_CONFIG, raw),
        )
        for role, used in zip(("config", "layer"), blobs, strict=True):
            connection.execute(
                "INSERT INTO manifest_blob (manifest_id, digest, role, repository_id)"
                " VALUES (?, ?, ?, ?)",
                (added.lastrowid, used, role, id),
            )
        return added.lastrowid or 0, digest

    queue = (
        "INSERT INTO gc_queue (kind, repository_id, key, due_at, event, tries)"
        " VALUES (?, ?, ?, 1, 'bench', 0)"
    )
    try:
        with connection:
            ids = [repository(f"bench/old{number}") for number in range(REPOSITORIES)]
            for number in range(images):
                id = ids[number % REPOSITORIES]
                _, digest = image(id, str(number))
                connection.execute(queue, ("manifest", id, digest))
                for kind in "ab":
                    loose = add_blob(f"{salt} loose {kind} {number}".encode(), id, used=False)
                    connection.execute(queue, ("blob", 0, loose))
                    _, key = blob(f"{salt} doomed {kind} {number}".encode(), file=True)
                    connection.execute("INSERT INTO doomed_object VALUES (?, 40, 1)", (key,))
            kept = repository(KEPT)
            if not connection.execute("SELECT 1 FROM tag").fetchone():
                manifest, _ = image(kept, "kept")
                connection.execute("INSERT INTO tag VALUES (?, 'latest', ?, 0)", (kept, manifest))
    finally:
        connection.close()


def left(database: Path) -> int:
    """What is due and not done."""
    connection = sqlite3.connect(database)
    try:
        return int(
            connection.execute(
                "SELECT (SELECT count(*) FROM gc_queue WHERE due_at <= strftime('%s'))"
                " + (SELECT count(*) FROM doomed_object WHERE doomed_at = 1)"
            ).fetchone()[0]
        )
    finally:
        connection.close()


def run(root: Path, rounds: int, *, quick: bool) -> list[Row]:
    images = IMAGES // 5 if quick else IMAGES
    load = compiled("load")
    database = root / "registry" / "metadata.db"
    start_pyreg(root).stop()
    rates: list[float] = []

    def collect(number: int) -> float:
        """p99 in microseconds while it collects."""
        fill(root, images, salt=f"{number}")
        return burst(number, collecting=True)

    def rest(number: int) -> float:
        return burst(number, collecting=False)

    def burst(number: int, *, collecting: bool) -> float:
        server = start_pyreg(root)
        began = time.monotonic()
        try:
            token = bearer(
                server.port, server.username, server.password, [f"repository:{KEPT}:pull"]
            )
            target = Target("pyreg", server.port, token)
            path = f"/v2/{KEPT}/manifests/latest"
            time.sleep(0.0 if collecting else 1.0)
            found = [
                small_requests(load, target, "GET", path, CONNECTIONS, BURST_S)["p99"]
                for _ in range(1)
            ]
            if collecting:
                assert left(database), "it was done before the burst was: fill in more"
                time_to_end(database)
                rates.append(60 * images / (time.monotonic() - began))
        finally:
            server.stop()
        return sum(found) / len(found)

    fill(root, 1, salt="first")
    row = contest(
        f"p99 of GET manifest, {CONNECTIONS} at once, beside the collector",
        {"collecting": collect, "idle": rest},
        unit="us",
        rounds=rounds,
        more_is_better=False,
        targets={"idle": 1 / P99},
    )
    shown = ", ".join(f"{rate:.0f}" for rate in rates)
    print(f"    manifests removed a minute, with 2 blobs and 2 objects each, a burst of requests"
          f" beside it: {shown} (asked for: {A_MINUTE})")  # fmt: skip
    shutil.rmtree(root, ignore_errors=True)
    return [row]


def time_to_end(database: Path) -> None:
    until = time.monotonic() + 600
    while left(database):
        assert time.monotonic() < until, "the collector does not come to an end"
        time.sleep(0.2)
