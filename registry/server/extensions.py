"""Large bodies without ASGI messages: what the server offers, and what to do where it does not.

Two entries may be in `scope["extensions"]`; handlers need neither, they call `send_blob` and
`receive_into`, which take the fast way when it is offered and the plain one otherwise.

`http.response.zerocopysend` (ASGI specification, "Zero Copy Send"), advertised as `{}`
    After `http.response.start` with a Content-Length:
        {"type": "http.response.zerocopysend", "file": descriptor or object with fileno(),
         "offset": first byte, "count": bytes, "more_body": False}
    `send` returns when the bytes are with the kernel or the client is gone (then silently, as ASGI
    says), and never while a thread still uses the descriptor, not even when cancelled. The caller
    closes the file. Middleware that wraps `send` lets the message pass unchanged; one that counts
    bytes adds `count`.

`pyreg.intake`, advertised as an async callable `intake(sink) -> int`
    Present only when this request has a body that is worth it and `receive` was not called yet.
    Reads the whole body from the socket in a worker thread, gives it to `sink.write`, returns the
    number of bytes. `receive` must not be called before; afterwards it tells only of a disconnect.
    Raises what `receive_into` raises. The answer to a failed intake carries `connection: close`
    by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from registry.server.errors import ClientGone, ClientStalled
from registry.server.pace import Pace
from registry.server.threads import RECEIVERS, SENDERS, in_thread

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

ZERO_COPY = "http.response.zerocopysend"
INTAKE = "pyreg.intake"

#: What one thread hop moves on the plain way: smaller costs CPU, larger costs memory per transfer.
PIECE = 1 << 20
#: The same when many transfers run at once, to bound memory.
CROWDED_PIECE = 1 << 18
CROWD = 16

#: Messages of this size on average are written one by one; smaller ones are joined first.
WORTHWHILE = 1 << 16
#: Seconds without a message after which a client is given up.
IDLE_S = 60.0

_plain_sends = 0


class Sink(Protocol):
    """Where a request body goes. Called in a worker thread, one call at a time.

    `data` is valid only during the call. An exception stops the body and comes out of
    `receive_into`; a size limit is enforced here, by raising BodyTooLarge before writing.
    """

    def write(self, data: memoryview) -> None: ...


class Readable(Protocol):
    """The part of `registry.storage.base.OpenBlob` that sending needs."""

    @property
    def fd(self) -> int | None: ...

    def read_at(self, offset: int, count: int) -> bytes: ...


async def send_blob(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    blob: Readable,
    offset: int,
    count: int,
    status: int = 200,
    headers: Iterable[Header] = (),
) -> None:
    """Answer with `count` bytes of an open blob from `offset`; HEAD gets the headers alone.

    Content-Length is added from `count`; every other header is the caller's. Returns when the
    bytes were handed on or the client is gone; the caller closes the blob, then and not before.
    """
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % count)],
        }
    )
    if scope["method"] == "HEAD" or count == 0:
        await send({"type": "http.response.body", "body": b""})
    elif blob.fd is not None and ZERO_COPY in scope.get("extensions", {}):
        await send({"type": ZERO_COPY, "file": blob.fd, "offset": offset, "count": count})
    else:
        await _send_pieces(receive, send, blob, offset, offset + count)


async def receive_into(scope: Scope, receive: Receive, sink: Sink) -> int:
    """Give the whole request body to the sink; return its size in bytes.

    Raises: ClientGone, ClientStalled, MalformedBody; whatever `sink.write` raises. Bytes given to
    the sink before stay there, in order and without a gap, so an upload can keep them.
    """
    intake = scope.get("extensions", {}).get(INTAKE)
    if intake is not None:
        total: int = await intake(sink)
        return total
    return await _receive_messages(receive, sink)


async def _send_pieces(
    receive: Receive, send: Send, blob: Readable, offset: int, stop: int
) -> None:
    """Plain ASGI messages. Many servers drop what is sent to a gone client without a word, so the
    disconnect is asked for, or a whole blob would be read for nobody."""
    global _plain_sends
    gone = asyncio.ensure_future(_disconnected(receive))
    _plain_sends += 1
    try:
        while offset < stop and not gone.done():
            size = CROWDED_PIECE if _plain_sends > CROWD else PIECE
            data = await in_thread(SENDERS, blob.read_at, offset, min(size, stop - offset))
            if not data:
                raise OSError(f"blob ends at {offset}, expected {stop} bytes")
            offset += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": offset < stop})
    finally:
        _plain_sends -= 1
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _receive_messages(receive: Receive, sink: Sink) -> int:
    """Gather small messages, so that one thread hop moves a worthwhile piece."""
    total = size = 0
    more = True
    gathered: list[bytes] = []
    pace = Pace(IDLE_S)
    while more:
        began = time.monotonic()
        try:
            async with asyncio.timeout(pace.left(total + size)):
                message = await receive()
        except TimeoutError:
            message = {"type": "stalled"}
        except asyncio.CancelledError:  # the server is being stopped
            if gathered:
                await in_thread(RECEIVERS, _write, sink, gathered)
            raise
        pace.waited(time.monotonic() - began)
        if message["type"] != "http.request":
            if gathered:  # what did arrive is kept, so that the upload can be continued
                await in_thread(RECEIVERS, _write, sink, gathered)
            raise ClientStalled(IDLE_S) if message["type"] == "stalled" else ClientGone
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if body:
            gathered.append(body)
            size += len(body)
        if gathered and (size >= PIECE or not more):
            await in_thread(RECEIVERS, _write, sink, gathered)
            total += size
            size, gathered = 0, []
    return total


def _write(sink: Sink, gathered: list[bytes]) -> None:
    if len(gathered) > PIECE // WORTHWHILE:
        gathered = [b"".join(gathered)]
    for piece in gathered:
        with memoryview(piece) as view:
            sink.write(view)
