"""`pyreg user` as an operator meets it, mistakes included."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.builders.servers import pyreg_command, pyreg_environment

pytest.importorskip("sqlalchemy", reason="the server's dependencies are not installed")


def user(root: Path, *words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*pyreg_command(), "--root", str(root), "user", *words],
        input=given,
        capture_output=True,
        env=pyreg_environment(),
        timeout=60,
    )


@pytest.mark.parametrize("words", [("list",), ("remove", "alice"), ("passwd", "alice")])
def test_a_slip_in_the_directory_makes_no_new_registry(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    done = user(tmp_path / "slip", *words)
    assert done.returncode == 1
    assert b"there is no registry in" in done.stderr
    assert not (tmp_path / "slip").exists()


def test_users_can_be_added_before_the_first_start(tmp_path: Path) -> None:
    done = user(tmp_path, "add", "alice", "--password-stdin", given=b"long enough\n")
    assert (done.returncode, done.stdout) == (0, b"Added writer alice\n")
    assert b"alice   writer   active" in user(tmp_path, "list").stdout


def test_a_password_that_is_not_text(tmp_path: Path) -> None:
    done = user(tmp_path, "add", "alice", "--password-stdin", given=b"\xff\xfe long enough\n")
    assert done.returncode == 1
    assert b"UTF-8" in done.stderr
    assert b"internal error" not in done.stderr


def test_the_end_of_input_instead_of_a_password(tmp_path: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        words = [*pyreg_command(), "--root", str(tmp_path), "user", "add", "alice"]
        os.execvpe(words[0], words, pyreg_environment())
    shown = b""
    try:
        while not shown.endswith(b"alice: "):
            shown += os.read(terminal, 1024)
        os.write(terminal, b"\x04")
        while part := os.read(terminal, 1024):
            shown += part
    except OSError:  # how Linux says that the other side is closed
        pass
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) != 0
    assert b"no password was given" in shown
