"""The registry against CNCF distribution: small requests, big downloads, big uploads."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

from tests.benchmarks.distribution import OCI_MANIFEST, Target, bearer, digest_of
from tests.benchmarks.harness import Row, contest
from tests.benchmarks.pushes import REPOSITORY as PUSHED
from tests.benchmarks.pushes import run_pushes
from tests.builders.servers import ROOT, start_docker_registry, start_pyreg
from tests.builders.tools import find_tool

MIB = 1 << 20
DOWNLOAD = 256 * MIB
UPLOAD = 64 * MIB
REPOSITORY = "bench/image"


def build_load() -> str:
    """The C load client, compiled once; empty without a compiler."""
    compiler = find_tool("cc") or find_tool("gcc")
    source = ROOT / "tests/benchmarks/load.c"
    program = ROOT / "build/bench/load"
    if not compiler:
        return ""
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        words = [compiler, "-O2", "-D_GNU_SOURCE", "-Wall", "-o", str(program), str(source)]
        subprocess.run(words, check=True)
    return str(program)


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


def in_parallel(count: int, work: list[threading.Thread]) -> float:
    """Start threads together; seconds until the last one ended."""
    assert len(work) == count
    started = time.perf_counter()
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    return time.perf_counter() - started


def download(target: Target, path: str, size: int) -> None:
    """GET a blob and read it into one buffer, as fast as the kernel gives it."""
    buffer = bytearray(MIB)
    with socket.create_connection(("127.0.0.1", target.port)) as to:
        to.sendall(target.head("GET", path, Connection="close"))
        head = b""
        while b"\r\n\r\n" not in head:
            head += to.recv(65536)
        assert head.startswith(b"HTTP/1.1 200"), head[:200]
        got = len(head) - head.index(b"\r\n\r\n") - 4
        while got < size:
            count = to.recv_into(buffer)
            assert count, f"{target.name} closed after {got} bytes"
            got += count


def run(root: Path, rounds: int, *, quick: bool) -> list[Row]:
    """All contests of the registry; servers' data below `root`."""
    load = build_load()
    ours, theirs = start_pyreg(root / "pyreg"), start_docker_registry(root / "docker-registry")
    try:
        names = (REPOSITORY, "bench/up", PUSHED)
        scopes = [f"repository:{name}:pull,push" for name in names]
        targets = [
            Target("pyreg", ours.port, bearer(ours.port, ours.username, ours.password, scopes)),
            Target("docker-registry", theirs.port),
        ]
        big = os.urandom(DOWNLOAD)
        digest = digest_of(big)
        small = [(os.urandom(2048), digest_of(b"diff"))]
        for target in targets:
            target.put_blob(REPOSITORY, big, digest)
            target.push_image(REPOSITORY, "latest", small)
        del big
        rows: list[Row] = []
        if load:
            rows += _small(load, targets, digest_of(small[0][0]), rounds, 1.0 if quick else 2.0)
        else:
            print("no C compiler (apt-get install gcc libc6-dev): small requests not measured")
        rows += _downloads(targets, f"/v2/{REPOSITORY}/blobs/{digest}", rounds)
        rows += _uploads(targets, rounds)
        rows += run_pushes(targets, rounds, 20 if quick else 60)
        return rows
    finally:
        ours.stop()
        theirs.stop()


def _small(load: str, targets: list[Target], blob: str, rounds: int, seconds: float) -> list[Row]:
    rows = []
    for title, method, path in (
        ("GET manifest by tag", "GET", f"/v2/{REPOSITORY}/manifests/latest"),
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


def _downloads(targets: list[Target], path: str, rounds: int) -> list[Row]:
    rows = []
    for count in (1, 8):

        def measure(number: int, target: Target, count: int = count) -> float:
            threads = [
                threading.Thread(target=download, args=(target, path, DOWNLOAD))
                for _ in range(count)
            ]
            return count * DOWNLOAD / 1e6 / in_parallel(count, threads)

        rows.append(
            contest(
                f"GET blob of 256 MiB, {count} at once",
                {t.name: (lambda n, t=t, m=measure: m(n, t)) for t in targets},
                unit="MB/s",
                rounds=rounds,
                more_is_better=True,
            )
        )
    return rows


def _uploads(targets: list[Target], rounds: int) -> list[Row]:
    """Every upload is new content: a fresh prefix on the same random bytes."""
    rows = []
    content = os.urandom(UPLOAD - 32)
    for count in (1, 8):

        def measure(number: int, target: Target, count: int = count) -> float:
            blobs = [os.urandom(32) + content for _ in range(count)]
            digests = [digest_of(blob) for blob in blobs]
            threads = [
                threading.Thread(target=target.put_blob, args=("bench/up", blob, digest))
                for blob, digest in zip(blobs, digests, strict=True)
            ]
            return count * UPLOAD / 1e6 / in_parallel(count, threads)

        rows.append(
            contest(
                f"PUT blob of 64 MiB, {count} at once",
                {t.name: (lambda n, t=t, m=measure: m(n, t)) for t in targets},
                unit="MB/s",
                rounds=rounds,
                more_is_better=True,
            )
        )
    return rows
