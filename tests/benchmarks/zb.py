"""The workload list of zot's benchmark, zb, against distribution 2.8 and, with a Go toolchain, 3.

The client is zb.go: 10 clients at once, images of a config and one layer of 1, 10 or 100 MB. The
more bytes, the fewer images, so that a run stays below a few minutes and a few gigabytes.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.distribution import bearer
from tests.benchmarks.harness import Row, contest
from tests.builders.servers import ROOT, Server, start_docker_registry, start_pyreg
from tests.builders.tools import find_tool
from tests.interop.gotools import go_tool

# What, how, shares of layer sizes in MB, images. Catalog pushes its images first.
WORKLOADS = [
    ("Get Catalog", "catalog", "1:100", 100),
    ("Push Monolith 1MB", "push-monolith", "1:100", 100),
    ("Push Monolith 10MB", "push-monolith", "10:100", 40),
    ("Push Monolith 100MB", "push-monolith", "100:100", 10),
    ("Push Chunk Streamed 1MB", "push-chunk", "1:100", 100),
    ("Push Chunk Streamed 10MB", "push-chunk", "10:100", 40),
    ("Push Chunk Streamed 100MB", "push-chunk", "100:100", 10),
    ("Pull 1MB", "pull", "1:100", 100),
    ("Pull 10MB", "pull", "10:100", 40),
    ("Pull 100MB", "pull", "100:100", 10),
    ("Pull Mixed 20% 1MB, 70% 10MB, 10% 100MB", "pull", "1:20,10:70,100:10", 30),
    ("Push Monolith Mixed 20% 1MB, 70% 10MB, 10% 100MB", "push-monolith", "1:20,10:70,100:10", 30),
    ("Push Chunk Mixed 33% 1MB, 33% 10MB, 33% 100MB", "push-chunk", "1:34,10:33,100:33", 15),
    ("Pull 75% and Push 25% Mixed 1MB", "mixed", "1:100", 100),
    ("Pull 75% and Push 25% Mixed 10MB", "mixed", "10:100", 40),
    ("Pull 75% and Push 25% Mixed 100MB", "mixed", "100:100", 12),
]
CLIENTS = 10


def build_zb() -> str:
    """The client, compiled once; empty without a Go toolchain."""
    go = find_tool("go")
    source, program = ROOT / "tests/benchmarks/zb.go", ROOT / "build/bench/zb"
    if not go:
        return ""
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([go, "build", "-o", str(program), str(source)], check=True)
    return str(program)


def run(root: Path, rounds: int, *, quick: bool) -> list[Row]:
    """Every workload; servers' data below `root`, fresh for each, removed after it."""
    client = build_zb()
    if not client:
        print("no Go toolchain: the zb workloads were not run")
        return []
    workloads = [each for each in WORKLOADS if not quick or each[2] == "1:100"]
    return [
        workload(client, root / f"{n}", each, min(rounds, 3)) for n, each in enumerate(workloads)
    ]


def workload(client: str, root: Path, what: tuple[str, str, str, int], rounds: int) -> Row:
    title, test, sizes, images = what
    repositories = images if test == "catalog" else 10
    servers = {
        "pyreg": start_pyreg(root / "pyreg"),
        "distribution 2.8": start_docker_registry(root / "docker-registry"),
        "distribution 3": start_docker_registry(
            root / "distribution3", program=go_tool("registry")
        ),
    }
    slow: dict[str, list[float]] = {name: [] for name in servers}

    def measure(number: int, name: str) -> float:
        words = [client, "-port", str(servers[name].port), "-test", test, "-sizes", sizes]
        words += ["-n", str(images), "-c", str(CLIENTS), "-repositories", str(repositories)]
        if name == "pyreg":
            words += ["-authorization", authorization(servers[name], repositories)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}: {done.stderr[-500:]}"
        found = json.loads(done.stdout)
        if number:
            slow[name].append(found["p99"])
        return float(found["rate"])

    try:
        row = contest(
            f"zb {title}",
            {name: (lambda n, name=name: measure(n, name)) for name in servers},
            unit="/s",
            rounds=rounds,
            more_is_better=True,
            warm_up=False,
        )
    finally:
        for server in servers.values():
            server.stop()
        shutil.rmtree(root, ignore_errors=True)
    p99 = ", ".join(f"{name} {sorted(each)[len(each) // 2]:.0f}" for name, each in slow.items())
    row.notes.append(f"p99 ms of an image: {p99}")
    print(f"    p99 ms of an image: {p99}")
    return row


def authorization(server: Server, repositories: int) -> str:
    """A token, or where it would be too long for one, the password."""
    if repositories > 10:
        secret = f"{server.username}:{server.password}".encode()
        return f"Basic {base64.b64encode(secret).decode()}"
    scopes = [f"repository:zb/r{n}:pull,push" for n in range(repositories)]
    return bearer(server.port, server.username, server.password, scopes)
