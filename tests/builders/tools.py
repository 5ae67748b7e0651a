"""Programs that tests use as peers or judges, and how to get them."""

from __future__ import annotations

import os
import shutil

import pytest

PACKAGES = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "podman": "podman",
    "skopeo": "skopeo",
    "buildah": "buildah",
    "runc": "runc",
    "umoci": "umoci",
    "wrk": "wrk",
    "nginx": "nginx-light",
    "debootstrap": "debootstrap",
    "busybox": "busybox-static",
    "newuidmap": "uidmap",
    "strace": "strace",
    "openssl": "openssl",
    "pg_dump": "postgresql-client",
    "systemd-analyze": "systemd",
    "gcc": "gcc",
    "go": "golang",
}


def find_tool(name: str) -> str:
    """The program's path, or empty. Debian's own build of a tool wins over others."""
    for directory in ("/usr/bin", "/usr/sbin", "/bin", "/sbin"):
        path = os.path.join(directory, name)
        if os.access(path, os.X_OK):
            return path
    return shutil.which(name) or ""


def require_tool(name: str) -> str:
    """The program's path; a missing one skips the test, or fails it where CI must have it."""
    path = find_tool(name)
    if not path:
        missing(f"{name} is not installed (apt-get install {PACKAGES.get(name, name)})")
    return path


def require_root() -> None:
    if os.geteuid() != 0:
        missing("needs root")


def missing(reason: str) -> None:
    """Skip; where `PYREG_TEST_REQUIRE_TOOLS` is set (CI) a missing tool is an error instead."""
    if os.environ.get("PYREG_TEST_REQUIRE_TOOLS"):
        pytest.fail(reason)
    pytest.skip(reason)
