"""Real containers: an engine with a busybox image, as root and as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.builders.pyreg import PROJECT, Pyreg
from tests.builders.rootfs import BUSYBOX, is_static
from tests.builders.tools import missing

ORDINARY_UID = 12345  # in no passwd file, so it has no /etc/subuid range: one id is all it gets
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="session", autouse=True)
def _possible() -> None:
    if os.geteuid() != 0:
        missing("needs root")
    if not is_static(BUSYBOX):
        missing(f"needs a static {BUSYBOX} (Debian: apt install busybox-static)")


@pytest.fixture(scope="session")
def engine() -> Iterator[Pyreg]:
    """As root, with the image `bb`."""
    root = tempfile.mkdtemp(prefix="pyreg-test-")
    made = Pyreg(os.path.join(root, "store"))
    made.load_busybox()
    yield made
    made("rm", "-f", *made("ps", "-aq").stdout.split())
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def rootless() -> Iterator[Pyreg]:
    """As an ordinary user with a single id, with the image `bb`."""
    probe = subprocess.run(
        [SYSTEM_PYTHON, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False
    )
    if probe.returncode:
        missing(f"needs a {SYSTEM_PYTHON} of 3.11 or newer that every user may run")
    root = tempfile.mkdtemp(prefix="pyreg-test-")
    os.chmod(root, 0o755)
    project = copy_for_everybody(os.path.join(root, "project"))
    made = Pyreg(
        os.path.join(root, "store"), uid=ORDINARY_UID, python=SYSTEM_PYTHON, project=project
    )
    made.load_busybox()
    yield made
    shutil.rmtree(root)


def copy_for_everybody(target: str) -> str:
    """A copy of what `run` needs, readable by every user; the checkout may be in root's home."""
    for package in ("ocispec", "client", "runtime", "pyreg"):
        shutil.copytree(os.path.join(PROJECT, package), os.path.join(target, package))
    return target


@pytest.fixture(scope="session")
def ranged(rootless: Pyreg) -> Iterator[Pyreg]:
    """As an ordinary user with subordinate ids: an account is made for it, and removed."""
    if not shutil.which("newuidmap") or not shutil.which("useradd"):
        missing("needs newuidmap (Debian: apt install uidmap) and useradd")
    name = f"pyregtest{os.getpid()}"
    subprocess.run(["useradd", "--no-create-home", name], check=True)
    root = tempfile.mkdtemp(prefix="pyreg-test-")
    os.chmod(root, 0o755)
    try:
        uid = pwd.getpwnam(name).pw_uid
        with open("/etc/subuid", encoding="utf-8") as file:
            if f"{name}:" not in file.read():
                missing("useradd gives no subordinate ids here")
        made = Pyreg(
            os.path.join(root, "store"), uid=uid, python=SYSTEM_PYTHON, project=rootless.project
        )
        made.load_busybox()
        yield made
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)
        shutil.rmtree(root)
