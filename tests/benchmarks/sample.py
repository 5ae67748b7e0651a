"""A real three-layer image to pull: Debian, Python, and many small files; every copy unique."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.builders.servers import ROOT

CACHE = ROOT / "build" / "bench" / "image"
SMALL_FILES = 8000
CHUNK = 1 << 20


def layer_tars() -> list[Path]:
    """The uncompressed layers, made once: debootstrap's tree, Python's files, small files."""
    CACHE.mkdir(parents=True, exist_ok=True)
    base, python, small = (CACHE / f"{name}.tar" for name in ("base", "python", "small"))
    demo = ROOT / "build" / "demo" / "debian-wget.tar"
    if not base.exists():
        words = [sys.executable, str(ROOT / "deploy" / "demo.py"), "--only-rootfs"]
        subprocess.run(words, check=True)  # says what it needs, if anything
        os.link(demo, base)
    if not python.exists():
        sources = [p for p in ("usr/lib/python3", "usr/lib/python3.11") if os.path.isdir(f"/{p}")]
        words = ["tar", "-C", "/", "--exclude=__pycache__", "-cf", f"{python}.part", *sources]
        subprocess.run(words, check=True)
        os.rename(f"{python}.part", python)
    if not small.exists():
        with tarfile.open(f"{small}.part", "w") as tar:
            for number in range(SMALL_FILES):
                content = (f"file {number}\n" * (20 + number % 300)).encode()
                entry = tarfile.TarInfo(f"srv/app/{number % 100:02}/{number:05}.txt")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        os.rename(f"{small}.part", small)
    return [base, python, small]


def variants(count: int) -> Iterator[list[tuple[bytes, str]]]:
    """So many copies of the image, each with layers of its own digests: (gzip bytes, diff id).

    Contestants then never find a layer they already have, and nothing must be deleted between
    rounds: a mass delete slows every later extraction on an ext4 without a journal.
    """
    tars = layer_tars()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for number in range(count):
            yield list(pool.map(_compressed, tars, [f"copy {number}"] * len(tars)))


def _compressed(tar: Path, mark: str) -> tuple[bytes, str]:
    """One layer with a mark in front, compressed as docker does it (gzip level 6)."""
    kept = CACHE / f"{tar.stem}-{mark.replace(' ', '-')}.tar.gz"
    diff_file = kept.with_suffix(".diff-id")
    if diff_file.exists():
        return kept.read_bytes(), diff_file.read_text()
    diff, out = hashlib.sha256(), io.BytesIO()
    gzip = zlib.compressobj(6, zlib.DEFLATED, 31)
    entry = tarfile.TarInfo(f"etc/mark-{tar.stem}")
    entry.size = len(mark)
    head = entry.tobuf() + mark.encode().ljust(512, b"\0")
    with open(tar, "rb") as file:
        for piece in (head, *iter(lambda: file.read(CHUNK), b"")):
            diff.update(piece)
            out.write(gzip.compress(piece))
    out.write(gzip.flush())
    kept.write_bytes(out.getvalue())
    diff_file.write_text(f"sha256:{diff.hexdigest()}")
    return out.getvalue(), diff_file.read_text()
