"""Against our own registry: tokens, identity tokens, mounts, digests."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from client.credentials import Credential, FileKeychain
from client.errors import Denied, NotFound, Unauthorized
from client.login import login
from client.push import push
from client.search import search
from ocispec.digest import Digest
from tests.builders.servers import Server, start_pyreg
from tests.client.conftest import Client, make, put, reference


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_pyreg(tmp_path_factory.mktemp("pyreg"))
    yield server
    server.stop()


def test_login_push_pull_tags_and_search(
    client: Client, another_client: Callable[..., Client], registry: Server
) -> None:
    name = f"{registry.host}/{registry.username}/image:1"
    made = make(os.urandom(3_000_000), b"small")
    put(client.store, made, name)
    with pytest.raises((Unauthorized, Denied)):
        client.push(name)
    keychain = FileKeychain(client.options)
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        login(registry.host, Credential(registry.username, "no"), client.transport, keychain)
    right = Credential(registry.username, registry.password)
    outcome = login(registry.host, right, client.transport, keychain)
    stored = keychain.find(registry.host)
    assert stored is not None
    if outcome.is_token:
        assert stored.identity_token and not stored.password
    client.push(name)
    there = another_client()
    assert there.pull(name).target.digest == made.manifest.digest
    for blob in made.blobs:
        assert there.store.layout.read(Digest.of(blob), 4_000_000) == blob
    found = client.registry(registry.host)
    repository = found.repository(reference(name).repository)
    assert list(repository.tags()) == ["1"]
    assert repository.head("1") == made.manifest.digest and repository.head("2") is None
    assert f"{registry.username}/image" in [f.name for f in search(found, "image", 25)]
    with pytest.raises(NotFound):
        client.pull(f"{registry.host}/{registry.username}/image:2")


def test_a_blob_the_registry_has_elsewhere_is_mounted_without_knowing_where(
    client: Client, another_client: Callable[..., Client], registry: Server
) -> None:
    made = make(os.urandom(500_000))
    right = Credential(registry.username, registry.password)
    prefix = f"{registry.host}/{registry.username}"
    put(client.store, made, f"{prefix}/first:1")
    client.push(f"{prefix}/first:1", right)
    there = another_client()  # a machine that never heard of the first repository
    put(there.store, made, f"{prefix}/second:1")
    states: list[str] = []

    class Watch:
        def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
            states.append(state)

    wanted = reference(f"{prefix}/second:1")
    sink = there.registry(registry.host, right).repository(wanted.repository)
    push(wanted, there.store, sink, progress=Watch())
    assert states[-1] == "Mounted from another repository"
    assert another_client().pull(f"{prefix}/second:1", right).image.id == made.config.digest
