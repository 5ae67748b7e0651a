"""The plain way, seen from the ASGI side: what is gathered, and what a lost client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from registry.server import extensions
from registry.server.errors import ClientGone, ClientStalled
from registry.server.extensions import PIECE, receive_into


class Pieces:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def write(self, data: memoryview) -> None:
        self.pieces.append(bytes(data))


def messages(bodies: Iterable[bytes], end: str) -> Any:
    """A `receive` that gives these bodies; then the last one, a disconnect, or nothing ever."""
    queue = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    queue.append({"type": end, "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        if queue[0]["type"] == "silence":
            await asyncio.Event().wait()
        return queue.pop(0)

    return receive


async def test_small_messages_are_joined() -> None:
    sink = Pieces()
    bodies = [b"x" * 1000] * 3000
    assert await receive_into({}, messages(bodies, "http.request"), sink) == 3_000_000
    assert len(sink.pieces) == 3
    assert b"".join(sink.pieces) == b"x" * 3_000_000


async def test_large_messages_are_not_copied_together() -> None:
    sink = Pieces()
    bodies = [b"a" * 256_000, b"b" * 256_000, b"", b"c" * PIECE]
    await receive_into({}, messages(bodies, "http.request"), sink)
    assert sink.pieces == [body for body in bodies if body]


async def test_a_lost_client_leaves_what_arrived() -> None:
    sink = Pieces()
    with pytest.raises(ClientGone):
        await receive_into({}, messages([b"one", b"two"], "http.disconnect"), sink)
    assert b"".join(sink.pieces) == b"onetwo"


async def test_a_silent_client_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "IDLE_S", 0.05)
    sink = Pieces()
    with pytest.raises(ClientStalled):
        await receive_into({}, messages([b"one"], "silence"), sink)
    assert sink.pieces == [b"one"]


async def test_attack_a_dribble_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "IDLE_S", 0.2)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"a", "more_body": True}

    sink = Pieces()
    with pytest.raises(ClientStalled):
        async with asyncio.timeout(10):
            await receive_into({}, receive, sink)
    assert 1 <= len(b"".join(sink.pieces)) < 100
