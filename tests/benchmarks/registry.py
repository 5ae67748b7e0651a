"""The registry against CNCF distribution: small requests, big blobs, pushes, memory."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path

from tests.benchmarks.distribution import OCI_MANIFEST, Target, bearer, digest_of
from tests.benchmarks.harness import Row, compiled, contest
from tests.benchmarks.pushes import REPOSITORY as PUSHED
from tests.benchmarks.pushes import run_pushes
from tests.benchmarks.transfers import (
    BLOB,
    NGINX,
    OURS,
    THEIRS,
    UPLOADS,
    Place,
    run_downloads,
    run_idle,
    run_latency,
    run_memory,
    run_uploads,
)
from tests.builders.servers import Server, start_docker_registry, start_nginx, start_pyreg
from tests.builders.tools import find_tool

REPOSITORY = "bench/image"
#: Processes of `pyreg serve` where one is not all that is measured.
WORKERS = 2
GROUPS = ("small", "get", "put", "patch", "push", "latency", "memory")


def small_requests(
    load: str, target: Target, method: str, path: str, connections: int, seconds: float
) -> dict[str, float]:
    """One burst of the same request; requests a second and latencies in microseconds."""
    done = subprocess.run(
        [load, str(target.port), str(connections), str(seconds), method],
        input=target.head(method, path, Accept=OCI_MANIFEST),
        capture_output=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert not found["not_ok"], f"{target.name}: {found['not_ok']} answers were not 200"
    return {"rate": found["requests"] / found["seconds"], "p50": found["p50"], "p99": found["p99"]}


def run(root: Path, rounds: int, *, quick: bool, only: Collection[str] = GROUPS) -> list[Row]:
    """The contests of the registry; servers' data below `root`."""
    load, fetch = compiled("load"), compiled("fetch")
    if not load:
        print("no C compiler (apt-get install gcc libc6-dev): only uploads are measured")
        only = {"put", "patch"} & set(only)
    ours, theirs = start_pyreg(root / "pyreg"), start_docker_registry(root / "docker-registry")
    servers = [ours, theirs]
    try:
        targets = [Target(OURS, ours.port), Target(THEIRS, theirs.port)]
        places = [
            Place(target, server, root / target.name)
            for target, server in zip(targets, servers, strict=True)
        ]
        rows: list[Row] = []
        if "memory" in only:
            rows.append(run_idle(places))
        _log_in(targets[0], ours)
        big = os.urandom(BLOB)
        digest = digest_of(big)
        path = f"/v2/{REPOSITORY}/blobs/{digest}"
        small = [(os.urandom(2048), digest_of(b"diff"))]
        for target in targets:
            target.put_blob(REPOSITORY, big, digest)
            target.push_image(REPOSITORY, "latest", small)
        readers, paths = targets, {target.name: path for target in targets}
        if "get" in only and find_tool("nginx"):
            servers.append(start_nginx(root / "nginx"))
            (root / "nginx/www/blob").write_bytes(big)
            readers = [*targets, Target(NGINX, servers[-1].port)]
            paths[NGINX] = "/blob"
        elif "get" in only:
            print("no nginx (apt-get install nginx-light): static files not measured")
        del big

        def one_client(target: Target) -> dict[str, float]:
            tag = f"/v2/{REPOSITORY}/manifests/latest"
            return small_requests(load, target, "GET", tag, 1, 2.0 if quick else 3.0)

        seconds = 1.0 if quick else 2.0

        def pushes() -> list[Row]:
            images = 20 if quick else 60
            rows = run_pushes(targets, rounds, images)
            several = start_pyreg(root / "pyreg-workers", "--workers", str(WORKERS))
            try:
                target = Target(OURS, several.port)
                _log_in(target, several)
                return rows + run_pushes([target, targets[1]], rounds, images, workers=WORKERS)
            finally:
                several.stop()

        groups: dict[str, Callable[[], list[Row]]] = {
            "small": lambda: _small(load, targets, digest_of(small[0][0]), rounds, seconds),
            "get": lambda: run_downloads(fetch, readers, paths, rounds),
            "put": lambda: run_uploads("put", places, rounds),
            "patch": lambda: run_uploads("patch", places, rounds),
            "push": pushes,
            "latency": lambda: run_latency(fetch, one_client, places, path, rounds),
            "memory": lambda: run_memory(fetch, places),
        }
        for name, group in groups.items():
            if name in only:
                _log_in(targets[0], ours)  # tokens end after minutes
                rows += group()
        return rows
    finally:
        for server in servers:
            server.stop()


def _log_in(target: Target, server: Server) -> None:
    scopes = [f"repository:{name}:pull,push" for name in (REPOSITORY, UPLOADS, PUSHED)]
    target.authorization = bearer(server.port, server.username, server.password, scopes)


def _small(load: str, targets: list[Target], blob: str, rounds: int, seconds: float) -> list[Row]:
    rows = []
    for title, method, path in (
        ("GET manifest by tag", "GET", f"/v2/{REPOSITORY}/manifests/latest"),
        ("HEAD manifest by tag", "HEAD", f"/v2/{REPOSITORY}/manifests/latest"),
        ("HEAD blob", "HEAD", f"/v2/{REPOSITORY}/blobs/{blob}"),
    ):
        for connections in (1, 16, 64):
            slow: dict[str, list[float]] = {target.name: [] for target in targets}

            def measure(
                number: int,
                target: Target,
                slow: dict[str, list[float]] = slow,
                call: tuple[str, str, int] = (method, path, connections),
            ) -> float:
                found = small_requests(load, target, *call, seconds)
                if number:
                    slow[target.name].append(found["p99"] / 1000)
                return found["rate"]

            row = contest(
                f"{title}, {connections} at once",
                {t.name: (lambda n, t=t, m=measure: m(n, t)) for t in targets},
                unit="req/s",
                rounds=rounds,
                more_is_better=True,
            )
            middle = {name: sorted(p99)[len(p99) // 2] for name, p99 in slow.items()}
            note = ", ".join(f"{name} {p99:.1f}" for name, p99 in middle.items())
            row.notes.append(f"p99 ms: {note}")
            print(f"    p99 ms: {note}")
            rows.append(row)
    return rows
