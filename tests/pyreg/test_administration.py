"""Administering a registry from elsewhere, with the login that is stored for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.pyreg import Pyreg
from tests.builders.servers import Server, add_user, start_pyreg

pytest.importorskip("sqlalchemy", reason="the server's dependencies are not installed")

ROOT = ("root", "the password of root")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("server")
    add_user(root, *ROOT, role="admin")
    server = start_pyreg(root)
    yield server
    server.stop()


def logged_in(root: Path, server: Server, name: str, password: str) -> Pyreg:
    pyreg = Pyreg(str(root))
    done = pyreg("login", "-u", name, "--password-stdin", server.host, stdin=password.encode())
    assert done.returncode == 0, done.stderr
    return pyreg


def test_an_administrator_elsewhere(tmp_path: Path, server: Server) -> None:
    pyreg = logged_in(tmp_path, server, *ROOT)
    there = ("--registry", server.host)
    done = pyreg("user", "add", "eve", *there, "--password-stdin", stdin=b"long enough\n")
    assert (done.returncode, done.stdout) == (0, "Added writer eve\n"), done.stderr
    assert pyreg("user", "role", "eve", "reader", *there).stdout == "eve is now reader\n"
    assert pyreg("user", "disable", "eve", *there).stdout == "eve is disabled\n"
    assert "eve      reader   disabled" in pyreg("user", "ls", *there).stdout
    assert "eve\n" in pyreg("user", "ls", "-q", *there).stdout
    [shown] = json.loads(pyreg("user", "inspect", "eve", *there).stdout)
    assert (shown["role"], shown["disabled"]) == ("reader", True)
    assert pyreg("user", "inspect", "eve", "--format", "{{.role}}", *there).stdout == "reader\n"
    done = pyreg("user", "rm", "eve", "eve", *there)
    assert done.returncode == 1 and done.stdout == "Removed eve\n"
    assert done.stderr.startswith("pyreg: user 'eve' does not exist\n")


def test_others_may_not(tmp_path: Path, server: Server) -> None:
    pyreg = logged_in(tmp_path, server, server.username, server.password)
    done = pyreg("user", "ls", "--registry", server.host)
    assert done.returncode == 1
    assert "administrator" in done.stderr and len(done.stderr.splitlines()) <= 2
    stranger = Pyreg(str(tmp_path / "stranger"))
    done = stranger("user", "ls", "--registry", server.host)
    assert done.returncode == 1
    assert "authentication required" in done.stderr and "pyreg login" in done.stderr


def test_what_is_no_pyreg_registry_is_said(tmp_path: Path) -> None:
    done = Pyreg(str(tmp_path))("user", "ls")
    assert done.returncode == 1
    assert "there is no registry in" in done.stderr and "--registry HOST" in done.stderr
