"""`/livez` and `/readyz`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from registry.api.health import Readiness
from tests.registry.api.conftest import Registry


async def fine() -> None:
    pass


async def test_both_answer_200(registry: Registry) -> None:
    for path in ("/livez", "/readyz"):
        answer = await registry.anonymous.get(path)
        assert (answer.status_code, answer.text) == (200, "ok\n")


async def test_a_lost_storage_is_named_without_its_place(
    registry: Registry, services: Any, caplog: pytest.LogCaptureFixture
) -> None:
    services.settings.data.joinpath("uploads").rename(services.settings.data / "gone")
    answer = await registry.anonymous.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: storage\n")
    assert str(services.settings.data) in caplog.text
    assert (await registry.anonymous.get("/livez")).status_code == 200


async def test_a_stopping_server_is_not_ready(registry: Registry) -> None:
    registry.app.drain()
    answer = await registry.anonymous.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "not ready: stopping\n")
    assert (await registry.anonymous.get("/livez")).status_code == 200


async def test_a_verdict_is_good_for_a_second_and_asked_once_at_a_time() -> None:
    now, asked = 0.0, 0

    async def check() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if asked > 1:
            raise OSError("password=hunter2 host=10.0.0.1")

    readiness = Readiness({"database": check}, clock=lambda: now)
    now = 10.0
    assert await asyncio.gather(*(readiness.reason() for _ in range(50))) == [""] * 50
    assert asked == 1
    now = 11.5
    assert await readiness.reason() == "not ready: database"
    assert asked == 2


async def test_a_database_that_never_answers_is_not_ready() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    readiness = Readiness({"storage": fine, "database": never}, patience_s=0.01)
    assert await readiness.reason() == "not ready: database"
