"""`pyreg login` as a person at a terminal sees it."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.builders.servers import (
    Server,
    pyreg_command,
    pyreg_environment,
    start_docker_registry,
)

# "correct horse battery" by bcrypt
HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuD3mHdCr44zlIZ.VZCaYRpfQhXMYnEo.\n"
SECONDS = 20.0


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_docker_registry(tmp_path_factory.mktemp("registry"), htpasswd=HTPASSWD)
    yield server
    server.stop()


def converse(
    words: Sequence[str], directory: Path, answers: Sequence[tuple[str, str]]
) -> tuple[str, int]:
    """Run pyreg on a terminal, typing each answer after its question: what is seen, the status."""
    environment = pyreg_environment(HOME=str(directory), DOCKER_CONFIG=str(directory / "docker"))
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        # A terminal of its own, so that Ctrl-C on it is a signal; by a program, because forking
        # here would warn of the other tests' threads.
        ["setsid", "--ctty", *pyreg_command(), "--root", str(directory / "data"), *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = ""
    pending = list(answers)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        try:
            part = os.read(terminal, 4096) if ready else b""
        except OSError:  # Linux says EIO when the last one has left the terminal
            break
        seen += part.decode().replace("\r\n", "\n")
        if pending and seen.endswith(pending[0][0]):
            time.sleep(0.1)  # until the echo is off
            os.write(terminal, pending.pop(0)[1].encode())
    else:
        process.kill()
    os.close(terminal)
    return seen, process.wait(SECONDS)


def test_name_and_password_are_asked_for(registry: Server, tmp_path: Path) -> None:
    answers = [(": ", "tester\n"), ("Password: ", "correct horse battery\n")]
    seen, status = converse(["login", registry.host], tmp_path, answers)
    assert status == 0 and "Login Succeeded\n" in seen
    assert seen.startswith(f"Username for {registry.host}: tester\n")
    assert "horse" not in seen  # no echo
    file = tmp_path / "docker" / "config.json"
    assert registry.host in json.loads(file.read_text())["auths"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_wrong_password_is_not_kept(registry: Server, tmp_path: Path) -> None:
    answers = [("Password: ", "wrong\n")]
    seen, status = converse(["login", "-u", "tester", registry.host], tmp_path, answers)
    assert status == 1 and "incorrect username or password" in seen
    assert not (tmp_path / "docker" / "config.json").exists()


@pytest.mark.parametrize(
    ("answers", "status", "said"),
    [
        ([(": ", "\x04")], 1, "a username is required"),
        ([(": ", "tester\n"), ("Password: ", "\x04")], 1, "a password is required"),
        ([(": ", "tester\n"), ("Password: ", "\n")], 1, "a password is required"),
        ([(": ", "\x03")], 130, ""),
        ([(": ", "tester\n"), ("Password: ", "\x03")], 130, ""),
    ],
)
def test_whoever_gives_up_is_let_go(
    registry: Server, tmp_path: Path, answers: list[tuple[str, str]], status: int, said: str
) -> None:
    seen, found = converse(["login", registry.host], tmp_path, answers)
    assert found == status and said in seen
    assert "Traceback" not in seen and "internal error" not in seen
    assert seen.endswith("\n")
