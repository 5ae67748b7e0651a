"""The official OCI distribution conformance suite against a running `pyreg serve`.

`python -m tests.interop.conformance [1.1|dev|dev-sparse][+services] …` installs the suite through
the Go toolchain into build/, starts a registry with token auth, runs it and prints how many checks
passed; with `+services` its blobs are in S3 and its metadata in PostgreSQL. Exit status: 0 when
nothing failed, 1 when something did, 3 without a Go toolchain, which is said loudly.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.builders.postgres import postgres_server
from tests.builders.s3 import s3_service
from tests.builders.servers import ROOT, start_pyreg
from tests.builders.tools import find_tool

MODULE = "github.com/opencontainers/distribution-spec/conformance"
NO_TOOLCHAIN = 3
VERSIONS = ("1.1", "dev", "dev-sparse")


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


def run(version: str, *, sparse: bool = False, services: bool = False) -> int:
    """One run of the suite; how many checks failed."""
    program = install()
    with tempfile.TemporaryDirectory(prefix="pyreg-conformance-") as scratch:
        allowed = {"PYREG_ALLOW_SPARSE_INDEX": "true", "PYREG_ALLOW_SPARSE_IMAGE": "true"}
        environment = allowed if sparse else {}
        running = ExitStack()
        if services:
            s3 = running.enter_context(s3_service(Path(scratch) / "service"))
            postgres = running.enter_context(postgres_server())
            database = postgres.url(postgres.create())
            bucket = s3.environment(s3.make_bucket())
            environment = {**environment, **bucket, "PYREG_DATABASE": database}
        server = start_pyreg(Path(scratch) / "registry", environment=environment)
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
                    "OCI_DATA_SPARSE": "true" if sparse else "false",
                },
            )
        finally:
            server.stop()
            running.close()
        junit = (Path(scratch) / "results" / "junit.xml").read_text()
        name = f"results-{version}{'-sparse' if sparse else ''}{'-services' if services else ''}"
        results = ROOT / "build" / "conformance" / name
        results.mkdir(parents=True, exist_ok=True)
        for name in ("junit.xml", "results.yaml", "report.html"):
            found = Path(scratch) / "results" / name
            if found.exists():
                (results / name).write_bytes(found.read_bytes())
    counted = count(junit)
    failed = counted["failed"]
    if not failed and (done.returncode or not counted["tests"]):
        failed = 1  # the suite itself did not get to its end
    options = [", sparse"] * sparse + [", S3 and PostgreSQL"] * services
    print(
        f"conformance OCI_VERSION={version}{''.join(options)}: "
        f"{counted['passed']} passed, {failed} failed, {counted['skipped']} skipped, "
        f"{counted['disabled']} disabled by the suite"
    )
    if failed:
        print(done.stdout[-6000:], done.stderr[-3000:], sep="\n")
    return failed


def count(junit: str) -> dict[str, int]:
    """The suite's own totals, from the head of its JUnit report; what is absent is 0."""
    found = re.search(r"<testsuite (.*?)>", junit)
    totals = dict(re.findall(r'(\w+)="(\d+)"', found[1])) if found else {}
    numbers = {name: int(totals.get(name, 0)) for name in ("tests", "skipped", "disabled")}
    numbers["failed"] = int(totals.get("failures", 0)) + int(totals.get("errors", 0))
    numbers["passed"] = numbers["tests"] - sum(
        numbers[n] for n in ("failed", "skipped", "disabled")
    )
    return numbers


if __name__ == "__main__":
    wanted = sys.argv[1:] or [f"{name}{on}" for on in ("", "+services") for name in VERSIONS]
    known = {f"{name}{on}" for name in VERSIONS for on in ("", "+services")}
    if unknown := sorted(set(wanted) - known):
        sys.exit(f"unknown: {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    failures = []
    for each in wanted:
        name, _, on = each.partition("+")
        version = name.removesuffix("-sparse")
        failures.append(run(version, sparse=name != version, services=on == "services"))
    sys.exit(1 if any(failures) else 0)
