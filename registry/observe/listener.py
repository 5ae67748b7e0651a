"""A very small HTTP server for `metrics_listen`: an address of its own, for operators alone.

GET without a body, one answer a connection: what Prometheus and probes need, and nothing that
would have to be guarded. It shares the event loop, so it answers if and only if the registry can.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from registry.server.run import CannotListen

log = logging.getLogger("pyreg.registry")

#: Bytes of a request's head, and seconds for a whole exchange.
MAX_HEAD = 16 << 10
PATIENCE_S = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


#: Path and Accept header to answer.
Answering = Callable[[str, str], Awaitable[Answer]]


@asynccontextmanager
async def listen(address: str, answering: Answering) -> AsyncIterator[list[tuple[str, int]]]:
    """Answer at "host:port" until the end; gives the addresses. Raises: CannotListen."""
    host, _, port = address.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await _exchange(reader, writer, answering)
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # whoever asked is gone or too slow
        except asyncio.LimitOverrunError:
            _write(writer, Answer(431, b""), True)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    try:
        server = await asyncio.start_server(serve, host.strip("[]"), int(port), limit=MAX_HEAD)
    except OSError as error:
        raise CannotListen(
            f"cannot listen on {address}: {error.strerror}",
            hint="choose another address for metrics_listen",
        ) from error
    async with server:
        yield [sock.getsockname()[:2] for sock in server.sockets]


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answering: Answering
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *fields = head.split("\r\n")
    method, _, rest = request.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    accept = next((f[7:].strip() for f in fields if f[:7].lower() == "accept:"), "")
    if method not in ("GET", "HEAD"):
        answer = Answer(405, b"")
    else:
        try:
            answer = await answering(path, accept)
        except Exception as error:
            log.error("cannot answer %s: %s", path[:80].encode(), error)
            answer = Answer(500, b"the log says why\n")
    _write(writer, answer, method != "HEAD")
    await writer.drain()


def _write(writer: asyncio.StreamWriter, answer: Answer, with_body: bool) -> None:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
        "cache-control: no-store\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode("latin-1") + (answer.body if with_body else b""))
