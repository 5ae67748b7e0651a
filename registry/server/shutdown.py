"""The end of a server: what runs is finished, what takes too long is parked.

1  idle connections close; a running request is the last of its connection
2  until `graceful_s` is over requests may end by themselves
3  what still runs is cancelled: an upload saves how far it is, and its client, or any other
   request that has no answer yet, gets 503 with Retry-After
4  what is still open is cut
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
from uvicorn.server import ServerState

LOGGER = logging.getLogger("registry.server")
# A cancelled request is no mistake; uvicorn would log it with a traceback.
_SILENT = logging.getLogger("registry.server.cancelled")
_SILENT.disabled = True

#: Seconds for cancelled requests to save their state: a transaction, and maybe a slow disk.
PARK_S = 10.0
#: Seconds for clients to take the last answer.
FAREWELL_S = 1.0
#: Seconds that a parked request gets when nobody wants to wait.
AT_ONCE_S = 1.0
_LOOK_EVERY_S = 0.02
_RETRY_AFTER = b"2"
_STOPPING = (
    b'{"errors":[{"code":"UNAVAILABLE","message":"the registry is being stopped; try again"}]}'
)


async def stop(
    state: ServerState, *, graceful_s: float, at_once: Callable[[], bool] = lambda: False
) -> None:
    """End every connection of a server that does not listen any more.

    `at_once` is asked again and again: true ends the waiting.
    """
    for connection in list(state.connections):
        connection.shutdown()
    await _until(lambda: not state.connections and not state.tasks, graceful_s, at_once)
    if state.tasks:
        LOGGER.warning("parking %d requests that did not end in time", len(state.tasks))
        for connection in list(state.connections):
            _answer_when_cancelled(getattr(connection, "cycle", None))
        for task in list(state.tasks):
            task.cancel()
        await _until(lambda: not state.tasks, AT_ONCE_S if at_once() else PARK_S)
        await _until(lambda: not state.connections, FAREWELL_S, at_once)
    for connection in list(state.connections):
        connection.transport.abort()
    await asyncio.sleep(0)


async def _until(
    done: Callable[[], bool], limit_s: float, at_once: Callable[[], bool] = lambda: False
) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while not done() and not at_once() and loop.time() < deadline:
        await asyncio.sleep(_LOOK_EVERY_S)


def _answer_when_cancelled(cycle: Any) -> None:
    """Uvicorn answers 500 when the application was cancelled; here it is not its fault."""
    if isinstance(cycle, RequestResponseCycle) and not cycle.response_complete:
        cycle.logger = _SILENT
        cycle.send_500_response = partial(_send_stopping, cycle)  # type: ignore[method-assign]


async def _send_stopping(cycle: RequestResponseCycle) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_STOPPING)),
        (b"retry-after", _RETRY_AFTER),
        (b"connection", b"close"),
    ]
    await cycle.send({"type": "http.response.start", "status": 503, "headers": headers})
    await cycle.send({"type": "http.response.body", "body": _STOPPING, "more_body": False})
