"""One distribution: as a wheel, and as a file that needs only python3."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from pyreg.version import VERSION
from tests.builders.servers import ROOT, pyreg_environment


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), "."],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (found,) = out.glob("pyreg-*.whl")
    return found


def test_the_version_is_said_once(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION
    assert f"pyreg-{VERSION}-" in wheel.name


def test_every_dependency_has_its_reason() -> None:
    lines = (ROOT / "pyproject.toml").read_text().split("[tool.")[0].splitlines()
    named = [line for line in lines if re.match(r'    "[a-z]', line) and "pyreg[" not in line]
    assert named
    assert [line for line in named if " # " not in line] == []


def test_constraints_are_names_and_versions_only() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9a-z.]+|#.*|", line), line


def test_the_wheel_holds_every_module_and_the_migrations(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in ("ocispec", "client", "registry", "runtime", "pyreg", "migrations"):
        for source in (ROOT / package).rglob("*"):
            wanted = source.suffix in (".py", ".json") or source.name == "py.typed"
            if wanted and "__pycache__" not in source.parts:
                assert str(source.relative_to(ROOT)) in inside
    assert any(name.startswith("migrations/versions/") for name in inside)
    assert not any(name.startswith("tests/") for name in inside)


def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    """The console script works, and client and runtime load without the server's dependencies."""
    install = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    subprocess.run([*install, "--no-deps", "--target", str(tmp_path), str(wheel)], check=True)
    script = tmp_path / "bin" / "pyreg"
    assert script.read_text().startswith(f"#!{sys.executable}")
    assert os.access(script, os.X_OK)
    environment = {**pyreg_environment(), "PYTHONPATH": str(tmp_path), "PYREG_ROOT": str(tmp_path)}
    for words in (["--version"], ["ps"], ["images"]):
        done = subprocess.run([str(script), *words], env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_one_file_runs_with_only_python3(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "deploy/make_pyz.py"], cwd=ROOT, check=True)
    file = ROOT / "dist" / "pyreg.pyz"
    environment = {"PATH": os.environ["PATH"], "PYREG_ROOT": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        # -I and -S: no site-packages, as on a host that has none
        command = [sys.executable, "-I", "-S", str(file), *words]
        return subprocess.run(command, env=environment, capture_output=True, timeout=60)

    assert run("--version").stdout == f"pyreg version {VERSION}\n".encode()
    assert run("images").stdout.startswith(b"REPOSITORY")
    assert run("ps", "-a").stdout.startswith(b"CONTAINER ID")
    refused = run("pull", "127.0.0.1:1/nobody/home")
    assert refused.returncode == 1
    assert b"Traceback" not in refused.stderr
    assert b"\npyreg: cannot reach http://127.0.0.1:1" in refused.stderr
    assert b"pip install 'pyreg[server]'" in run("serve").stderr
