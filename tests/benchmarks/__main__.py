"""`make bench`: every figure side by side with its peer. `ARGS="registry --quick"` narrows it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import collector, harness, images, listings, registry, search, zb
from tests.builders.servers import ROOT
from tests.builders.tools import find_tool

SUITES: dict[str, Callable[..., list[harness.Row]]] = {
    "registry": registry.run,
    "images": images.run,
    "listings": listings.run,
    "search": search.run,
    "collector": collector.run,
    "zb": zb.run,
}
# zb takes as long as the others together.
USUAL = ("registry", "images")
TOOLS = ("docker-registry", "cc", "nginx", "dockerd", "docker", "podman")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "suites", nargs="*", help=f"{' '.join(SUITES)}; when left out: {' '.join(USUAL)}"
    )
    parser.add_argument("--rounds", type=int, default=0, help="rounds that count (5; quick 3)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, shorter bursts")
    parser.add_argument("--directory", default="", help="where the contestants write (/var/tmp)")
    parser.add_argument(
        "--only", default="", help=f"parts of registry, with commas: {','.join(registry.GROUPS)}"
    )
    wanted = parser.parse_args()
    only = wanted.only.split(",") if wanted.only else registry.GROUPS
    if unknown := [name for name in only if name not in registry.GROUPS]:
        parser.error(f"no part {unknown[0]}; there are: {','.join(registry.GROUPS)}")
    if unknown := [name for name in wanted.suites if name not in SUITES]:
        parser.error(f"no suite {unknown[0]}; there are: {' '.join(SUITES)}")
    if os.geteuid() != 0:
        sys.exit("make bench needs root: docker, podman and containers are part of it")
    if lacking := [name for name in TOOLS if not find_tool(name)]:
        print(f"not installed, so not measured: {', '.join(lacking)}")
        if "docker-registry" in lacking:
            sys.exit(
                "the peer is missing: "
                "apt-get install docker-registry nginx-light docker.io podman gcc"
            )
    rounds = wanted.rounds or (3 if wanted.quick else 5)
    scratch = Path(tempfile.mkdtemp(prefix="pyreg-bench-", dir=wanted.directory or "/var/tmp"))
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, load {os.getloadavg()[0]:.1f}, "
          f"data in {scratch}, {rounds} rounds each")  # fmt: skip
    started = time.monotonic()
    rows: list[harness.Row] = []
    try:
        for name in wanted.suites or USUAL:
            part = {"only": only} if name == "registry" else {}
            rows += SUITES[name](scratch / name, rounds, quick=wanted.quick, **part)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # only now: see `sample.variants`
    print(f"\n{harness.summary(rows)}\n\n{time.monotonic() - started:.0f} s")
    results = ROOT / "bench-results"
    results.mkdir(exist_ok=True)
    figures = {row.title: row.figures for row in rows}
    (results / f"{time.strftime('%Y%m%d-%H%M%S')}.json").write_text(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
