"""How property tests run: the same examples every time, however busy the machine is.

`pytest --hypothesis-profile=deep` looks further, with examples of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.builders.tools import require_root

if TYPE_CHECKING:
    from tests.builders.postgres import PostgresServer

_QUIET = [HealthCheck.too_slow]

settings.register_profile("fixed", deadline=None, derandomize=True, suppress_health_check=_QUIET)
settings.register_profile(
    "deep", deadline=None, max_examples=5000, suppress_health_check=_QUIET, print_blob=True
)
settings.load_profile("fixed")

# A shell without job control has what it puts in the background ignore SIGINT, and then every
# program that a test interrupts would ignore it as well.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `root` are skipped for everybody else, and say so."""
    if item.get_closest_marker("root"):
        require_root()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, one for all tests; see `tests.builders.postgres`."""
    from tests.builders.postgres import postgres_server

    with postgres_server() as server:
        yield server
