"""Search over /api/v1: pages, filters, refusals, and the index of a running registry."""

from __future__ import annotations

import asyncio

from registry.api.services import Services
from tests.registry.api.conftest import Registry, push_image


async def test_pages_and_filters(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        for name in ("team/wget", "wget", "team/curl"):
            await push_image(alice, name, "1.0")
        answer = await alice.get("/api/v1/search?q=wget&n=1")
        assert [item["name"] for item in answer.json()["items"]] == ["wget"]
        answer = await alice.get(answer.links["next"]["url"])
        assert [item["name"] for item in answer.json()["items"]] == ["team/wget"]
        assert "next" not in answer.links
        for _ in range(100):  # the index follows within seconds
            found = (await alice.get("/api/v1/search?q=wget+tag:1.*")).json()["items"]
            if len(found) == 2:
                break
            await asyncio.sleep(0.1)
        assert [item["name"] for item in found] == ["wget", "team/wget"]
        answer = await alice.get("/v1/search?q=tag:1.0")
        assert answer.json()["num_results"] == 3


async def test_what_cannot_be_read_is_told(registry: Registry) -> None:
    async with registry.basic("rita") as rita:
        for query in ("q=tag:a*b*c*d*e*f", f"q={'a+' * 16}b", "q=%01"):
            assert (await rita.get(f"/api/v1/search?{query}")).status_code == 400, query
            assert (await rita.get(f"/v1/search?{query}")).status_code == 400, query
        for query in ("q=tag:", 'q="open', "last=x", "last=0:%C3%A4"):
            assert (await rita.get(f"/api/v1/search?{query}")).status_code == 200, query
        assert (await rita.post("/api/v1/search/index/rebuild")).status_code == 403
    assert (await registry.anonymous.get("/api/v1/search")).status_code == 401


async def test_an_administrator_has_everything_indexed_anew(
    registry: Registry, services: Services
) -> None:
    await services.metadata.accounts.set_role("alice", "admin")
    async with registry.basic("alice") as admin:
        assert (await admin.post("/api/v1/search/index/rebuild")).status_code == 202
        for _ in range(100):
            state = (await admin.get("/api/v1/search/index")).json()
            if not state["rebuilding"]:
                break
            await asyncio.sleep(0.1)
        assert state["rebuilding"] == ""
