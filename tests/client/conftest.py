"""A local store, a client with no pauses, peers on loopback, and images to move."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.credentials import Credential, FileKeychain, FixedKeychain
from client.local import LocalStore
from client.localimage import LocalImage
from client.options import ClientOptions
from client.pull import Pulled, pull
from client.push import Pushed, push
from client.remote import Registry
from client.transport import Transport
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.distribution.reference import Reference
from ocispec.image.config import ImageConfig, new_config
from ocispec.image.manifest import ImageManifest, new_manifest
from ocispec.image.platform import Platform
from ocispec.mediatype import OCI_CONFIG, OCI_LAYER
from ocispec.value import replace
from tests.builders.servers import PASSWORD, Server, start_docker_registry
from tests.client.rogue import Rogue, rogue_registry

AMD64 = Platform("linux", "amd64")
DEFAULT = "localhost:5000"
# "correct horse battery" by bcrypt
HTPASSWD = "tester:$2b$05$abcdefghijklmnopqrstuuD3mHdCr44zlIZ.VZCaYRpfQhXMYnEo.\n"


@dataclass
class Made:
    """An image in memory: everything a registry or a store is given of it."""

    manifest: ImageManifest
    config: ImageConfig
    layers: tuple[bytes, ...]

    @property
    def blobs(self) -> tuple[bytes, ...]:
        return (self.config.raw, *self.layers)


def make(*layers: bytes, platform: Platform = AMD64, created: str = "", label: str = "") -> Made:
    """An image of these layers, which are their own diffs: plain, not compressed."""
    config = new_config(
        platform,
        diff_ids=[Digest.of(layer) for layer in layers],
        created=created or "2026-01-02T03:04:05Z",
        cmd=["true"],
        labels={"made": label} if label else {},
    )
    manifest = new_manifest(
        Descriptor(media_type=OCI_CONFIG, digest=config.digest, size=len(config.raw)),
        [Descriptor(media_type=OCI_LAYER, digest=Digest.of(x), size=len(x)) for x in layers],
    )
    return Made(manifest, config, layers)


def descriptor(manifest: ImageManifest) -> Descriptor:
    return Descriptor(
        media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.raw)
    )


def reference(text: str) -> Reference:
    return Reference.parse(text, default_registry=DEFAULT)


def put(store: LocalStore, made: Made, *names: str) -> LocalImage:
    """Record an image in a store, as an import would."""
    with store.lease():
        for blob in (*made.blobs, made.manifest.raw):
            store.layout.put(blob)
    return store.record(descriptor(made.manifest), names=[reference(name) for name in names])


class Client:
    """The library as a program uses it, with a record of the pauses it would have made."""

    def __init__(self, options: ClientOptions, store: LocalStore) -> None:
        self.options = options
        self.store = store
        self.pauses: list[float] = []
        self.transport = Transport(options, sleep=self.pauses.append)

    def registry(self, name: str, credential: Credential | None = None) -> Registry:
        keychain = FixedKeychain(credential) if credential else FileKeychain(self.options)
        return Registry(name, self.transport, keychain)

    def pull(
        self, name: str, credential: Credential | None = None, platform: Platform = AMD64
    ) -> Pulled:
        wanted = reference(name)
        repository = self.registry(wanted.registry, credential).repository(wanted.repository)
        return pull(
            wanted,
            repository,
            self.store,
            platform,
            attempts=self.options.attempts,
            pause=self.transport.pause,
        )

    def push(self, name: str, credential: Credential | None = None) -> Pushed:
        wanted = reference(name)
        repository = self.registry(wanted.registry, credential).repository(wanted.repository)
        return push(wanted, self.store, repository)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "images"), default_registry=DEFAULT)


@pytest.fixture
def options(tmp_path: Path) -> ClientOptions:
    return ClientOptions(
        default_registry=DEFAULT,
        docker_config=str(tmp_path / "docker"),
        helper_environment={"PATH": os.environ["PATH"]},
        attempts=3,
        read_timeout_s=10.0,
    )


@pytest.fixture
def client(options: ClientOptions, store: LocalStore) -> Iterator[Client]:
    made = Client(options, store)
    yield made
    made.transport.close()


@pytest.fixture
def another_client(options: ClientOptions, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Further clients with a store of their own, and options changed."""
    clients = []

    def make_one(**changes: object) -> Client:
        root = tmp_path / f"images-{len(clients)}"
        clients.append(
            Client(replace(options, **changes), LocalStore(str(root), default_registry=DEFAULT))
        )
        return clients[-1]

    yield make_one
    for each in clients:
        each.transport.close()


@pytest.fixture
def rogue() -> Iterator[Rogue]:
    with rogue_registry() as made:
        yield made


@pytest.fixture
def other_host() -> Iterator[Rogue]:
    """Another origin: credentials for the first must not come here."""
    with rogue_registry() as made:
        yield made


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_docker_registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def private_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """docker-registry that asks for Basic authentication."""
    server = start_docker_registry(tmp_path_factory.mktemp("private"), htpasswd=HTPASSWD)
    server.username, server.password = "tester", PASSWORD
    yield server
    server.stop()
