"""Waiting for threads: nothing is released while one still uses it."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest

from registry.server.threads import WorkerPool, in_thread


@pytest.fixture
def pool() -> WorkerPool:
    return WorkerPool("test", 0)


async def test_a_result_comes_back(pool: WorkerPool) -> None:
    assert await in_thread(pool, divmod, 7, 2) == (3, 1)


async def test_an_exception_comes_back(pool: WorkerPool) -> None:
    with pytest.raises(ZeroDivisionError):
        await in_thread(pool, divmod, 7, 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_task_waits_for_its_thread(pool: WorkerPool, fails: bool) -> None:
    ended = []

    def work() -> None:
        time.sleep(0.2)
        ended.append(True)
        if fails:
            raise OSError("too late for anybody")

    task = asyncio.create_task(in_thread(pool, work))
    await asyncio.sleep(0.05)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_threads_are_nicer_than_the_loop() -> None:
    pool = WorkerPool("nice", 15)
    pool.configure(niceness=3)

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await in_thread(pool, niceness) == niceness() + 3
