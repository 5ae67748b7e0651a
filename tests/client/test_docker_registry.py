"""Against CNCF distribution as Debian packages it: a peer that is not ours."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from client.credentials import Credential, FileKeychain
from client.errors import NotFound, Unauthorized
from client.local import LocalStore
from client.login import login
from client.search import catalog, search
from client.sources import Sources
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.image.manifest import new_index
from ocispec.image.platform import Platform
from tests.builders.servers import Server
from tests.client.conftest import Client, descriptor, make, put, reference


def test_an_image_keeps_its_digests_through_push_and_pull(
    client: Client, another_client: Callable[..., Client], docker_registry: Server
) -> None:
    made = make(os.urandom(3_000_000), os.urandom(10), b"")
    name = f"{docker_registry.host}/a/image:1"
    put(client.store, made, name)
    pushed = client.push(name)
    assert pushed.target.digest == made.manifest.digest and not pushed.left_out
    there = another_client()
    pulled = there.pull(name)
    assert pulled.is_new
    assert pulled.target.digest == made.manifest.digest
    assert pulled.image.names == (name,)
    assert pulled.image.repo_digests == (f"{docker_registry.host}/a/image@{made.manifest.digest}",)
    for blob in made.blobs:
        assert there.store.layout.read(Digest.of(blob), 4_000_000) == blob
    assert not there.pull(name).is_new


def test_a_pull_by_digest_records_the_digest(
    client: Client, another_client: Callable[..., Client], docker_registry: Server
) -> None:
    made = make(b"by digest")
    put(client.store, made, f"{docker_registry.host}/b:1")
    client.push(f"{docker_registry.host}/b:1")
    there = another_client()
    name = f"{docker_registry.host}/b@{made.manifest.digest}"
    assert there.pull(name).image.names == (name,)
    assert there.store.resolve(name).id == made.config.digest


def test_a_tag_that_moved_is_downloaded_again(
    client: Client, another_client: Callable[..., Client], docker_registry: Server
) -> None:
    name = f"{docker_registry.host}/moving:1"
    there = another_client()
    for number in range(2):
        put(client.store, make(b"version %d" % number), name)
        client.push(name)
        assert there.pull(name).is_new
    assert len(there.store.images()) == 2  # the old one is dangling, known by its digest
    old = next(i for i in there.store.images() if name not in i.names)
    assert old.names[0].startswith(f"{docker_registry.host}/moving@sha256:")


def test_a_push_sends_a_blob_once_and_mounts_it_elsewhere(
    client: Client, docker_registry: Server
) -> None:
    layer = os.urandom(100_000)
    made = make(layer)
    states: dict[str, str] = {}

    class Watch:
        def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
            if digest == Digest.of(layer):
                states[str(digest)] = state

    def push_to(name: str) -> str:
        from client.push import push

        put(client.store, made, name)
        wanted = reference(name)
        sink = client.registry(wanted.registry).repository(wanted.repository)
        push(wanted, client.store, sink, progress=Watch())
        return states[str(Digest.of(layer))]

    assert push_to(f"{docker_registry.host}/mount/one:1") == "Pushed"
    assert push_to(f"{docker_registry.host}/mount/one:2") == "Layer already exists"
    assert push_to(f"{docker_registry.host}/mount/two:1") == "Mounted from mount/one"
    known = Sources(os.path.join(client.store.root, "sources")).of(Digest.of(layer))
    assert known == (f"{docker_registry.host}/mount/two", f"{docker_registry.host}/mount/one")


def _push_index(client: Client, name: str) -> tuple[Descriptor, dict[str, object]]:
    platforms = {"linux/amd64": b"amd", "linux/arm64": b"arm"}
    children = []
    images = {}
    for text, layer in platforms.items():
        platform = Platform.parse(text)
        made = make(layer, platform=platform)
        put(client.store, made)
        images[text] = made
        child = descriptor(made.manifest)
        children.append(
            Descriptor(
                media_type=child.media_type, digest=child.digest, size=child.size, platform=platform
            )
        )
    index = new_index(children)
    client.store.layout.put(index.raw)
    target = Descriptor(media_type=index.media_type, digest=index.digest, size=len(index.raw))
    client.store.record(target, names=[reference(name)], manifest=children[0])
    assert client.push(name).target.digest == index.digest
    return target, images


def test_an_index_is_pushed_whole_and_pulled_by_platform(
    client: Client, another_client: Callable[..., Client], docker_registry: Server
) -> None:
    name = f"{docker_registry.host}/multi:1"
    target, _ = _push_index(client, name)
    there = another_client()
    arm = there.pull(name, platform=Platform.parse("linux/arm64"))
    assert arm.image.platform == "linux/arm64" and arm.target.digest == target.digest
    amd = there.pull(name)
    assert amd.image.platform == "linux/amd64"
    assert there.store.resolve(name).platform == "linux/amd64"
    with pytest.raises(NotFound, match="no image for linux/s390x") as caught:
        there.pull(name, platform=Platform.parse("linux/s390x"))
    assert "linux/arm64" in caught.value.hint
    # Both platforms are here by now: the index can be pushed on, whole.
    other = f"{docker_registry.host}/multi2:1"
    there.store.tag(name, reference(other))
    assert there.push(other).target.digest == target.digest


def test_of_an_index_that_is_here_in_part_the_image_is_pushed(
    client: Client, another_client: Callable[..., Client], docker_registry: Server
) -> None:
    _push_index(client, f"{docker_registry.host}/part:1")
    there = another_client()
    image = there.pull(f"{docker_registry.host}/part:1").image
    other = f"{docker_registry.host}/part2:1"
    there.store.tag(image, reference(other))
    pushed = there.push(other)
    assert pushed.target.digest == image.descriptor.digest
    assert pushed.left_out == ("linux/arm64",)


def test_tags_catalog_and_search(client: Client, docker_registry: Server) -> None:
    made = make(b"listed")
    for tag in ("b", "a", "c"):
        put(client.store, made, f"{docker_registry.host}/listed/wget:{tag}")
        client.push(f"{docker_registry.host}/listed/wget:{tag}")
    registry = client.registry(docker_registry.host)
    tags = registry.repository(reference("listed/wget").repository).tags()
    assert sorted(tags) == ["a", "b", "c"]
    assert "listed/wget" in set(catalog(registry))
    assert [found.name for found in search(registry, "WGET", 25)] == ["listed/wget"]
    assert search(registry, "no such thing", 25) == ()
    with pytest.raises(NotFound):
        list(registry.repository(reference("no/such").repository).tags())


def test_what_is_not_there_is_not_found(client: Client, docker_registry: Server) -> None:
    with pytest.raises(NotFound, match=r"manifest of .*/nothing:here: not found"):
        client.pull(f"{docker_registry.host}/nothing:here")
    assert client.store.images() == ()


def test_basic_authentication(
    client: Client, another_client: Callable[..., Client], private_registry: Server
) -> None:
    host = private_registry.host
    name = f"{host}/private:1"
    put(client.store, make(b"private"), name)
    with pytest.raises(Unauthorized) as caught:
        client.push(name)
    assert f"pyreg login {host}" in caught.value.hint
    right = Credential(private_registry.username, private_registry.password)
    client.push(name, right)
    with pytest.raises(Unauthorized):
        another_client().pull(name, Credential("tester", "wrong"))
    another_client().pull(name, right)


def test_login_stores_what_the_registry_accepted_and_nothing_else(
    client: Client, store: LocalStore, private_registry: Server
) -> None:
    keychain = FileKeychain(client.options)
    host = private_registry.host
    with pytest.raises(Unauthorized, match="incorrect username or password"):
        login(host, Credential("tester", "wrong"), client.transport, keychain)
    assert keychain.find(host) is None
    login(host, Credential("tester", private_registry.password), client.transport, keychain)
    put(store, make(b"logged in"), f"{host}/logged-in:1")
    client.push(f"{host}/logged-in:1")
    assert keychain.erase(host) and not keychain.erase(host)
