"""Challenges, tokens and what they allow; the matrix of routes and callers."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from ocispec.digest import Digest
from ocispec.distribution.challenge import Challenge, parse_challenges
from registry.api import routes
from tests.registry.api.conftest import (
    Registry,
    Start,
    code_of,
    password_of,
    push_blob,
    push_image,
)

DIGEST = str(Digest.of(b"x"))


def challenge_of(answer: httpx.Response) -> Challenge:
    assert (answer.status_code, code_of(answer)) == (401, "UNAUTHORIZED")
    [challenge] = parse_challenges(answer.headers["www-authenticate"])
    assert challenge.scheme == "Bearer"
    assert challenge.parameters["realm"] == "http://registry/token"
    assert challenge.parameters["service"] == "pyreg"
    return challenge


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


# ---- logging in ---------------------------------------------------------------------------------


@pytest.mark.parametrize("anonymous_pull", [False, True])
async def test_the_version_check_asks_for_a_login_even_where_all_may_pull(
    start: Start, anonymous_pull: bool
) -> None:
    async with start(anonymous_pull=anonymous_pull) as registry:
        for path in ("/v2/", "/v2"):
            challenge = challenge_of(await registry.anonymous.get(path))
            assert "scope" not in challenge.parameters
            head = await registry.anonymous.head(path)
            assert (head.status_code, head.content) == (401, b"")


async def test_docker_login(registry: Registry) -> None:
    """No scope and an offline token, the version check with it; later the refresh token."""
    params = {"service": "pyreg", "client_id": "docker", "offline_token": "true", "account": "bob"}
    auth = ("bob", password_of("bob"))
    answer = await registry.anonymous.get("/token", params=params, auth=auth)
    document = answer.json()
    assert answer.status_code == 200
    assert document["token"] == document["access_token"]
    assert document["expires_in"] >= 60
    time.strptime(document["issued_at"], "%Y-%m-%dT%H:%M:%SZ")
    assert answer.headers["cache-control"] == "no-store"
    version = await registry.anonymous.get("/v2/", headers=bearer(document["token"]))
    assert (version.status_code, version.json()) == (200, {})

    form = {
        "grant_type": "refresh_token",
        "service": "pyreg",
        "client_id": "docker",
        "refresh_token": document["refresh_token"],
        "scope": "repository:team/app:pull,push",
    }
    answer = await registry.anonymous.post("/token", data=form)
    assert answer.status_code == 200
    assert answer.json()["scope"] == "repository:team/app:pull,push"
    async with registry.client(headers=bearer(answer.json()["access_token"])) as bob:
        await push_blob(bob, "team/app", b"x")


async def test_the_password_grant(registry: Registry) -> None:
    form = {
        "grant_type": "password",
        "service": "pyreg",
        "client_id": "containerd",
        "username": "bob",
        "password": password_of("bob"),
        "scope": "repository:a:pull repository:b:push",
        "access_type": "offline",
    }
    document = (await registry.anonymous.post("/token", data=form)).json()
    assert document["scope"] == "repository:a:pull repository:b:push"
    assert document["refresh_token"]


@pytest.mark.parametrize(
    ("name", "password"), [("bob", "wrong"), ("nobody", "wrong"), ("", ""), ("bob", "")]
)
async def test_a_wrong_password_and_an_unknown_user_look_the_same(
    registry: Registry, name: str, password: str
) -> None:
    """CVE-2019-19030, CVE-2020-13794."""
    form = {"grant_type": "password", "username": name, "password": password}
    answers = [
        await registry.anonymous.get("/token", auth=(name, password)),
        await registry.anonymous.post("/token", data=form),
    ]
    for answer in answers:
        assert (answer.status_code, code_of(answer)) == (401, "UNAUTHORIZED")
        [error] = answer.json()["errors"]
        assert error["message"] == "the user name or password is wrong"


async def test_a_refresh_token_that_is_none_says_what_to_do(registry: Registry) -> None:
    form = {"grant_type": "refresh_token", "refresh_token": "guess"}
    answer = await registry.anonymous.post("/token", data=form)
    assert (answer.status_code, code_of(answer)) == (401, "UNAUTHORIZED")
    assert "log in again" in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "header",
    ["Basic !!!", "Basic " + "A" * 100_000, "Bearer x", "Digest x", "Basic", "Basic bm9jb2xvbg=="],
)
async def test_broken_credentials_are_401(registry: Registry, header: str) -> None:
    for path in ("/token", "/v2/", "/v2/team/app/tags/list"):
        answer = await registry.anonymous.get(path, headers={"authorization": header})
        assert (answer.status_code, code_of(answer)) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("form", [{}, {"grant_type": "client_credentials"}])
async def test_other_grants_are_400(registry: Registry, form: dict[str, str]) -> None:
    assert (await registry.anonymous.post("/token", data=form)).status_code == 400


async def test_bodies_and_scopes_of_the_token_endpoint_are_bounded(registry: Registry) -> None:
    huge = {"grant_type": "password", "username": "a" * 70_000}
    assert (await registry.anonymous.post("/token", data=huge)).status_code == 413
    scopes = {"scope": [f"repository:a{number}:pull" for number in range(150)]}
    assert (await registry.anonymous.get("/token", params=scopes)).status_code == 400
    assert (await registry.anonymous.get("/token?scope=nonsense")).status_code == 400
    assert (await registry.anonymous.get("/token?scope=" + "a" * 9000)).status_code == 414
    assert (await registry.anonymous.delete("/token")).status_code == 405


# ---- what a token allows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "asked", "granted"),
    [
        ("alice", "repository:a:pull,push,delete", "repository:a:pull,push,delete"),
        ("alice", "repository:a:*", "repository:a:pull,push,delete"),
        ("alice", "repository(plugin):a:pull", "repository:a:pull"),
        ("rita", "repository:a:pull,push", "repository:a:pull"),
        ("rita", "repository:a:push", ""),
        ("rita", "registry:catalog:*", "registry:catalog:*"),
        ("", "repository:a:pull,push", ""),
        ("", "registry:catalog:*", ""),
        ("alice", "other:thing:do", ""),
    ],
)
async def test_asking_for_more_gives_what_is_allowed(
    registry: Registry, name: str, asked: str, granted: str
) -> None:
    auth = (name, password_of(name)) if name else None
    answer = await registry.anonymous.get("/token", params={"scope": asked}, auth=auth)
    assert (answer.status_code, answer.json()["scope"]) == (200, granted)


async def test_a_token_without_the_scope_names_it(registry: Registry) -> None:
    async with await registry.login("alice", "team/app") as alice:
        challenge = challenge_of(await alice.post("/v2/team/secret/blobs/uploads/"))
    assert challenge.parameters["scope"] == "repository:team/secret:pull,push"
    assert challenge.parameters["error"] == "insufficient_scope"


async def test_a_mount_asks_for_both_scopes(registry: Registry) -> None:
    answer = await registry.anonymous.post(
        "/v2/team/app/blobs/uploads/", params={"mount": DIGEST, "from": "team/base"}
    )
    assert challenge_of(answer).parameters["scope"] == (
        "repository:team/app:pull,push repository:team/base:pull"
    )


async def test_a_reader_may_not_push_nor_delete(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        digest, _ = await push_image(alice, "team/app", "v1")
    async with await registry.login("rita", "team/app") as rita, registry.basic("rita") as basic:
        assert (await rita.get("/v2/team/app/manifests/v1")).status_code == 200
        for method, path in (
            ("POST", "blobs/uploads/"),
            ("PUT", "manifests/v1"),
            ("PUT", f"manifests/{digest}?tag=latest"),
            ("DELETE", "manifests/v1"),
            ("DELETE", f"manifests/{digest}"),
            ("DELETE", f"blobs/{digest}"),
        ):
            # With a token: ask for a better one. With a password there is none: forbidden.
            assert (await rita.request(method, f"/v2/team/app/{path}")).status_code == 401
            refused = await basic.request(method, f"/v2/team/app/{path}")
            assert (refused.status_code, code_of(refused)) == (403, "DENIED")


async def test_anonymous_pull(start: Start) -> None:
    async with start(anonymous_pull=True) as registry:
        async with registry.basic("alice") as alice:
            await push_image(alice, "team/app", "v1")
        token = await registry.token("", "repository:team/app:pull,push")
        for headers in ({}, bearer(token)):
            client = registry.client(headers=headers)
            async with client:
                assert (await client.get("/v2/team/app/manifests/v1")).status_code == 200
                challenge_of(await client.post("/v2/team/app/blobs/uploads/"))
                challenge_of(await client.get("/v2/_catalog"))


async def test_without_auth_everybody_may_do_everything(start: Start) -> None:
    async with start(auth=False) as registry:
        digest, _ = await push_image(registry.anonymous, "team/app", "v1")
        assert (await registry.anonymous.get("/v2/")).status_code == 200
        assert (await registry.anonymous.get("/v2/_catalog")).status_code == 200
        assert (await registry.anonymous.get("/v1/search?q=app")).json()["num_results"] == 1
        mounted = await registry.anonymous.post(
            "/v2/b/blobs/uploads/",
            params={"mount": str(Digest.of(b"layer ")), "from": "team/app"},
        )
        assert mounted.status_code == 201
        deleted = await registry.anonymous.delete(f"/v2/team/app/manifests/{digest}")
        assert deleted.status_code == 202


async def test_cve_2025_23208_rights_that_were_taken_are_gone(start: Start) -> None:
    """Removing a user, or making a writer a reader, counts at once for tokens given out before."""
    async with start() as registry:
        services = registry.app.app.routes[0]._opened.get()
        async with await registry.login("alice", "team/app") as alice:
            await push_blob(alice, "team/app", b"x")
            await services.metadata.accounts.set_role("alice", "reader")
            assert (await alice.post("/v2/team/app/blobs/uploads/")).status_code == 401
            assert (await alice.get(f"/v2/team/app/blobs/{DIGEST}")).status_code == 200
            await services.metadata.accounts.set_disabled("alice", True)
            assert (await alice.get(f"/v2/team/app/blobs/{DIGEST}")).status_code == 401
            await services.metadata.accounts.remove("alice")
            assert (await alice.get(f"/v2/team/app/blobs/{DIGEST}")).status_code == 401


async def test_a_password_that_was_changed_is_wrong_at_once(start: Start) -> None:
    async with start() as registry, registry.basic("alice") as alice, registry.basic("bob") as bob:
        services = registry.app.app.routes[0]._opened.get()
        for user in (alice, bob):
            assert (await user.get("/v2/")).status_code == 200
        other = await services.passwords.hash("quite another one")
        await services.metadata.accounts.set_password("alice", other)
        await services.metadata.accounts.remove("bob")
        for user in (alice, bob):
            assert (await user.get("/v2/")).status_code == 401


async def test_a_new_password_ends_every_token_at_once(registry: Registry) -> None:
    """Remembered ones, unseen ones, expired ones with an upload under way, and refresh tokens."""
    services = registry.app.app.routes[0]._opened.get()
    auth = ("alice", password_of("alice"))
    given = (await registry.anonymous.get("/token?offline_token=true", auth=auth)).json()
    unseen = await registry.token("alice", "repository:team/app:pull,push")
    async with await registry.login("alice", "team/app") as alice:
        location = (await alice.post("/v2/team/app/blobs/uploads/")).headers["location"]
        changed = await services.passwords.hash("quite another one")
        await services.metadata.accounts.set_password("alice", changed)
        assert (await alice.patch(location, content=b"x")).status_code == 401
        assert (await alice.get("/v2/team/app/tags/list")).status_code == 401
    for token in (unseen, given["token"]):
        assert (await registry.anonymous.get("/v2/", headers=bearer(token))).status_code == 401
    form = {"grant_type": "refresh_token", "refresh_token": given["refresh_token"]}
    assert (await registry.anonymous.post("/token", data=form)).status_code == 401
    auth = ("alice", "quite another one")
    fresh = (await registry.anonymous.get("/token", auth=auth)).json()["token"]
    assert (await registry.anonymous.get("/v2/", headers=bearer(fresh))).status_code == 200


async def test_a_token_of_a_removed_account_is_not_one_of_its_namesakes(
    registry: Registry,
) -> None:
    services = registry.app.app.routes[0]._opened.get()
    token = await registry.token("alice", "repository:team/app:pull,push")
    await services.metadata.accounts.remove("alice")
    again = await services.passwords.hash(password_of("alice"))
    await services.metadata.accounts.add("alice", again, "writer")
    answer = await registry.anonymous.get("/v2/", headers=bearer(token))
    assert answer.status_code == 401


async def test_a_token_that_expires_in_a_push_still_finishes_its_uploads(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moby#33558, docker/buildx#324: 401 at the end of a layer that took longer than the token."""
    token = await registry.token("alice", "repository:team/app:pull,push")
    async with registry.client(headers=bearer(token)) as alice, registry.basic("alice") as owner:
        path = "/v2/team/app/blobs/uploads/"
        mine = (await alice.post(path)).headers["location"]
        async with registry.basic("bob") as bob:
            others = (await bob.post(path)).headers["location"]
        services = registry.app.app.routes[0]._opened.get()
        later = time.time() + 3600
        monkeypatch.setattr(services.tokens._tokens, "_clock", lambda: later)
        monkeypatch.setattr(services.guard, "_clock", lambda: time.monotonic() + 3600)
        assert (await alice.patch(mine, content=b"x")).status_code == 202
        assert (await alice.put(mine, params={"digest": DIGEST})).status_code == 201
        for method, url in (
            ("POST", path),
            ("GET", f"/v2/team/app/blobs/{DIGEST}"),
            ("PATCH", others),
            ("PATCH", mine),  # which is finished
            ("GET", "/v2/"),
        ):
            answer = await alice.request(method, url, content=b"x")
            assert challenge_of(answer).parameters["error"] == "invalid_token"
        assert (await owner.get(f"/v2/team/app/blobs/{DIGEST}")).content == b"x"


# ---- forged tokens ------------------------------------------------------------------------------


async def test_cve_2025_24976_tokens_signed_by_others(registry: Registry) -> None:
    """Keys embedded in or pointed at by a token are never believed, nor is `none`."""
    good = await registry.token("alice", "repository:team/app:pull,push")
    claims = jwt.decode(good, options={"verify_signature": False})
    kid = jwt.get_unverified_header(good)["kid"]
    key = ec.generate_private_key(ec.SECP256R1())
    jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    forged = [
        jwt.encode(claims, key, "ES256", {"kid": kid}),
        jwt.encode(claims, key, "ES256", {"kid": kid, "jwk": jwk}),
        jwt.encode(claims, key, "ES256", {"jwk": jwk}),
        jwt.encode(claims, key, "ES256", {"kid": kid, "jku": "http://127.0.0.1/keys"}),
        jwt.encode(claims, key, "ES256", {"kid": "../../../../dev/null"}),
        jwt.encode(claims, None, "none", {"kid": kid}),
        jwt.encode(claims, "k" * 32, "HS256", {"kid": kid}),
        _changed(good, {"access": [{"type": "repository", "name": "b", "actions": ["pull"]}]}),
        good[:-4] + "AAAA",
        good + ".x",
        ".." * 10,
        "é" * 10,
    ]
    for token in forged:
        answer = await registry.anonymous.get(
            "/v2/team/app/tags/list", headers={"authorization": f"Bearer {token}".encode()}
        )
        assert challenge_of(answer).parameters["error"] == "invalid_token"


def _changed(token: str, claims: dict[str, Any]) -> str:
    head, body, signature = token.split(".")
    document = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = json.dumps({**document, **claims}).encode()
    return ".".join([head, base64.urlsafe_b64encode(changed).decode().rstrip("="), signature])


# ---- every route --------------------------------------------------------------------------------

_PATHS = {
    routes.BASE: "/v2/",
    routes.CATALOG: "/v2/_catalog",
    routes.BLOB: "/v2/{name}/blobs/" + str(Digest.of(b"layer ")),
    routes.UPLOADS: "/v2/{name}/blobs/uploads/",
    routes.UPLOAD: "/v2/{name}/blobs/uploads/00000000-0000-4000-8000-000000000000",
    routes.MANIFEST: "/v2/{name}/manifests/v1",
    routes.TAGS: "/v2/{name}/tags/list",
    routes.REFERRERS: "/v2/{name}/referrers/" + DIGEST,
    routes.EXTENSIONS: "/v2/_oci/ext/discover",
    routes.HISTORY: "/v2/{name}/_pyreg/history/v1",
}


@pytest.mark.parametrize(("kind", "method"), sorted(routes.ACTIONS))
async def test_cve_2026_27771_every_route_of_a_private_repository_is_closed(
    registry: Registry, kind: str, method: str
) -> None:
    """CVE-2020-29662, CVE-2022-31668 as well: to nobody, and to tokens for something else.

    A repository that exists and one that does not give the same answer, byte for byte.
    """
    async with registry.basic("alice") as alice:
        await push_image(alice, "team/app", "v1")
    elsewhere = await registry.token("alice", "repository:else/where:pull,push,delete")
    for headers in ({}, bearer(await registry.token("")), bearer(elsewhere)):
        if kind in (routes.BASE, routes.EXTENSIONS) and headers:
            continue  # a valid token is all that these want
        answers = []
        for name in ("team/app", "no/such"):
            path = _PATHS[kind].format(name=name)
            answer = await registry.anonymous.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer ")
            text = answer.text + answer.headers["www-authenticate"]
            answers.append(text.replace(name, "NAME"))
        assert answers[0] == answers[1]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_other_methods_are_405_and_say_which_are_possible(
    registry: Registry, method: str
) -> None:
    async with registry.basic("alice") as alice:
        for kind, path in _PATHS.items():
            if (kind, method) in routes.ACTIONS:
                continue
            answer = await alice.request(method, path.format(name="team/app"))
            assert answer.status_code == 405
            assert answer.headers["allow"] == ", ".join(routes.methods_of(kind))


async def test_cve_2020_29662_no_way_around_by_writing_the_path_otherwise(
    registry: Registry,
) -> None:
    for path in (
        "/v2//_catalog",
        "/v2/%2e/_catalog",
        "/V2/_catalog",
        "/v2/_catalog/",
        "/v2/_Catalog",
        "/v2/%5fcatalog",
        "/v2/x/../_catalog",
        "/v2%2f_catalog",
        "/token/../v2/_catalog",
    ):
        answer = await registry.anonymous.get(httpx.URL("http://registry", raw_path=path.encode()))
        assert answer.status_code in (400, 401, 404), path


async def test_the_realm_follows_the_public_url(start: Start) -> None:
    async with start(public_url="https://images.example.com/") as registry:
        answer = await registry.anonymous.get("/v2/", headers={"host": "evil.example"})
        [challenge] = parse_challenges(answer.headers["www-authenticate"])
        assert challenge.parameters["realm"] == "https://images.example.com/token"


@pytest.mark.parametrize("host", ['evil"x', "a b", "x" * 300, "a/b", "a,b"])
async def test_a_strange_host_does_not_get_into_the_challenge(
    registry: Registry, host: str
) -> None:
    answer = await registry.anonymous.get("/v2/", headers={"host": host})
    assert host not in answer.headers["www-authenticate"]


@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",), ("10.0.0.1",)])
async def test_forwarded_headers_count_only_from_trusted_proxies(
    start: Start, trusted: tuple[str, ...]
) -> None:
    async with start(trusted_proxies=trusted) as registry:
        answer = await registry.anonymous.get(
            "/v2/",
            headers={
                "x-forwarded-proto": "https",
                "x-forwarded-host": "images.example.com",
                "x-forwarded-for": "192.0.2.1",
            },
        )
        [challenge] = parse_challenges(answer.headers["www-authenticate"])
        believed = trusted == ("127.0.0.0/8",)  # the transport says it is 127.0.0.1
        expected = "https://images.example.com/token" if believed else "http://registry/token"
        assert challenge.parameters["realm"] == expected
        async with await registry.login("alice", "team/app") as alice:
            location = (await alice.post("/v2/team/app/blobs/uploads/")).headers["location"]
            assert location.startswith("/v2/team/app/")  # relative behind every proxy


async def test_cve_2025_48374_no_secret_in_the_access_log(
    start: Start, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG"):
        async with start(access_log="text") as registry:
            token = await registry.token("alice", "repository:team/app:pull")
            await registry.anonymous.get("/v2/?token=SECRETQUERY", headers=bearer(token))
            await registry.anonymous.post(
                "/token", data={"grant_type": "password", "password": "SECRETFORM"}
            )
    logged = capsys.readouterr().err + "".join(
        # all but the test's own client
        record.getMessage()
        for record in caplog.records
        if not record.name.startswith("http")
    )
    assert "GET /token 200" in logged
    for secret in (token, "SECRET", password_of("alice"), "Bearer", "Basic"):
        assert secret not in logged


@pytest.mark.parametrize("header", [b"Basic \xe9\xe9", b"Basic %%", b"Basic", b"Basic 4pyTOg=="])
async def test_malformed_credentials_are_wrong_credentials(
    registry: Registry, header: bytes
) -> None:
    for path in ("/v2/", "/token", "/v2/team/app/tags/list"):
        answer = await registry.anonymous.get(path, headers={b"authorization": header})
        assert (answer.status_code, code_of(answer)) == (401, "UNAUTHORIZED"), path
