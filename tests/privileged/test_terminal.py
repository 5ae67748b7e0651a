"""`-t` and `-it`, driven through a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time

import pytest

from tests.builders.pyreg import Pyreg

pytestmark = pytest.mark.root


class Terminal:
    """A person at a terminal in which one command runs."""

    def __init__(self, engine: Pyreg, *words: str, rows: int = 40, columns: int = 100) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(
            engine.command(*words),
            env=engine.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, wanted: bytes, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{wanted!r} was not seen in {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.seen += os.read(self.master, 4096)
                except OSError:
                    break
        assert wanted in self.seen, self.seen
        self.seen = self.seen.partition(wanted)[2]

    def end(self) -> int:
        status = self.process.wait(15)
        assert termios.tcgetattr(self._slave) == self.before, "the terminal is as it was"
        os.close(self.master)
        os.close(self._slave)
        return status


def test_a_shell_at_a_terminal(engine: Pyreg) -> None:
    terminal = Terminal(engine, "run", "--rm", "-it", "bb", "sh")
    terminal.expect(b"# ")
    terminal.type(b"tty; stty size\r")
    terminal.expect(b"/dev/pts/0")
    terminal.expect(b"40 100")
    terminal.resize(55, 132)
    os.kill(terminal.process.pid, 28)
    time.sleep(0.2)
    terminal.type(b"stty size\r")
    terminal.expect(b"55 132")
    terminal.type(b"sleep 100\r")
    time.sleep(0.3)
    terminal.type(b"\x03")
    terminal.expect(b"# ")
    terminal.type(b"echo $TERM; exit 9\r")
    terminal.expect(b"xterm")
    assert terminal.end() == 9


def test_console_is_the_terminal(engine: Pyreg) -> None:
    terminal = Terminal(
        engine, "run", "--rm", "-it", "bb", "sh", "-c", "echo by console > /dev/console"
    )
    terminal.expect(b"by console")
    assert terminal.end() == 0


def test_the_terminal_belongs_to_the_user(engine: Pyreg) -> None:
    terminal = Terminal(
        engine, "run", "--rm", "-it", "-u", "1000", "bb", "sh", "-c", "echo mine > /dev/tty"
    )
    terminal.expect(b"mine")
    assert terminal.end() == 0


def test_terminal_without_one_of_ours(engine: Pyreg) -> None:
    done = engine("run", "--rm", "-t", "bb", "sh", "-c", "tty; echo x")
    assert done.stdout == "/dev/pts/0\r\nx\r\n"
    refused = engine("run", "--rm", "-it", "bb", "true")
    assert refused.returncode != 0
    assert "not a TTY" in refused.stderr


def test_detached_with_a_terminal(engine: Pyreg) -> None:
    engine("run", "-d", "-t", "--name", "screen", "bb", "sh", "-c", "tty; sleep 100")
    deadline = time.monotonic() + 10
    while engine("logs", "screen").stdout != "/dev/pts/0\r\n" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine("logs", "screen").stdout == "/dev/pts/0\r\n"
    engine("rm", "-f", "screen")


def test_without_t_a_container_has_no_terminal_even_at_one(engine: Pyreg) -> None:
    terminal = Terminal(
        engine, "run", "--rm", "-i", "bb", "sh", "-c", "tty; stat -Lc %F /dev/stdout"
    )
    terminal.expect(b"not a tty")
    terminal.expect(b"fifo")
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_closing_the_terminal_ends_the_container(engine: Pyreg) -> None:
    terminal = Terminal(engine, "run", "--rm", "-it", "--name", "hung", "bb", "sh")
    terminal.expect(b"# ")
    os.kill(terminal.process.pid, 1)
    terminal.process.wait(15)
    assert "hung" not in engine("ps", "-a").stdout
    os.close(terminal.master)
    os.close(terminal._slave)
