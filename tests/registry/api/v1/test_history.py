"""History, undo, restore and releases over the administration API."""

from __future__ import annotations

import time

from tests.registry.api.conftest import Registry, password_of, push_image

URL = "/api/v1/repositories/team/app"


async def test_undo_and_restore_over_http(registry: Registry) -> None:
    alice = await registry.login("alice", "team/app")
    api = registry.basic("alice")
    first, _ = await push_image(alice, "team/app", "v1", marker="one")
    second, _ = await push_image(alice, "team/app", "v1", marker="two")
    assert first != second
    page = (await api.get(f"{URL}/_history", params={"tag": "v1", "n": 1})).json()["items"]
    assert [(e["old"], e["new"], e["actor"]) for e in page] == [(first, second, "alice")]
    tried = await api.post(f"{URL}/_undo", json={"tag": "v1", "dry_run": True})
    assert tried.json()["change"] == 0
    done = await api.post(f"{URL}/_undo", json={"tag": "v1"})
    assert done.status_code == 200, done.text
    assert (await alice.get("/v2/team/app/manifests/v1")).headers["docker-content-digest"] == first
    now = await api.get(f"{URL}/_tags/v1/as-of", params={"at": int(time.time()) + 1})
    assert now.json()["digest"] == first
    assert (await api.delete(f"{URL}/_tags/v1")).status_code == 204
    assert (await api.delete(URL)).status_code == 200
    assert len((await api.get(f"{URL}/_trash")).json()["items"]) == 2
    back = await api.post(f"{URL}/_restore", json={"reference": "v1"})
    assert back.status_code == 200, back.text
    assert (await alice.get("/v2/team/app/manifests/v1")).headers["docker-content-digest"] == first
    assert (await api.post(f"{URL}/_restore", json={"reference": "nope"})).status_code == 404


async def test_a_release_over_http(registry: Registry) -> None:
    alice = await registry.login("alice", "team/app", "team/web")
    api = registry.basic("alice")
    for name in ("team/app", "team/web"):
        await push_image(alice, name, "v1")
    moves = [{"repository": n, "tag": "stable", "to": "v1"} for n in ("team/app", "team/web")]
    done = (await api.post("/api/v1/releases", json={"moves": moves, "note": "1.0"})).json()
    assert len(done["steps"]) == 2
    moves[1]["expected"] = "absent"
    refused = await api.post("/api/v1/releases", json={"moves": moves})
    assert refused.status_code == 409
    undone = await api.post(f"/api/v1/changes/{done['change']}/undo", json={})
    assert undone.status_code == 200, undone.text
    assert (await alice.get("/v2/team/web/manifests/stable")).status_code == 404


async def test_attack_reader_undoes_restores_and_releases(registry: Registry) -> None:
    alice = await registry.login("alice", "team/app")
    await push_image(alice, "team/app", "v1")
    rita, nobody = registry.basic("rita"), registry.client()
    move = {"repository": "team/app", "tag": "v2", "to": "v1"}
    for path, document in (
        (f"{URL}/_undo", {}),
        (f"{URL}/_restore", {}),
        ("/api/v1/releases", {"moves": [move]}),
    ):
        assert (await rita.post(path, json=document)).status_code in (401, 403)
        assert (await nobody.post(path, json=document)).status_code == 401
    assert (await rita.delete(URL)).status_code in (401, 403)
    assert (await alice.get("/v2/team/app/manifests/v1")).status_code == 200


async def test_attack_administrator_by_mistake_undoes_an_immutable_tag(registry: Registry) -> None:
    """What a push by an administrator may not do, their undo and release may not either."""
    services = registry.app.app.routes[0]._opened.get()
    await services.metadata.accounts.add(
        "root", await services.passwords.hash(password_of("root")), "admin"
    )
    alice, root = await registry.login("alice", "team/app"), registry.basic("root")
    first, _ = await push_image(alice, "team/app", "v1", marker="one")
    second, _ = await push_image(alice, "team/app", "v1", marker="two")
    await push_image(alice, "team/app", "other", marker="three")
    fixed = {"repositories": "team/*", "tags": "v*"}
    made = await root.post("/api/v1/policy/immutable", json=fixed)
    assert made.status_code == 201, made.text
    move = {"repository": "team/app", "tag": "v1", "to": "other"}
    for path, document in (
        (f"{URL}/_undo", {"tag": "v1"}),
        ("/api/v1/releases", {"moves": [move]}),
    ):
        refused = await root.post(path, json=document)
        assert refused.status_code == 403, (path, refused.text)
        assert "immutable" in refused.json()["detail"]
    assert (await root.delete(f"{URL}/_tags/v1")).status_code == 403
    assert (await alice.get("/v2/team/app/manifests/v1")).headers["docker-content-digest"] == second
    await root.delete(f"/api/v1/policy/immutable/{made.json()['id']}")
    assert (await root.post(f"{URL}/_undo", json={"tag": "v1"})).status_code == 200
    assert (await alice.get("/v2/team/app/manifests/v1")).headers["docker-content-digest"] == first
