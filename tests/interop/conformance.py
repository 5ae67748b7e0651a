"""The official OCI distribution conformance suite against a running `pyreg serve`.

`python -m tests.interop.conformance [1.1|dev]` installs the suite through the Go toolchain into
build/, starts a registry with token auth, runs it and prints how many checks passed. Exit status:
0 when nothing failed, 1 when something did, 3 when there is no Go toolchain (said loudly).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.builders.servers import ROOT, start_pyreg
from tests.builders.tools import find_tool

MODULE = "github.com/opencontainers/distribution-spec/conformance"
NO_TOOLCHAIN = 3


def install() -> Path:
    """The suite's program, built once."""
    program = ROOT / "build" / "conformance" / "conformance"
    if not program.exists():
        go = find_tool("go")
        if not go:
            print("*" * 78)
            print("* NO GO TOOLCHAIN: the official conformance suite was NOT run.")
            print("* Install one (apt-get install golang, Go 1.24 or newer) and run this again.")
            print("*" * 78)
            sys.exit(NO_TOOLCHAIN)
        program.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(program.parent)}
        subprocess.run([go, "install", f"{MODULE}@latest"], env=environment, check=True)
    return program


def run(version: str) -> int:
    """One run of the suite; how many checks failed."""
    program = install()
    with tempfile.TemporaryDirectory(prefix="pyreg-conformance-") as scratch:
        server = start_pyreg(Path(scratch) / "registry")
        try:
            done = subprocess.run(
                [program],
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=600,
                env={
                    "PATH": os.environ["PATH"],
                    "HOME": scratch,
                    "OCI_VERSION": version,
                    "OCI_REGISTRY": server.host,
                    "OCI_TLS": "disabled",
                    "OCI_USERNAME": server.username,
                    "OCI_PASSWORD": server.password,
                },
            )
        finally:
            server.stop()
        junit = (Path(scratch) / "results" / "junit.xml").read_text()
        results = ROOT / "build" / "conformance" / f"results-{version}"
        results.mkdir(parents=True, exist_ok=True)
        for name in ("junit.xml", "results.yaml", "report.html"):
            found = Path(scratch) / "results" / name
            if found.exists():
                (results / name).write_bytes(found.read_bytes())
    counted = count(junit)
    failed = counted["failed"] + (1 if done.returncode and not counted["failed"] else 0)
    print(f"conformance OCI_VERSION={version}: {counted['passed']} passed, {failed} failed, "
          f"{counted['skipped']} skipped")  # fmt: skip
    if failed:
        print(done.stdout[-6000:], done.stderr[-3000:], sep="\n")
    return failed


def count(junit: str) -> Counter[str]:
    """Checks by outcome, from the suite's own JUnit report."""
    outcome: Counter[str] = Counter()
    for case in re.findall(r"<testcase\b[^>]*?(?:/>|>.*?</testcase>)", junit, re.DOTALL):
        if "<failure" in case or "<error" in case:
            outcome["failed"] += 1
        elif "<skipped" in case:
            outcome["skipped"] += 1
        else:
            outcome["passed"] += 1
    return outcome


if __name__ == "__main__":
    versions = sys.argv[1:] or ["1.1", "dev"]
    sys.exit(1 if sum(run(version) for version in versions) else 0)
