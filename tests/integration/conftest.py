"""One real registry for all, and machines of their own for each test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders.machine import Machine
from tests.builders.raw import RawRegistry
from tests.builders.rootfs import BUSYBOX, is_static
from tests.builders.servers import Server, add_user, start_pyreg
from tests.builders.tools import missing

READER, READER_PASSWORD = "rita", "may only read this"
MakeMachine = Callable[..., Machine]


def needs_containers() -> None:
    if os.geteuid() != 0:
        missing("needs root")
    if not is_static(BUSYBOX):
        missing(f"needs a static {BUSYBOX} (Debian: apt install busybox-static)")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`pyreg serve` with the users tester (writer) and rita (reader). It must not complain."""
    needs_containers()
    root = tmp_path_factory.mktemp("serve")
    add_user(root, READER, READER_PASSWORD, role="reader")
    server = start_pyreg(root)
    yield server
    server.stop()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def raw(registry: Server) -> Iterator[RawRegistry]:
    made = RawRegistry(registry.port)
    yield made
    made.close()


@pytest.fixture
def new_machine(tmp_path: Path, registry: Server) -> Iterator[MakeMachine]:
    """Further machines; `host` and `root` replace the registry and the data directory."""
    made: list[Machine] = []

    def make(host: str = "", *, root: Path | None = None, login: bool = True) -> Machine:
        machine = Machine(tmp_path / f"machine{len(made)}", host or registry.host, root=root)
        made.append(machine)
        if login:
            machine.login()
        return machine

    yield make
    for machine in made:
        ids = machine.container_ids()
        if ids:
            machine("rm", "-f", *machine("ps", "-aq", "--no-trunc").lines, status=None)
        assert machine.leftovers(ids) == []


@pytest.fixture
def machine(new_machine: MakeMachine) -> Machine:
    """Logged in as tester."""
    return new_machine()
