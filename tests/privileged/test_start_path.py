"""What `run` and `ps` import: a start of a container must not pay for what it does not use."""

from __future__ import annotations

import subprocess

import pytest

from tests.builders.pyreg import Pyreg

pytestmark = pytest.mark.root

FORBIDDEN = frozenset(
    [
        "argparse",
        "asyncio",
        "client.pull",
        "client.transport",
        "concurrent.futures",
        "contextlib",
        "dataclasses",
        "email",
        "getopt",
        "hashlib",
        "httpx",
        "inspect",
        "logging",
        "pathlib",
        "random",
        "selectors",
        "shutil",
        "socket",
        "ssl",
        "subprocess",
        "tarfile",
        "tempfile",
        "threading",
        "tomllib",
        "typing",
        "urllib.parse",
        "zipfile",
    ]
)
_SCRIPT = """
import sys
sys.argv = ["pyreg", *{words!r}]
from pyreg.__main__ import main
status = main()
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--rm", "--network", "none", "bb", "true"],
        ["run", "--rm", "-e", "A=1", "-v", "/tmp:/t", "-w", "/x", "-u", "1000", "bb", "true"],
        ["run", "--name", "path", "bb", "true"],
        ["ps", "-a"],
        ["logs", "path"],
        ["rm", "path"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(engine: Pyreg, words: list[str]) -> None:
    python = engine.command()[0]
    done = subprocess.run(
        [python, "-S", "-c", _SCRIPT.format(words=words)],
        env=engine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert loaded & FORBIDDEN == set()
