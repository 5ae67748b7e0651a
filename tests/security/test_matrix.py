"""Every route, by every kind of caller, on what is theirs and what is not: generated from the route
table, so that a new route is in it on the day it is written.

What is expected is worked out here from the rules in plain words, not from the code under test.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_MANIFEST
from registry.api import routes
from tests.registry.api.conftest import Registry, password_of, push_blob, push_image, started

NAME = "team/app"
ELSEWHERE = "else/where"
UNKNOWN = "no/such"
LAYER = str(Digest.of(b"layer "))
LOOSE = str(Digest.of(b"a blob that nothing refers to"))

CALLERS = (
    "nobody",
    "nobody, where all may pull",
    "anonymous token",
    "anonymous token, where all may pull",
    "reader",
    "writer",
    "admin",
    "writer with a password",
    "reader with a password",
    "removed",
    "disabled",
    "demoted to reader",
    "with a new password since",
    "expired token",
    "token for another repository",
    "token to pull only",
    "forged token",
)
UPLOADS = ("own", "foreign", "of another repository")
PATHS = {
    routes.BASE: "/v2/",
    routes.CATALOG: "/v2/_catalog",
    routes.EXTENSIONS: "/v2/_oci/ext/discover",
    routes.BLOB: "/v2/{name}/blobs/{blob}",
    routes.UPLOADS: "/v2/{name}/blobs/uploads/",
    routes.UPLOAD: "/v2/{name}/blobs/uploads/{upload}",
    routes.MANIFEST: "/v2/{name}/manifests/v1",
    routes.TAGS: "/v2/{name}/tags/list",
    routes.REFERRERS: "/v2/{name}/referrers/" + LAYER,
    routes.HISTORY: "/v2/{name}/_pyreg/history/v1",
}
# What somebody gets who may do it.
DONE = {
    (routes.UPLOADS, "POST"): 202,
    (routes.UPLOAD, "GET"): 204,
    (routes.UPLOAD, "HEAD"): 204,
    (routes.UPLOAD, "PATCH"): 202,
    (routes.UPLOAD, "PUT"): 201,
    (routes.UPLOAD, "DELETE"): 204,
    (routes.MANIFEST, "PUT"): 201,
    (routes.MANIFEST, "DELETE"): 202,
    (routes.BLOB, "DELETE"): 202,
}


def may(caller: str) -> set[str]:
    """Pull, push and delete in NAME, in plain words."""
    everything = {"pull", "push", "delete"}
    if caller in ("writer", "admin", "writer with a password"):
        return everything
    if caller in ("reader", "reader with a password", "demoted to reader", "token to pull only"):
        return {"pull"}
    return {"pull"} if caller.endswith("where all may pull") else set()


def needs(kind: str, method: str) -> set[str]:
    if kind in (routes.UPLOAD, routes.UPLOADS, routes.HISTORY):
        return {"pull", "push"}
    if method == "DELETE":
        return {"delete"}
    return {"pull", "push"} if method == "PUT" else {"pull"}


def expected(caller: str, kind: str, method: str, upload: str) -> int:
    valid = caller not in ("removed", "disabled", "forged token", "with a new password since")
    if kind in (routes.BASE, routes.EXTENSIONS):
        # Whoever shows valid credentials, whatever they are for; never without any.
        return (
            200 if valid and not caller.startswith("nobody") and caller != "expired token" else 401
        )
    if kind == routes.CATALOG:
        named = ("reader", "writer", "admin", "demoted to reader")
        return 200 if caller in named or caller.endswith("password") else 401
    if caller == "expired token":
        # Only what its holder began goes on.
        return DONE[kind, method] if kind == routes.UPLOAD and upload == "own" else 401
    if not needs(kind, method) <= may(caller):
        return 403 if caller == "reader with a password" else 401
    if kind == routes.UPLOAD and upload != "own":
        return 404
    return DONE.get((kind, method), 200)


class Stage:
    """One registry with content, uploads under way, and a client for each caller."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.services = registry.app.app.routes[0]._opened.get()
        self.raw = b""

    async def prepare(self) -> None:
        metadata = self.services.metadata
        for name in ("root", "gone", "off", "lowered", "renewed", "late"):
            role = "admin" if name == "root" else "writer"
            hashed = await self.services.passwords.hash(password_of(name))
            await metadata.accounts.add(name, hashed, role)
        async with self.registry.basic("alice") as alice:
            _, self.raw = await push_image(alice, NAME, "v1")
            await push_blob(alice, NAME, b"a blob that nothing refers to")

    async def client(self, caller: str) -> tuple[httpx.AsyncClient, str]:
        """The caller's client and account, empty for somebody without one."""
        accounts = self.services.metadata.accounts
        who = {
            "reader": "rita", "reader with a password": "rita", "admin": "root", "removed": "gone",
            "disabled": "off", "demoted to reader": "lowered", "expired token": "late",
            "with a new password since": "renewed",
        }.get(caller, "alice")  # fmt: skip
        if caller.startswith("nobody"):
            return self.registry.client(), ""
        if caller.startswith("anonymous"):
            who = ""
        if caller.endswith("with a password"):
            return self.registry.basic(who), who
        name = ELSEWHERE if caller == "token for another repository" else NAME
        actions = "pull" if caller == "token to pull only" else "pull,push,delete"
        scopes = [f"repository:{name}:{actions}"]
        if name == NAME:
            scopes.append(f"repository:{UNKNOWN}:{actions}")
        if caller not in ("token for another repository", "token to pull only", "expired token"):
            scopes.append("registry:catalog:*")
        token = await self.registry.token(who, *scopes)
        if caller == "forged token":
            token = token[:-8] + "AAAAAAAA"
        if caller == "expired token":
            tokens = self.services.tokens._tokens
            clock, tokens._clock = tokens._clock, lambda: time.time() - 3600
            token = await self.registry.token(who, *scopes)
            tokens._clock = clock
        if caller == "removed":
            await accounts.remove(who)
        if caller == "disabled":
            await accounts.set_disabled(who, True)
        if caller == "demoted to reader":
            await accounts.set_role(who, "reader")
        if caller == "with a new password since":
            await accounts.set_password(who, await self.services.passwords.hash("another one"))
        return self.registry.client(headers={"authorization": f"Bearer {token}"}), who

    async def begin(self, owner: str, name: str) -> str:
        async with self.registry.basic(owner) as client:
            answer = await client.post(f"/v2/{name}/blobs/uploads/")
        assert answer.status_code == 202, answer.text
        return answer.headers["docker-upload-uuid"]

    async def restore(self) -> None:
        """What an allowed request may have taken away."""
        async with self.registry.basic("bob") as bob:
            await bob.put(
                f"/v2/{NAME}/manifests/v1",
                content=self.raw,
                headers={"content-type": OCI_MANIFEST},
            )
            await push_blob(bob, NAME, b"a blob that nothing refers to")

    async def ask(
        self, client: httpx.AsyncClient, kind: str, method: str, upload: str, name: str = NAME
    ) -> httpx.Response:
        path = PATHS[kind].format(
            name=name, upload=upload, blob=LOOSE if method == "DELETE" else LAYER
        )
        content, params, headers = b"", {}, {}
        if (kind, method) == (routes.MANIFEST, "PUT"):
            content, headers = self.raw, {"content-type": OCI_MANIFEST}
        elif (kind, method) == (routes.UPLOAD, "PATCH"):
            content = b"x"
        elif (kind, method) == (routes.UPLOAD, "PUT"):
            content = upload.encode()  # nobody has pushed it before
            params = {"digest": str(Digest.of(content))}
        return await client.request(method, path, content=content, params=params, headers=headers)


@pytest.fixture
async def stage(tmp_path: Path, caller: str) -> AsyncIterator[Stage]:
    pull = caller.endswith("where all may pull")
    async with started(tmp_path, anonymous_pull=pull) as registry:
        stage = Stage(registry)
        await stage.prepare()
        yield stage


@pytest.mark.parametrize("caller", CALLERS)
async def test_every_route_for_every_caller(stage: Stage, caller: str) -> None:
    """CVE-2022-31668, CVE-2024-22278, CVE-2026-27771, CVE-2026-32589, CVE-2024-39897."""
    owners = {"own": "late" if caller == "expired token" else "", "foreign": "bob"}
    held = {
        "removed": "gone", "disabled": "off", "demoted to reader": "lowered",
        "with a new password since": "renewed", "admin": "root",
    }.get(caller, "alice")  # fmt: skip
    uploads = {
        (method, upload): await stage.begin(
            owners.get(upload) or held, ELSEWHERE if upload == UPLOADS[2] else NAME
        )
        for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE")
        for upload in UPLOADS
    }
    client, _ = await stage.client(caller)
    wrong = []
    async with client:
        for kind, method in sorted(routes.ACTIONS):
            for upload in UPLOADS if kind == routes.UPLOAD else ("own",):
                answer = await stage.ask(client, kind, method, uploads.get((method, upload), ""))
                wanted = expected(caller, kind, method, upload)
                if answer.status_code != wanted:
                    wrong.append((kind, method, upload, answer.status_code, wanted))
                if answer.status_code == 401:
                    assert answer.headers["www-authenticate"].startswith("Bearer ")
                if answer.status_code < 300 and method == "DELETE":
                    await stage.restore()
        assert wrong == []
        # Uploads of others are as they were, whatever was tried on them.
        async with stage.registry.basic("bob") as bob:
            for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE"):
                status = await bob.get(f"/v2/{NAME}/blobs/uploads/{uploads[method, 'foreign']}")
                assert (status.status_code, status.headers["range"]) == (204, "0-0")


@pytest.mark.parametrize("caller", CALLERS)
async def test_forbidden_and_unknown_look_the_same(stage: Stage, caller: str) -> None:
    """CVE-2019-19030, CVE-2020-13794: status, body and challenge, byte for byte."""
    client, _ = await stage.client(caller)
    async with client:
        for kind, method in sorted(routes.ACTIONS):
            if "{name}" not in PATHS[kind] or (
                needs(kind, method) <= may(caller) and caller != "expired token"
            ):
                continue
            upload = await stage.begin("bob", NAME)
            answers = []
            for name, id in ((NAME, upload), (UNKNOWN, "00000000-0000-4000-8000-000000000000")):
                answer = await stage.ask(client, kind, method, id, name)
                headers = dict(answer.headers)
                del headers["x-request-id"]
                told = f"{answer.status_code} {answer.text} {sorted(headers.items())}"
                answers.append(told.replace(name, "NAME").replace(id, "ID"))
            assert _without_length(answers[0]) == _without_length(answers[1])


def _without_length(text: str) -> str:
    """The name itself may be in the answer, which is longer by as much then."""
    head, mark, tail = text.partition("('content-length', '")
    return head + tail.partition("'")[2] if mark else text


async def test_cve_2026_41888_with_deleting_switched_off_every_delete_is_405(
    tmp_path: Path,
) -> None:
    """Tags as well. Uploads are given up, not deleted."""
    async with started(tmp_path, delete_enabled=False) as registry:
        stage = Stage(registry)
        await stage.prepare()
        deletes = [kind for kind, method in routes.ACTIONS if method == "DELETE"]
        async with registry.basic("root") as root:
            for kind in deletes:
                if kind == routes.UPLOAD:
                    continue
                for reference in ("v1", str(Digest.of(stage.raw))):
                    path = PATHS[kind].format(name=NAME, blob=LOOSE)
                    answer = await root.delete(
                        path.replace("manifests/v1", f"manifests/{reference}")
                    )
                    assert answer.status_code == 405
                    assert answer.json()["errors"][0]["code"] == "UNSUPPORTED"
            assert (await root.get(f"/v2/{NAME}/manifests/v1")).content == stage.raw
            assert (await root.head(f"/v2/{NAME}/blobs/{LOOSE}")).status_code == 200


def test_the_matrix_is_complete() -> None:
    assert {kind for kind, _ in routes.ACTIONS} == set(PATHS)
