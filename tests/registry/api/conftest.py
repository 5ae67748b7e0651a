"""The whole application behind an ASGI transport, and what tests need to talk to it."""

from __future__ import annotations

import asyncio
import atexit
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST
from registry.api.services import Services
from registry.app import create_app, open_database
from registry.auth.passwords import Passwords
from registry.first_start import make_directory
from registry.settings import Settings

USERS = {"alice": "writer", "bob": "writer", "rita": "reader"}


def password_of(name: str) -> str:
    return f"the password of {name}"


class Registry:
    """A started application and a client of it; `login` gives one with a token."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.anonymous = self.client()

    def client(self, **options: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app)
        return httpx.AsyncClient(transport=transport, base_url="http://registry", **options)

    def basic(self, name: str) -> httpx.AsyncClient:
        return self.client(auth=(name, password_of(name)))

    async def token(self, name: str, *scopes: str) -> str:
        answer = await self.anonymous.get(
            "/token",
            params={"service": "pyreg", "scope": list(scopes)},
            auth=(name, password_of(name)) if name else None,
        )
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["token"]
        return token

    async def login(self, name: str, *repositories: str) -> httpx.AsyncClient:
        scopes = [f"repository:{each}:pull,push,delete" for each in repositories]
        token = await self.token(name, *scopes)
        return self.client(headers={"authorization": f"Bearer {token}"})


@asynccontextmanager
async def started(tmp_path: Path, **changes: Any) -> AsyncIterator[Registry]:
    """The application on a fresh directory with the USERS in it."""
    settings = Settings(root=str(tmp_path), **changes)
    if not settings.data.exists():
        shutil.copytree(await _prepared(), settings.data)
    app = create_app(settings)
    async with _lifespan(app):
        registry = Registry(app, settings)
        async with registry.anonymous:
            yield registry


async def _prepared() -> Path:
    """A registry's directory with the USERS in it, made once and copied for each test."""
    if not _templates:
        settings = Settings(root=tempfile.mkdtemp(prefix="pyreg-test-"))
        atexit.register(shutil.rmtree, settings.root)
        make_directory(settings)
        metadata = open_database(settings)
        passwords = Passwords()
        for name, role in USERS.items():
            await metadata.accounts.add(name, await passwords.hash(password_of(name)), role)
        passwords.close()
        metadata.close()
        _templates.append(settings.data)
    return _templates[0]


_templates: list[Path] = []


@asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    """Start and stop the application as a server does."""
    received: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    task = asyncio.create_task(app({"type": "lifespan"}, received.get, sent.put))
    for step in ("startup", "shutdown"):
        await received.put({"type": f"lifespan.{step}"})
        answer = await sent.get()
        assert answer["type"] == f"lifespan.{step}.complete", answer
        if step == "startup":
            try:
                yield
            except BaseException:
                task.cancel()
                raise
    await task


Start = Callable[..., AbstractAsyncContextManager[Registry]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """For tests that choose settings or start twice on the same directory."""

    def begin(**changes: Any) -> AbstractAsyncContextManager[Registry]:
        return started(tmp_path, **changes)

    return begin


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with started(tmp_path) as running:
        yield running


@pytest.fixture
async def alice(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    """A writer with a token for the repositories `team/app` and `team/other`."""
    async with await registry.login("alice", "team/app", "team/other") as client:
        yield client


@pytest.fixture
def services(registry: Registry) -> Services:
    """What the application works with, to look behind the API."""
    route = registry.app.app.routes[0]
    found: Services = route._opened.get()
    return found


async def push_blob(client: httpx.AsyncClient, name: str, data: bytes) -> str:
    """Push as docker does: POST, PATCH, PUT; the digest."""
    digest = str(Digest.of(data))
    begun = await client.post(f"/v2/{name}/blobs/uploads/")
    assert begun.status_code == 202, begun.text
    sent = await client.patch(begun.headers["location"], content=data)
    assert sent.status_code == 202, sent.text
    done = await client.put(sent.headers["location"], params={"digest": digest})
    assert done.status_code == 201, done.text
    return digest


def descriptor(media_type: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(data)), "size": len(data), **more}


def manifest_of(config: bytes, *layers: bytes, **more: Any) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config),
            "layers": [descriptor(OCI_LAYER, layer) for layer in layers],
            **more,
        }
    ).encode()


async def push_image(
    client: httpx.AsyncClient, name: str, reference: str, *, marker: str = "", **more: Any
) -> tuple[str, bytes]:
    """Push a small image under a tag, or under its own digest if `reference` is empty."""
    config, layer = b'{"marker": "%s"}' % marker.encode(), f"layer {marker}".encode()
    await push_blob(client, name, config)
    await push_blob(client, name, layer)
    raw = manifest_of(config, layer, **more)
    digest = str(Digest.of(raw))
    answer = await client.put(
        f"/v2/{name}/manifests/{reference or digest}",
        content=raw,
        headers={"content-type": OCI_MANIFEST},
    )
    assert answer.status_code == 201, answer.text
    assert answer.headers["docker-content-digest"] == digest
    return digest, raw


def code_of(answer: httpx.Response) -> str:
    """The one error code in an error document."""
    [error] = answer.json()["errors"]
    assert set(error) <= {"code", "message", "detail"}
    assert answer.headers["content-type"] == "application/json"
    code: str = error["code"]
    return code
