"""What deploy/Dockerfile needs to be built without a public image: a base and a context.

The base is Debian by debootstrap and the packages are wheels in the context, so that the build
itself needs no network. Both are kept in build/image and made again when what they depend on
changes: 190 MB and 45 MB, a minute the first time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builders.servers import ROOT
from tests.builders.tools import require_root, require_tool

KEPT = ROOT / "build" / "image"
SUITE, PYTHON = "bookworm", "3.11"
PACKAGES = "python3,python3-venv,ca-certificates"
MIRROR = "http://deb.debian.org/debian"
FETCH_SECONDS = 600
NO_NETWORK = re.compile(
    r"NewConnectionError|name resolution|timed out|Failed getting release|Couldn't download"
)


def base_archive() -> Path:
    """A root file system with python3 and venv, as a tar."""
    archive = KEPT / f"{SUITE}-{_short(PACKAGES)}.tar"
    if archive.exists():
        return archive
    require_root()
    program = require_tool("debootstrap")
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        tree, unfinished = Path(scratch, "tree"), Path(scratch, "base.tar")
        words = [program, "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree), MIRROR]
        _fetch(words)
        without = ["var/cache/apt/*", "var/lib/apt/lists/*", "dev/*"]
        words = ["tar", "-C", str(tree), "--numeric-owner", "-cf", str(unfinished)]
        words += [f"--exclude=./{each}" for each in without]
        subprocess.run([*words, "."], check=True, timeout=120)
        unfinished.rename(archive)
    return archive


def wheels(extras: str) -> Path:
    """A directory with the wheels that `.[extras]` needs, and what builds our own."""
    wanted = [(ROOT / name).read_text() for name in ("pyproject.toml", "constraints.txt")]
    directory = KEPT / f"wheels-{_short(extras, *wanted)}"
    if directory.exists():
        return directory
    KEPT.mkdir(parents=True, exist_ok=True)
    for old in KEPT.glob("wheels-*"):
        shutil.rmtree(old)
    with tempfile.TemporaryDirectory(dir=KEPT) as scratch:
        unfinished = Path(scratch, "wheels")
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        words += ["--python-version", PYTHON, "--only-binary", ":all:", "--dest", str(unfinished)]
        words += ["--constraint", str(ROOT / "constraints.txt"), f"{ROOT}[{extras}]"]
        _fetch([*words, "setuptools>=77"])
        unfinished.rename(directory)
    return directory


def make_context(target: Path) -> None:
    """The checkout as an operator has it, with `wheels/` beside the sources."""
    [extras] = re.findall(r"'\.\[(.*)\]'", (ROOT / "deploy" / "Dockerfile").read_text())
    there = {".git", ".venv", "build", "dist", "wheels", "bench-results"}

    def unwanted(directory: str, names: list[str]) -> set[str]:
        caches = {each for each in names if each.endswith(("_cache", "__pycache__", ".egg-info"))}
        return caches | (there & set(names) if Path(directory) == ROOT else set())

    shutil.copytree(ROOT, target, ignore=unwanted)
    shutil.copytree(wheels(extras), target / "wheels", copy_function=os.link)


def _fetch(words: Sequence[str]) -> None:
    """Run what needs the network; without one the test is skipped."""
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", timeout=FETCH_SECONDS
    )
    if done.returncode:
        output = done.stdout[-2000:] + done.stderr[-2000:]
        if NO_NETWORK.search(output):
            pytest.skip(f"{words[0]} has no network: {output.strip().splitlines()[-1]}")
        pytest.fail(f"{' '.join(words)}: {done.returncode}\n{output}")


def _short(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]
