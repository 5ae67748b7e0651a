"""One server a flavour: the fast paths on both loops, and what happens without them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from registry.server.run import ServerOptions
from tests.registry.server.toy import Running, running

SIZE = 40 << 20

FLAVOURS = {
    "asyncio": (ServerOptions(loop="asyncio", idle_s=2, graceful_s=2), ""),
    "uvloop": (ServerOptions(loop="uvloop", idle_s=2, graceful_s=2), ""),
    "messages": (ServerOptions(loop="asyncio", fast_paths=False, graceful_s=2), ""),
    "h11": (ServerOptions(loop="asyncio", graceful_s=2), "h11"),
}


@pytest.fixture(scope="session")
def content() -> bytes:
    """Bytes without a pattern, more than one slice of a transfer."""
    return os.urandom(1 << 20) * (SIZE >> 20)


@pytest.fixture(scope="session")
def file(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("served") / "file"
    path.write_bytes(content)
    return str(path)


@pytest.fixture(scope="session", params=FLAVOURS)
def server(request: pytest.FixtureRequest, file: str) -> Iterator[Running]:
    options, http = FLAVOURS[request.param]
    with running(file, options, http=http) as started:
        started.fast = request.param in ("asyncio", "uvloop")
        yield started


@pytest.fixture(scope="session", params=["asyncio", "uvloop"])
def fast_server(request: pytest.FixtureRequest, file: str) -> Iterator[Running]:
    options, http = FLAVOURS[request.param]
    with running(file, options, http=http) as started:
        started.fast = True
        yield started
