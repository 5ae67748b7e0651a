"""Programs that only the Go toolchain gives: pinned, built once into build/gotools.

Without a toolchain what needs them is skipped, also where other missing tools are errors: Debian's
own is too old for most of them, so there is nothing that could be installed.
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.builders.servers import ROOT
from tests.builders.tools import find_tool

MODULES = {
    "crane": "github.com/google/go-containerregistry/cmd/crane@v0.22.1",
    "oras": "oras.land/oras/cmd/oras@v1.3.6",
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "regctl": "github.com/regclient/regclient/cmd/regctl@v0.11.7",
    "registry": "github.com/distribution/distribution/v3/cmd/registry@v3.0.0",
}
BUILD_SECONDS = 900


def go_tool(name: str) -> str:
    """The program's path, built when it is not there yet."""
    program = ROOT / "build" / "gotools" / name
    if not program.exists():
        go = find_tool("go")
        if not go:
            pytest.skip(f"no Go toolchain to build {name} with")
        program.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(program.parent), "GOFLAGS": "-trimpath"}
        done = subprocess.run(
            [go, "install", MODULES[name]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
        assert done.returncode == 0, f"{MODULES[name]} does not build:\n{done.stderr[-2000:]}"
    return str(program)
