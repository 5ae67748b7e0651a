"""What starting a container imports must stay small: imports are most of its time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FORBIDDEN = [
    "argparse",
    "ast",
    "asyncio",
    "base64",
    "concurrent.futures",
    "contextlib",
    "dataclasses",
    "decimal",
    "hashlib",
    "httpx",
    "inspect",
    "ipaddress",
    "logging",
    "pathlib",
    "shutil",
    "ssl",
    "subprocess",
    "tarfile",
    "tempfile",
    "threading",
    "typing",
    "urllib.parse",
]
ON_THE_START_PATH = (
    "ocispec.distribution.reference",
    "ocispec.image.annotations",
    "ocispec.image.config",
    "ocispec.image.layout",
    "ocispec.image.manifest",
)
PROGRAM = """
import sys
before = set(sys.modules)
sys.path.insert(0, {root!r})
import {module}
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("module", ON_THE_START_PATH)
def test_imports_nothing_slow(module: str) -> None:
    program = PROGRAM.format(root=str(Path(__file__).parents[2]), module=module)
    # -S: site would read the .pth files of the test environment, which import what they like.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert module in loaded
    assert not set(loaded) & set(FORBIDDEN)
