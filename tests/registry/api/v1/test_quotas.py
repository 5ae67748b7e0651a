"""Quotas over the administration API, and what a push is told."""

from __future__ import annotations

from ocispec.digest import Digest
from tests.registry.api.conftest import Registry, password_of, push_image

URL = "/api/v1/quotas/team"


async def _root(registry: Registry) -> None:
    services = registry.app.app.routes[0]._opened.get()
    hashed = await services.passwords.hash(password_of("root"))
    await services.metadata.accounts.add("root", hashed, "admin")


async def test_a_push_into_a_full_namespace_is_refused_in_one_line(registry: Registry) -> None:
    await _root(registry)
    alice = await registry.login("alice", "team/app")
    async with registry.basic("root") as root:
        await push_image(alice, "team/app", "v1")
        made = await root.put(URL, json={"bytes_limit": 5000, "tags_limit": 1})
        assert made.status_code == 200, made.text
        assert made.json()["tags_used"] == 1
        assert 0 < made.json()["bytes_used"] < 5000
        [listed] = (await root.get("/api/v1/quotas")).json()["items"]
        assert listed == made.json() == (await root.get(URL)).json()

        began = await alice.post("/v2/team/app/blobs/uploads/")
        assert began.status_code == 202
        content = b"x" * 6000
        refused = await alice.put(
            began.headers["location"], params={"digest": str(Digest.of(content))}, content=content
        )
        assert refused.status_code == 403, refused.text
        [error] = refused.json()["errors"]
        assert error["code"] == "DENIED"
        assert error["message"].startswith("the quota of team is 5000 bytes")
        assert (await root.get(URL)).json() == listed
        # A chunk that nobody announced is found out at the end.
        location = (await alice.post("/v2/team/app/blobs/uploads/")).headers["location"]

        async def chunks():  # type: ignore[no-untyped-def]
            yield content

        patched = await alice.patch(location, content=chunks())
        assert patched.status_code == 202
        ended = await alice.put(
            patched.headers["location"], params={"digest": str(Digest.of(content))}
        )
        assert ended.status_code == 403, ended.text
        await alice.delete(patched.headers["location"])

        await root.put(URL, json={"bytes_limit": 1})
        assert (await alice.post("/v2/team/app/blobs/uploads/")).status_code == 403
        assert (await root.delete(URL)).status_code == 204
        assert (await root.get(URL)).status_code == 404
        await push_image(alice, "team/app", "v2")
        assert (await root.post(f"{URL}/_recount")).status_code == 404
