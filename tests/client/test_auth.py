"""Tokens: asked for once, renewed once, and credentials only where they belong."""

from __future__ import annotations

import threading
from urllib.parse import parse_qs, urlsplit

import pytest

from client.auth import is_trusted_realm
from client.credentials import Credential
from client.errors import Unauthorized
from client.origin import Origin
from ocispec.digest import Digest
from tests.client.conftest import Client, make, put
from tests.client.rogue import Answer, Rogue, Seen, token

MADE = make(b"first layer", b"second layer", b"third layer")
ALICE = Credential("alice", "secret")


def protect(rogue: Rogue, good: str, *, scope: str = "repository:x:pull") -> None:
    """Every path but the token service wants this token."""
    for path, answer in list(rogue.answers.items()):

        def guarded(seen: Seen, answer: object = answer) -> Answer:
            if seen.headers.get("Authorization") == f"Bearer {good}":
                return answer(seen)  # type: ignore[operator, no-any-return]
            return rogue.challenge(f"http://{rogue.host}/token", scope=scope)

        rogue.answers[path] = guarded


def test_one_token_serves_a_whole_pull(client: Client, rogue: Rogue) -> None:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    protect(rogue, "good")
    rogue.on("/token", token("good"))
    client.pull(f"{rogue.host}/x:1", ALICE)
    (asked,) = rogue.requests("GET", "/token")
    query = parse_qs(urlsplit(asked.path).query)
    assert query["scope"] == ["repository:x:pull"] and query["service"] == ["rogue"]
    assert query["account"] == ["alice"]
    assert asked.headers["Authorization"] == ALICE.basic


def test_without_credentials_the_token_is_asked_for_anonymously(
    client: Client, rogue: Rogue
) -> None:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    protect(rogue, "anonymous")
    rogue.on("/token", token("anonymous"))
    client.pull(f"{rogue.host}/x:1")
    assert "Authorization" not in rogue.requests("GET", "/token")[0].headers


def test_an_expired_token_is_renewed_in_the_middle(client: Client, rogue: Rogue) -> None:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    protect(rogue, "new")
    tokens = iter(["old", "new"])
    rogue.on("/token", lambda _: token(next(tokens)))
    client.pull(f"{rogue.host}/x:1", ALICE)
    assert next(tokens, None) is None


def test_insufficient_scope_is_asked_for_once_more_with_what_was_wanted(
    client: Client, rogue: Rogue
) -> None:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    wide = "repository:x:pull repository:base:pull"
    protect(rogue, "wide", scope=wide)

    def issue(seen: Seen) -> Answer:
        scopes = parse_qs(urlsplit(seen.path).query)["scope"]
        return token("wide" if "repository:base:pull" in scopes else "narrow")

    rogue.on("/token", issue)
    client.pull(f"{rogue.host}/x:1", ALICE)


def test_an_identity_token_is_posted_and_never_in_a_url(client: Client, rogue: Rogue) -> None:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    protect(rogue, "good")
    rogue.on("/token", token("good"))
    client.pull(f"{rogue.host}/x:1", Credential(identity_token="refresh-me"))
    (asked,) = rogue.requests("POST", "/token")
    form = parse_qs(asked.body.decode())
    assert form["grant_type"] == ["refresh_token"] and form["refresh_token"] == ["refresh-me"]
    assert not any("refresh-me" in seen.path for seen in rogue.seen)


def test_a_refused_password_is_said_and_not_tried_again(client: Client, rogue: Rogue) -> None:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    protect(rogue, "good")
    rogue.on("/token", Answer(401, b"{}"))
    with pytest.raises(Unauthorized, match="incorrect username or password") as caught:
        client.pull(f"{rogue.host}/x:1", ALICE)
    assert "pyreg login" in caught.value.hint
    assert len(rogue.requests("GET", "/token")) == 1


def test_a_push_asks_for_the_right_to_push(client: Client, rogue: Rogue) -> None:
    put(client.store, MADE, f"{rogue.host}/x:1")
    for blob in MADE.blobs:  # all of it is there already
        rogue.on(f"/v2/x/blobs/{Digest.of(blob)}", Answer(200, blob))
    rogue.on("/v2/x/manifests/1", Answer(201))
    protect(rogue, "good", scope="repository:x:pull,push")
    rogue.on("/token", token("good"))
    client.push(f"{rogue.host}/x:1", ALICE)
    (asked,) = rogue.requests("GET", "/token")
    assert parse_qs(urlsplit(asked.path).query)["scope"] == ["repository:x:pull,push"]


def test_threads_share_one_token(client: Client, rogue: Rogue) -> None:
    rogue.on("/token", token("good"))
    rogue.on("/v2/x/tags/list", Answer(200, b'{"tags": []}'))
    protect(rogue, "good")
    rogue.on("/token", token("good"))
    registry = client.registry(rogue.host, ALICE)

    def ask() -> None:
        with registry.request("GET", "/v2/x/tags/list", scopes=frozenset({"s"})) as response:
            assert response.status == 200
            response.finish()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rogue.requests("GET", "/token")) == 1


REALMS = [
    # registry, realm, may it have the credentials?
    ("https://reg.example.com", "https://reg.example.com", True, "the same host"),
    ("https://reg.example.com", "https://reg.example.com:8443", True, "another port of it"),
    ("https://reg.example.com", "http://reg.example.com", False, "never out of TLS"),
    ("https://reg.example.com", "https://auth.example.com", True, "a neighbour"),
    ("https://reg.example.com", "https://example.com", True, "the host above"),
    ("https://reg.example.com", "https://auth.reg.example.com", True, "a host below"),
    ("https://reg.example.com", "https://evil.com", False, "a stranger"),
    ("https://reg.example.com", "https://example.com.evil.com", False, "looks like it"),
    ("https://reg.example.com", "https://evilreg.example.com.", False, "a trailing dot"),
    ("https://reg.example.com", "https://com", False, "above the owner"),
    ("https://example.com", "https://evil.com", False, "com is shared"),
    ("https://victim.co.uk", "https://evil.co.uk", False, "co.uk is shared"),
    ("https://victim.azurecr.io", "https://evil.azurecr.io", False, "customers of one cloud"),
    ("https://a.eu.ecr.amazonaws.com", "https://b.eu.ecr.amazonaws.com", False, "the same"),
    ("https://10.0.0.1", "https://10.0.0.2", False, "addresses have no neighbours"),
    ("https://registry-1.docker.io", "https://auth.docker.io", True, "Docker Hub"),
    ("https://registry.gitlab.com", "https://gitlab.com", True, "GitLab"),
    ("https://ghcr.io", "https://ghcr.io", True, "GitHub"),
    ("http://localhost:5000", "http://localhost:5000", True, "loopback"),
    ("http://127.0.0.1:5000", "http://localhost:5001", True, "loopback"),
    ("http://reg.lan:5000", "http://reg.lan:5000", True, "listed as insecure, and the same host"),
    ("http://reg.lan:5000", "http://auth.lan:5000", False, "another host in clear"),
]


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [case[:3] for case in REALMS],
    ids=[f"{case[1]} of {case[0]}: {case[3]}" for case in REALMS],
)
def test_cve_2026_33540_which_realm_may_have_the_credentials(
    registry: str, realm: str, trusted: bool
) -> None:
    origin, _ = Origin.parse(registry)
    assert is_trusted_realm(origin, origin.netloc, Origin.parse(realm)[0]) is trusted


def test_a_realm_the_user_listed_is_trusted_by_tls_only() -> None:
    origin, _ = Origin.parse("https://reg.example.com")
    for url, trusted in (("https://sso.corp.net", True), ("http://sso.corp.net", False)):
        realm, _ = Origin.parse(url)
        assert is_trusted_realm(origin, "reg.example.com", realm, ("sso.corp.net",)) is trusted
