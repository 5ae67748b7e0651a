"""Answers at once are the ordinary answers: the same bytes, the same rights, the same existence.

One real server whose responder can be switched off: each request is sent with and without it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.distribution.scope import Scope
from ocispec.mediatype import OCI_MANIFEST
from registry.app import create_app, open_database
from registry.auth.login import credential_of
from registry.auth.passwords import Passwords
from registry.auth.tokens import Tokens
from registry.first_start import make_directory
from registry.metadata.base import Metadata
from registry.server.counters import COUNTERS
from registry.server.run import Listening, ServerOptions, make_server
from registry.settings import Settings
from tests.registry.api.conftest import manifest_of

REPOSITORY = "team/app"
CONFIG, LAYER = b"{}", b"a layer"
BIG = 4 << 20
PASSWORD = "the password"


class Switched:
    """The application; without `on` its responder is never asked."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.on = True

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)

    def responder(self, *request: Any) -> Any:
        return self.app.responder(*request) if self.on else None


class World:
    """A server with an image in it, its database, and callers."""

    def __init__(self, app: Switched, port: int, metadata: Metadata) -> None:
        self.app = app
        self.port = port
        self.metadata = metadata
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30)
        keys = asyncio.run(metadata.credentials.signing_keys())
        self._keys = keys
        self.bearer = self.token("alice")
        self.basic = "Basic " + base64.b64encode(f"alice:{PASSWORD}".encode()).decode()
        self.tag = f"/v2/{REPOSITORY}/manifests/latest"
        self.digest = self.push("latest")
        self.by_digest = f"/v2/{REPOSITORY}/manifests/{self.digest}"
        self.layer = str(Digest.of(LAYER))
        self.blob = f"/v2/{REPOSITORY}/blobs/{self.layer}"
        self.push("big", annotations={"filler": "x" * (BIG - 1000)})

    def token(
        self, subject: str, name: str = REPOSITORY, *, actions: str = "pull push delete",
        ends_in: float = 900
    ) -> str:  # fmt: skip
        issuer = Tokens(
            self._keys,
            issuer="pyreg",
            service="pyreg",
            lifetime_s=900,
            clock=lambda: time.time() + ends_in - 900,
        )
        scope = Scope("repository", name, frozenset(actions.split()))
        account = asyncio.run(self.metadata.accounts.find(subject))
        credential = credential_of(account) if account is not None else ""
        return f"Bearer {issuer.issue(subject, [scope], credential=credential).text}"

    def ask(self, method: str, path: str, authorization: str = "", **more: Any) -> httpx.Response:
        headers = {"authorization": authorization or self.bearer, **more.pop("headers", {})}
        return self.client.request(method, path, headers=headers, **more)

    def push(self, tag: str, **more: Any) -> str:
        for data in (CONFIG, LAYER):
            begun = self.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
            where = begun.headers["location"]
            done = self.ask("PUT", where, content=data, params={"digest": str(Digest.of(data))})
            assert done.status_code == 201, done.text
        raw = manifest_of(CONFIG, LAYER, **more)
        path = f"/v2/{REPOSITORY}/manifests/{tag}"
        done = self.ask("PUT", path, content=raw, headers={"content-type": OCI_MANIFEST})
        assert done.status_code == 201, done.text
        return str(Digest.of(raw))

    def answered(
        self, pieces: list[bytes], *, at_once: bool, authorization: str = ""
    ) -> tuple[bytes, int]:
        """All the bytes that come back, and how many requests were answered at once.

        A last request ends the connection, unless it was ended before.
        """
        self.app.on = at_once
        try:
            if authorization:  # as it would be remembered from a request before
                warm = {"authorization": authorization}
                self.client.get(f"/v2/{REPOSITORY}/manifests/no", headers=warm)
            before = COUNTERS.immediate
            received = b""
            with socket.create_connection(("127.0.0.1", self.port), timeout=20) as to:
                to.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for number, piece in enumerate(pieces):
                    if number:
                        time.sleep(0.02)
                    to.sendall(piece)
                with contextlib.suppress(ConnectionError):
                    received = to.recv(1 << 16)
                    if received:
                        to.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                    while part := to.recv(1 << 20):
                        received += part
            return received, COUNTERS.immediate - before
        finally:
            self.app.on = True


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[World, None, None]:
    yield from _world(tmp_path_factory.mktemp("immediate"), request.param)


@pytest.fixture
def fresh(tmp_path: Path) -> Generator[World, None, None]:
    """For tests that change accounts or content."""
    yield from _world(tmp_path, "asyncio")


def _world(
    root: Path, loop: Any, *, keep_alive_s: int = 75, **changes: Any
) -> Generator[World, None, None]:
    settings = Settings(root=str(root), **changes)
    make_directory(settings)
    metadata = open_database(settings)
    asyncio.run(_add_users(metadata))
    app = Switched(create_app(settings))
    ready, where = threading.Event(), []

    def on_ready(listening: Listening) -> None:
        where.append(listening.port)
        ready.set()

    sock = socket.create_server(("127.0.0.1", 0))
    server = make_server(
        app, ServerOptions(loop=loop, graceful_s=2, keep_alive_s=keep_alive_s), on_ready
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    world = None
    try:
        assert ready.wait(20)
        world = World(app, where[0], metadata)
        yield world
    finally:
        if world is not None:
            world.client.close()
        server.should_exit = True
        thread.join(15)
        sock.close()
        metadata.close()
        assert not thread.is_alive()


async def _add_users(metadata: Metadata) -> None:
    passwords = Passwords()
    hashed = await passwords.hash(PASSWORD)
    for name in ("alice", "bob"):
        await metadata.accounts.add(name, hashed, "writer")
    passwords.close()


def head(method: str, path: str, *lines: str, version: str = "1.1", auth: str = "@") -> str:
    """A request as text; `@` stands for the token, which the test fills in."""
    fields = ["Host: registry", *([f"Authorization: {auth}"] if auth else []), *lines]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *fields, "", ""])


# Name → (request, how many of its answers come at once). {tag} and so on are filled in.
AT_ONCE = {
    "tag": (head("GET", "{tag}"), 1),
    "tag, HEAD": (head("HEAD", "{tag}"), 1),
    "digest": (head("GET", "{by_digest}"), 1),
    "digest, HEAD": (head("HEAD", "{by_digest}"), 1),
    "blob, HEAD": (head("HEAD", "{blob}"), 1),
    "big": (head("GET", "/v2/team/app/manifests/big"), 1),
    "big, HEAD": (head("HEAD", "/v2/team/app/manifests/big"), 1),
    "docker's headers": (
        head(
            "GET", "{tag}", "User-Agent: docker/27.3.1 go/go1.22.7", "Accept-Encoding: gzip",
            "Accept: application/vnd.oci.image.manifest.v1+json, */*;q=0.1",
        ),
        1,
    ),
    "unchanged": (head("GET", "{tag}", 'If-None-Match: "{digest}"'), 1),
    "unchanged, HEAD": (head("HEAD", "{tag}", 'If-None-Match: "{digest}"'), 1),
    "unchanged, weak and in a list": (head("GET", "{tag}", 'If-None-Match: "x", W/"{digest}"'), 1),
    "unchanged, any": (head("GET", "{by_digest}", "If-None-Match: *"), 1),
    "unchanged, bare": (head("GET", "{tag}", "If-None-Match: {digest}"), 1),
    "changed": (head("GET", "{tag}", 'If-None-Match: "{layer}"'), 1),
    "unchanged blob": (head("HEAD", "{blob}", 'If-None-Match: "{layer}"'), 1),
    "HTTP/1.0": (head("GET", "{tag}", version="1.0"), 1),
    "HTTP/1.0, kept": (head("GET", "{tag}", "Connection: keep-alive", version="1.0"), 1),
    "close": (head("GET", "{tag}", "Connection: close"), 1),
    "close, HEAD": (head("HEAD", "{blob}", "Connection: Close, x"), 1),
    "close, 304": (head("GET", "{tag}", "Connection: close", "If-None-Match: *"), 1),
    "no such blob": (head("HEAD", "/v2/team/app/blobs/sha256:" + "0" * 64), 1),
    "no such blob, condition": (
        head("HEAD", "/v2/team/app/blobs/sha256:" + "0" * 64, "If-None-Match: *"), 1
    ),
    "no such blob, other algorithm": (
        head("HEAD", "/v2/team/app/blobs/sha512:" + "0" * 128), 1
    ),
    "with an id": (head("GET", "{tag}", "X-Request-Id: mine-1"), 1),
    "with a strange id": (head("GET", "{tag}", "X-Request-Id: a b"), 1),
    "odd spelling of names": (head("GET", "{tag}", "iF-nOnE-mAtCh:   *   "), 1),
    "empty header": (head("GET", "{tag}", "X-Nothing:", "Cookie: a=b; c=d"), 1),
    "bytes above ASCII": (head("GET", "{tag}", "X-Name: \xe9\xff"), 1),
    "pipelined": (head("GET", "{tag}") + head("HEAD", "{blob}") + head("GET", "{by_digest}"), 3),
    "pipelined behind the end": (
        head("GET", "{tag}", "Connection: close") + head("GET", "{by_digest}"), 1
    ),
    "pipelined before an ordinary one": (head("GET", "{tag}") + head("GET", "/v2/"), 1),
    "pipelined behind an ordinary one": (head("GET", "/v2/") + head("GET", "{tag}"), 0),
    "pipelined behind a 404": (head("GET", "/v2/team/app/manifests/no") + head("GET", "{tag}"), 0),
    "many big ones, pipelined": (head("GET", "/v2/team/app/manifests/big") * 5, None),
    "more in a row than one read gives": (head("HEAD", "{blob}") * 40, 32),
}  # fmt: skip

ORDINARY = {
    "no such tag": head("GET", "/v2/team/app/manifests/no"),
    "no such tag, HEAD": head("HEAD", "/v2/team/app/manifests/no"),
    "no such repository": head("GET", "/v2/team/none/manifests/latest"),
    "no such blob, no token": head("HEAD", "/v2/team/none/blobs/sha256:" + "0" * 64),
    "no such digest": head("HEAD", "/v2/team/app/manifests/sha256:" + "0" * 64),
    "bytes of a blob": head("GET", "{blob}"),
    "part of a blob": head("HEAD", "{blob}", "Range: bytes=0-1"),
    "unknown token": head("GET", "{tag}", auth="Bearer a.b.c"),
    "nobody": head("GET", "{tag}", auth=""),
    "no scheme": head("GET", "{tag}", auth="hello"),
    "wrong password": head("GET", "{tag}", auth="Basic YWxpY2U6eA=="),
    "two tokens": head("GET", "{tag}", "Authorization: Bearer x"),
    "a header twice": head("GET", "{tag}", "Accept: a/b", "Accept: c/d"),
    "query": head("GET", "{tag}?ns=docker.io"),
    "empty query": head("GET", "{tag}?"),
    "fragment": head("GET", "{tag}#x"),
    "escaped": head("GET", "/v2/team/app/manifests/%6catest"),
    "escaped end of line": head("GET", "{tag}%0A"),
    "trailing slash": head("GET", "{tag}/"),
    "trailing colon": head("GET", "{tag}:"),
    "two slashes": head("GET", "/v2//team/app/manifests/latest"),
    "dots": head("GET", "/v2/team/x/../app/manifests/latest"),
    "upper-case name": head("GET", "/v2/Team/app/manifests/latest"),
    "tag with a dash first": head("GET", "/v2/team/app/manifests/-x"),
    "tag too long": head("GET", "/v2/team/app/manifests/" + "x" * 129),
    "path too long": head("GET", "/v2/" + "a/" * 600 + "manifests/latest"),
    "digest too short": head("HEAD", "/v2/team/app/blobs/sha256:00"),
    "digest of another algorithm": head("HEAD", "/v2/team/app/blobs/md5:" + "0" * 32),
    "absolute target": head("GET", "http://registry{tag}"),
    "a length of nothing": head("GET", "{tag}", "Content-Length: 0"),
    "a body": head("GET", "{tag}", "Content-Length: 3") + "abc",
    "a chunked body": head("GET", "{tag}", "Transfer-Encoding: chunked") + "1\r\na\r\n0\r\n\r\n",
    "expects to be told": head("GET", "{tag}", "Expect: 100-continue"),
    "upgrade": head("GET", "{tag}", "Connection: upgrade", "Upgrade: h2c"),
    "delete": head("DELETE", "/v2/team/app/manifests/no"),
    "options": head("OPTIONS", "{tag}"),
    "post": head("POST", "{tag}", "Content-Length: 0"),
    "malformed": head("GET", "{tag}", "no colon"),
}


def compare(world: World, text: str, *, cut: int = 0) -> int:
    """Send with and without the responder; how many were answered at once."""
    authorization = world.bearer
    request = text.replace("@", authorization)
    for name in ("tag", "by_digest", "blob", "digest", "layer"):
        request = request.replace("{" + name + "}", getattr(world, name))
    data = request.encode("latin-1")
    pieces = [data] if not cut else [data[:cut], data[cut : cut + 9], data[cut + 9 :]]
    ordinary, none = world.answered(pieces, at_once=False, authorization=authorization)
    immediate, count = world.answered(pieces, at_once=True, authorization=authorization)
    assert none == 0
    assert ordinary.startswith(b"HTTP/1.1 ")
    assert without_date(immediate) == without_date(ordinary)
    assert immediate.count(b"\r\ndate: ") == ordinary.count(b"\r\ndate: ")
    return count


def without_date(data: bytes) -> bytes:
    """Without Date and the ids that we made up."""
    data = re.sub(rb"x-request-id: [0-9a-f]{20}\r\n", b"x-request-id: -\r\n", data)
    return re.sub(rb"\r\ndate: [A-Za-z0-9,: ]{29}\r\n", b"\r\ndate: -\r\n", data)


@pytest.mark.parametrize("name", AT_ONCE)
def test_an_answer_at_once_is_the_ordinary_answer(world: World, name: str) -> None:
    text, expected = AT_ONCE[name]
    count = compare(world, text)
    assert count == expected if expected is not None else count >= 1


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_not_plain_goes_the_ordinary_way(world: World, name: str) -> None:
    assert compare(world, ORDINARY[name]) == 0


@pytest.mark.parametrize("cut", [1, 5, 40, 200])
def test_a_head_in_pieces_is_answered_at_once(world: World, cut: int) -> None:
    assert compare(world, head("GET", "{tag}"), cut=cut) == 1


@pytest.mark.parametrize("case", ["basic", "lower-case scheme"])
def test_other_credentials_are_remembered_too(world: World, case: str) -> None:
    auth = world.basic if case == "basic" else world.bearer.replace("Bearer", "bearer")
    request = [head("GET", world.tag, auth=auth).encode()]
    ordinary, _ = world.answered(request, at_once=False, authorization=auth)
    immediate, count = world.answered(request, at_once=True, authorization=auth)
    assert (count, without_date(immediate)) == (1, without_date(ordinary))


@pytest.mark.parametrize(
    ("subject", "name", "actions", "ends_in", "status"),
    [
        ("alice", "team/other", "pull", 900, 401),
        ("alice", REPOSITORY, "push", 900, 401),
        ("alice", REPOSITORY, "pull", -60, 401),
        ("nobody", REPOSITORY, "pull", 900, 401),
        ("", REPOSITORY, "pull", 900, 401),
        ("alice", REPOSITORY, "pull", 900, 200),
    ],
)
def test_attack_a_token_that_grants_too_little(
    world: World, subject: str, name: str, actions: str, ends_in: float, status: int
) -> None:
    auth = world.token(subject, name, actions=actions, ends_in=ends_in)
    for path, method in ((world.tag, "GET"), (world.by_digest, "HEAD"), (world.blob, "HEAD")):
        request = [head(method, path, auth=auth).encode()]
        ordinary, _ = world.answered(request, at_once=False, authorization=auth)
        immediate, count = world.answered(request, at_once=True, authorization=auth)
        assert immediate.startswith(b"HTTP/1.1 %d " % status)
        assert without_date(immediate) == without_date(ordinary)
        assert count == (1 if status == 200 else 0)


def seen(world: World, path: str, auth: str = "", method: str = "GET") -> tuple[int, int]:
    """Status, and how many answers came at once."""
    before = COUNTERS.immediate
    return world.ask(method, path, auth).status_code, COUNTERS.immediate - before


def warmed(world: World, auth: str = "") -> None:
    """Until an answer comes at once."""
    seen(world, world.tag, auth)
    assert seen(world, world.tag, auth) == (200, 1)


@pytest.mark.parametrize("credentials", ["bearer", "basic"])
@pytest.mark.parametrize("change", ["disabled", "removed", "password"])
def test_attack_a_revoked_account_is_seen_by_the_next_request(
    fresh: World, change: str, credentials: str
) -> None:
    auth = getattr(fresh, credentials)
    warmed(fresh, auth)
    accounts = fresh.metadata.accounts
    if change == "disabled":
        asyncio.run(accounts.set_disabled("alice", True))
    elif change == "removed":
        asyncio.run(accounts.remove("alice"))
    else:
        asyncio.run(accounts.set_password("alice", "$argon2id$v=19$m=8,t=1,p=1$YWFhYWFhYWE$YWFh"))
    assert seen(fresh, fresh.tag, auth) == (401, 0)


def test_attack_a_demoted_account_is_seen_by_the_next_request(fresh: World) -> None:
    warmed(fresh)
    asyncio.run(fresh.metadata.accounts.set_role("alice", "reader"))
    assert seen(fresh, fresh.tag) == (200, 0)
    assert fresh.ask("DELETE", fresh.tag).status_code == 401
    assert seen(fresh, fresh.tag) == (200, 1)


def test_attack_a_token_that_expires_is_seen_by_the_next_request(fresh: World) -> None:
    auth = fresh.token("alice", ends_in=3)
    warmed(fresh, auth)
    time.sleep(3.1)
    assert seen(fresh, fresh.tag, auth) == (401, 0)


def test_a_deleted_tag_is_seen_by_the_next_request(fresh: World) -> None:
    warmed(fresh)
    assert fresh.ask("DELETE", fresh.tag).status_code == 202
    assert seen(fresh, fresh.tag) == (404, 0)
    assert seen(fresh, fresh.by_digest) == (200, 1)


def test_a_deleted_manifest_is_seen_by_the_next_request(fresh: World) -> None:
    warmed(fresh)
    assert fresh.ask("DELETE", fresh.by_digest).status_code == 202
    assert seen(fresh, fresh.tag) == (404, 0)
    assert seen(fresh, fresh.by_digest) == (404, 0)


def test_a_moved_tag_is_seen_by_the_next_request(fresh: World) -> None:
    warmed(fresh)
    moved = fresh.push("latest", annotations={"new": "one"})
    answer = fresh.ask("GET", fresh.tag)
    assert answer.headers["docker-content-digest"] == moved != fresh.digest
    assert str(Digest.of(answer.content)) == moved
    assert json.loads(answer.content)["annotations"] == {"new": "one"}


def test_a_deleted_blob_is_seen_by_the_next_request(fresh: World) -> None:
    data = b"nothing refers to this"
    digest = str(Digest.of(data))
    begun = fresh.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/")
    put = fresh.ask("PUT", begun.headers["location"], content=data, params={"digest": digest})
    assert put.status_code == 201
    path = f"/v2/{REPOSITORY}/blobs/{digest}"
    warmed(fresh)
    assert seen(fresh, path, method="HEAD") == (200, 1)
    assert fresh.ask("DELETE", path).status_code == 202
    assert seen(fresh, path, method="HEAD") == (404, 1)


def test_a_lease_that_is_due_is_renewed_by_the_ordinary_way(tmp_path: Path) -> None:
    import sqlite3

    worlds = _world(tmp_path, "asyncio")
    world = next(worlds)
    try:
        warmed(world)
        database = sqlite3.connect(tmp_path / "registry" / "metadata.db", isolation_level=None)
        with contextlib.closing(database):
            now = int(time.time())
            database.execute(
                "UPDATE blob SET unreferenced_since = ?, lease_until = ? WHERE digest = ?",
                (now - 9, now + 60, world.layer),
            )
            assert seen(world, world.blob, method="HEAD") == (200, 0)
            found = "SELECT lease_until FROM blob WHERE digest = ?"
            assert database.execute(found, (world.layer,)).fetchone()[0] > now + 12 * 3600
        assert seen(world, world.blob, method="HEAD") == (200, 1)
    finally:
        worlds.close()


def test_without_authentication_everybody_is_answered_at_once(tmp_path: Path) -> None:
    worlds = _world(tmp_path, "asyncio", auth=False)
    world = next(worlds)
    try:
        request = [head("GET", world.tag, auth="").encode()]
        ordinary, _ = world.answered(request, at_once=False)
        immediate, count = world.answered(request, at_once=True)
        assert (count, without_date(immediate)) == (1, without_date(ordinary))
    finally:
        worlds.close()


def test_anonymous_pulls_are_answered_at_once(tmp_path: Path) -> None:
    worlds = _world(tmp_path, "asyncio", anonymous_pull=True)
    world = next(worlds)
    try:
        request = [head("GET", world.tag, auth="").encode()]
        ordinary, _ = world.answered(request, at_once=False)
        immediate, count = world.answered(request, at_once=True)
        assert (count, without_date(immediate)) == (1, without_date(ordinary))
    finally:
        worlds.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_idle_connection_is_closed(tmp_path: Path, loop: str) -> None:
    worlds = _world(tmp_path, loop, keep_alive_s=1)
    world = next(worlds)
    try:
        warmed(world)
        request = head("HEAD", world.blob, auth=world.bearer).encode()
        with socket.create_connection(("127.0.0.1", world.port), timeout=20) as to:
            before = COUNTERS.immediate
            for _ in range(3):  # in use for longer than the limit: it stays
                to.sendall(request)
                assert to.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
                time.sleep(0.6)
            assert COUNTERS.immediate == before + 3
            assert to.recv(1) == b""
    finally:
        worlds.close()


def test_requests_are_counted_and_logged_like_others(world: World) -> None:
    observer = world.app.app.app.routes[0]._opened.get().observer
    ended: list[Any] = []
    observer.add_reader(ended.append)
    try:
        warmed(world)
        headers = {"x-request-id": "mine", "user-agent": "test"}
        world.app.on = False
        ordinary = world.ask("GET", world.tag, headers=headers)
        world.app.on = True
        immediate = world.ask("GET", world.tag, headers=headers)
    finally:
        world.app.on = True
        observer.remove_reader(ended.append)
    assert ordinary.content == immediate.content
    one, other = ended[-2:]
    assert one.about == other.about
    assert (one.method, one.status, one.sent) == (other.method, other.status, other.sent)
