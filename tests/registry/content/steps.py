"""A scheduler of steps: operations of the registry's own code, each stopped at every transaction.

An operation is a coroutine over `Gated` metadata and a `Mortal` store. Before and after each of its
transactions it waits until a test lets it go on, so that a test decides in which order the steps of
several operations happen, and where one of them dies. A dead operation does nothing any more: what
its cleanup would call raises, as nothing runs in a process that was killed.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any


class Killed(BaseException):
    """The process of an operation is gone."""


class Op:
    """One operation under way."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        #: Where it waits.
        self.at = ""
        self.task: asyncio.Task[Any]
        self._arrived = asyncio.Event()
        self._go: asyncio.Future[None] | None = None

    async def gate(self, at: str) -> None:
        """Wait to be let go on. Raises: Killed."""
        self.check()
        self.at = at
        self._go = asyncio.get_running_loop().create_future()
        self._arrived.set()
        await self._go
        self.check()

    def check(self) -> None:
        if self.dead:
            raise Killed

    async def step(self) -> None:
        """Let it go on to its next gate, or to its end."""
        assert self._go is not None
        self._arrived.clear()
        self._go.set_result(None)
        self._go = None
        await self.settle()

    async def settle(self) -> None:
        """Wait until it is at a gate or done."""
        arrived = asyncio.ensure_future(self._arrived.wait())
        await asyncio.wait({arrived, self.task}, return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()

    @property
    def done(self) -> bool:
        return self.task.done()

    def __repr__(self) -> str:
        return f"<{self.name} at {self.at}>"


class Gated:
    """Metadata, or a part of it, whose every call is one step of an operation."""

    def __init__(self, target: Any, op: Op, path: str = "") -> None:
        self._target, self._op, self._path = target, op, path

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        path = f"{self._path}.{name}" if self._path else name
        if not inspect.ismethod(found) and not inspect.isfunction(found):
            return Gated(found, self._op, path)

        async def call(*args: Any, **options: Any) -> Any:
            await self._op.gate(path)
            result = await found(*args, **options)
            await self._op.gate(f"{path} done")
            return result

        return call


class Mortal:
    """A store, or a writer of one, that is out of reach once its operation is dead."""

    def __init__(self, target: Any, op: Op) -> None:
        self._target, self._op = target, op

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self._op.check()
            result = found(*args, **options)
            return Mortal(result, self._op) if name == "append" else result

        return call


class Scheduler:
    """Operations under way, in an event loop that only runs while a step is made."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.running: list[Op] = []

    def start(self, name: str, make: Callable[[Op], Coroutine[Any, Any, Any]]) -> Op:
        """Begin an operation; it stops at its first gate."""

        async def begin() -> Op:
            op = Op(name)
            op.task = asyncio.ensure_future(make(op))
            await op.settle()
            return op

        op = self.loop.run_until_complete(begin())
        self.running.append(op)
        self._retire(op)
        return op

    def step(self, op: Op) -> None:
        """Raises what the operation raises, if that ends it."""
        self.loop.run_until_complete(op.step())
        self._retire(op)

    def until(self, op: Op, at: str) -> None:
        """Let it go on until it waits at this gate."""
        while not op.done and op.at != at:
            self.step(op)
        assert not op.done, f"{op.name} ended before {at}"

    def finish(self, op: Op) -> Any:
        """Let it go on to its end; its result."""
        while not op.done:
            self.step(op)
        return op.task.result()

    def kill(self, op: Op) -> None:
        op.dead = True
        while not op.done:
            self.loop.run_until_complete(op.step())
        self.running.remove(op)
        assert op.task.cancelled() or isinstance(op.task.exception(), Killed), op.task

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Something outside of all operations, at once."""
        return self.loop.run_until_complete(coroutine)

    def _retire(self, op: Op) -> None:
        if op.done:
            self.running.remove(op)
            op.task.result()

    def close(self) -> None:
        for op in list(self.running):
            self.kill(op)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
