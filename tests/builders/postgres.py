"""A real PostgreSQL server, started for the tests that ask for it, with a database for each test.

Nothing is flushed to disk: the power does not fail during a test, and the crash tests kill the
processes of pyreg, not the server's machine.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg

from tests.builders.servers import free_port
from tests.builders.tools import missing

USER = "pyreg"
PASSWORD = "s3cret-Pa55"
_START_SECONDS = 30.0

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "200",
    "autovacuum": "off",
    # A standby that never comes: with synchronous_commit=on a commit waits for ever.
    "wal_level": "replica",
    "max_wal_senders": "2",
    "synchronous_standby_names": "nobody",
    "synchronous_commit": "local",
    "listen_addresses": "127.0.0.1",
    "lc_messages": "C",
}


@dataclass
class PostgresServer:
    """A running server. `url(name)` is one of its databases."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes]
    programs: Path
    _numbers: Iterator[int]

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def run(self, *statements: str, name: str = "postgres") -> None:
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def create(self, template: str = "template0") -> str:
        """A new database, a copy of `template`, to which nobody may be connected; its name."""
        name = f"test{next(self._numbers)}"
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop(self, name: str) -> None:
        self.run(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def stop(self, *, crash: bool = False) -> None:
        """`crash`: every process of the server ends at once, nothing is said to clients."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self.process.wait(30)

    def start(self) -> None:
        self.process = _launch(self.programs, self.directory, self.port)
        _wait(self)


def postgres_programs() -> Path:
    """The directory of initdb and postgres; Debian keeps them out of PATH. Skips without it."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).resolve().parent
    missing("PostgreSQL is not installed (apt-get install postgresql)")
    raise AssertionError("not reached")


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server on loopback with a data directory of its own, gone afterwards."""
    programs = postgres_programs()
    # Not below pytest's directories, which another user cannot enter.
    directory = Path(tempfile.mkdtemp(prefix="pyreg-postgres-"))
    server = None
    try:
        data = directory / "data"
        password = directory / "password"
        password.write_text(PASSWORD)
        _give_away(directory, password)
        initdb = [
            str(programs / "initdb"),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            # A collation that differs from bytewise, as real installations have.
            "--locale-provider=icu",
            "--icu-locale=en-US",
            "--locale=C.UTF-8",
            "--no-sync",
        ]
        done = subprocess.run(
            initdb, capture_output=True, text=True, cwd="/", timeout=60, **_identity()
        )
        if done.returncode:
            raise AssertionError(f"initdb failed:\n{done.stderr[-2000:]}")
        port = free_port()
        process = _launch(programs, data, port)
        server = PostgresServer(data, port, process, programs, count(1))
        _wait(server)
        yield server
    finally:
        if server is not None:
            server.stop(crash=True)
        shutil.rmtree(directory, ignore_errors=True)


def _launch(programs: Path, data: Path, port: int) -> subprocess.Popen[bytes]:
    words = [str(programs / "postgres"), "-D", str(data), "-p", str(port)]
    # No Unix socket: its default directory belongs to the machine's own server.
    for key, value in {**_SETTINGS, "unix_socket_directories": ""}.items():
        words += ["-c", f"{key}={value}"]
    with open(data.parent / "postgres.log", "ab") as log:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **_identity()
        )


def _wait(server: PostgresServer) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            psycopg.connect(server.url(), connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            if server.process.poll() is not None or time.monotonic() > deadline:
                log = (server.directory.parent / "postgres.log").read_text()[-3000:]
                raise AssertionError(f"PostgreSQL did not start:\n{log}") from None
            time.sleep(0.05)


def _identity() -> dict[str, int | list[int]]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _give_away(*paths: Path) -> None:
    identity = _identity()
    if identity:
        for path in paths:
            os.chown(path, identity["user"], identity["group"])  # type: ignore[arg-type]


def database_name(url: str) -> str:
    """The name in a URL of `PostgresServer.url`."""
    found = re.search(r"/([^/?]+)$", url)
    assert found is not None
    return found[1]
