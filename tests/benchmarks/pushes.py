"""Push of small images, several at once: three layers of 1 MiB, a configuration, a manifest."""

from __future__ import annotations

import json
import os
import struct
import subprocess

from tests.benchmarks.distribution import (
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Target,
    digest_of,
)
from tests.benchmarks.harness import Row, compiled, contest

LAYERS = 3
LAYER = 1 << 20
AT_ONCE = 4
#: How clients push a blob; see `push.c`.
SHAPES = {"docker": "HEAD POST PATCH PUT", "containerd": "HEAD POST PUT"}
REPOSITORY = "bench/push"


def plan(target: Target, tail: bytes, images: int) -> bytes:
    """What `push.c` reads: images that no registry has seen, each in its own few bytes."""
    headers = "".join(f"{name}: {text}\r\n" for name, text in target.headers.items())
    parts = [_text(headers.encode()), _text(tail), _number(images)]
    for _ in range(images):
        blobs, described = [], []
        for index in range(LAYERS + 1):
            config = index == LAYERS
            start = _configuration() if config else os.urandom(LAYER - len(tail))
            whole = start if config else start + tail
            digest = digest_of(whole)
            media_type = OCI_CONFIG if config else OCI_LAYER_GZIP
            described.append({"mediaType": media_type, "digest": digest, "size": len(whole)})
            blobs += [_text(digest.encode()), _text(start), _number(0 if config else 1)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described[-1],
            "layers": described[:-1],
        }
        tag = f"t{os.urandom(8).hex()}".encode()
        parts += [_text(REPOSITORY.encode()), _text(tag), _text(json.dumps(manifest).encode())]
        parts += [_number(LAYERS + 1), *blobs]
    return b"".join(parts)


def push_images(
    client: str, target: Target, shape: str, tail: bytes, images: int
) -> dict[str, float]:
    """Push that many new images; what the client printed."""
    done = subprocess.run(
        [client, str(target.port), str(AT_ONCE), shape],
        input=plan(target, tail, images),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, f"{target.name}: {done.stderr.decode()[-1000:]}"
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run_pushes(targets: list[Target], rounds: int, images: int, *, workers: int = 1) -> list[Row]:
    """Images a second of every target, for both shapes of a push; `workers` are our processes."""
    client = compiled("push")
    if not client:
        print("no C compiler (apt-get install gcc libc6-dev): pushes of small images not measured")
        return []
    tail = os.urandom(LAYER - 32)
    rows = []
    for shape, requests in SHAPES.items():
        shares: dict[str, list[float]] = {target.name: [] for target in targets}

        def measure(
            number: int, target: Target, shape: str = shape, shares: dict[str, list[float]] = shares
        ) -> float:
            found = push_images(client, target, shape, tail, images)
            if number:
                shares[target.name].append(100 * found["cpu"] / found["seconds"])
            return found["images"] / found["seconds"]

        row = contest(
            f"push as {shape} ({requests}), {AT_ONCE} at once"
            + (f", {workers} workers" if workers > 1 else ""),
            {t.name: (lambda n, t=t, m=measure: m(n, t)) for t in targets},
            unit="images/s",
            rounds=rounds,
            more_is_better=True,
        )
        cpu = ", ".join(f"{name} {max(each):.0f} %" for name, each in shares.items())
        row.notes.append(f"CPU of the client at most: {cpu} of a core")
        print(f"    {row.notes[-1]}")
        rows.append(row)
    return rows


def _configuration() -> bytes:
    """As long as the usual ones."""
    document = {"architecture": "amd64", "os": "linux", "comment": os.urandom(600).hex()}
    return json.dumps(document).encode()


def _text(content: bytes) -> bytes:
    return _number(len(content)) + content


def _number(value: int) -> bytes:
    return struct.pack("=I", value)
