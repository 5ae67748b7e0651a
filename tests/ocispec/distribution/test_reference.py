from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from ocispec.distribution.reference import Reference, check_registry, is_host
from ocispec.errors import InvalidDigest, InvalidName
from tests.ocispec.strategies import hosts, references

OURS = "registry.example:5000"
DIGEST = "sha256:" + "ab" * 32


def parse(text: str, default_registry: str = OURS) -> Reference:
    return Reference.parse(text, default_registry=default_registry)


@given(references, hosts)
def test_text_reads_back_whatever_the_default(reference: Reference, default: str) -> None:
    assert parse(str(reference), default) == reference


@given(references, hosts)
def test_the_familiar_form_reads_back_with_the_same_default(
    reference: Reference, default: str
) -> None:
    familiar = reference.familiar(default)
    assert parse(familiar, default) == reference
    assert len(familiar) <= len(str(reference))


@given(st.text() | st.text("aA0./:@[]-_ shlocat256"))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except (InvalidName, InvalidDigest):
        return
    assert parse(str(reference), "localhost") == reference


@pytest.mark.parametrize(
    ("text", "registry", "repository", "description"),
    [
        ("omrisiri/wget", OURS, "omrisiri/wget", "no host: ours, never Docker Hub"),
        ("wget", OURS, "wget", "no host and no slash"),
        ("library/wget", OURS, "library/wget", "no host"),
        ("a/b/c/d", OURS, "a/b/c/d", "no host, many components"),
        ("docker.io/omrisiri/wget", "docker.io", "omrisiri/wget", "Docker Hub, written"),
        ("docker.io/wget", "docker.io", "library/wget", "Docker Hub's own images"),
        ("index.docker.io/wget", "docker.io", "library/wget", "Docker Hub's former name"),
        ("Docker.IO/wget", "docker.io", "library/wget", "hosts have no case"),
        ("localhost/x", "localhost", "x", "localhost needs no port"),
        ("localhost/x/y", "localhost", "x/y", "localhost with two components"),
        ("localhosts/x", OURS, "localhosts/x", "a word that starts so"),
        ("host:5000/x", "host:5000", "x", "a port makes a host"),
        ("a.b/x", "a.b", "x", "a dot makes a host"),
        ("a-b/x", OURS, "a-b/x", "a dash does not"),
        ("127.0.0.1/x", "127.0.0.1", "x", "IPv4"),
        ("[::1]:5000/x", "[::1]:5000", "x", "IPv6 with a port"),
        ("[2001:DB8::1]/x", "[2001:db8::1]", "x", "IPv6 without"),
        ("Example.COM:5000/x", "example.com:5000", "x", "a host in capitals"),
        ("a.b", OURS, "a.b", "a dot without a slash is a repository"),
    ],
)
def test_which_registry(text: str, registry: str, repository: str, description: str) -> None:
    assert parse(text) == Reference(registry, RepositoryName(repository))


@pytest.mark.parametrize(
    ("suffix", "tag", "digest", "target", "description"),
    [
        ("", None, None, "latest", "nothing"),
        (":1.0", "1.0", None, "1.0", "tag"),
        (f"@{DIGEST}", None, DIGEST, DIGEST, "digest"),
        (f":1.0@{DIGEST}", "1.0", DIGEST, DIGEST, "both: the digest counts"),
    ],
)
@pytest.mark.parametrize("base", ["x", "a/x", "host:5000/x", "localhost/x", "[::1]:1/x"])
def test_which_manifest(
    base: str, suffix: str, tag: str | None, digest: str | None, target: str, description: str
) -> None:
    reference = parse(base + suffix)
    assert reference.tag == (None if tag is None else Tag(tag))
    assert reference.digest == (None if digest is None else Digest.parse(digest))
    assert reference.target == target


def test_the_default_tag() -> None:
    assert parse("x").with_default_tag() == parse("x:latest")
    assert parse("x:1").with_default_tag() == parse("x:1")
    assert parse(f"x@{DIGEST}").with_default_tag() == parse(f"x@{DIGEST}")


@pytest.mark.parametrize(
    ("text", "default", "expected", "description"),
    [
        (f"{OURS}/a/b:1", OURS, "a/b:1", "ours is left out"),
        (f"{OURS}/a/b:1", "other:1", f"{OURS}/a/b:1", "another is not"),
        ("docker.io/library/x:1", OURS, "docker.io/x:1", "Docker Hub's namespace is left out"),
        ("docker.io/library/x:1", "docker.io", "x:1", "as docker shows it"),
        ("docker.io/a/x", "docker.io", "a/x", "as docker shows it"),
        (f"{OURS}/a.b/c", OURS, f"{OURS}/a.b/c", "a.b would be read as a host"),
        (f"{OURS}/{'ab' * 32}", OURS, f"{OURS}/{'ab' * 32}", "would be read as an image id"),
    ],
)
def test_familiar(text: str, default: str, expected: str, description: str) -> None:
    assert parse(text).familiar(default) == expected


@pytest.mark.parametrize(
    ("text", "message", "description"),
    [
        ("", "is empty", "empty"),
        ("/x", "not a repository name", "no host before the slash"),
        ("host:5000/", "is empty", "no repository"),
        ("docker.io/", "is empty", "no repository on Docker Hub"),
        ("Omrisiri/wget", "must be lowercase", "capitals are no host"),
        ("host:5000/Wget", "must be lowercase", "capitals after a host"),
        ("x:", "not a tag", "empty tag"),
        ("x:.a", "not a tag", "malformed tag"),
        ("x:1:2", "not a tag", "two tags"),
        ("host:port/x", "not a registry", "port is a word"),
        ("host:0/x", "not a registry", "port 0"),
        ("host:65536/x", "not a registry", "port too large"),
        ("host:/x", "not a registry", "empty port"),
        ("http://host/x", "is a URL", "a URL"),
        ("https://host/x", "is a URL", "a URL"),
        ("user@host.example/x", "has no algorithm", "a user"),
        ("a..b/x", "not a registry", "empty label"),
        ("-a.b/x", "not a registry", "label starts with a dash"),
        ("../x", "not a registry", "path upwards"),
        ("[::1/x", "not a registry", "bracket left open"),
        ("[::1%eth0]/x", "not a registry", "zone of an interface"),
        ("ä.b/x", "not a registry", "host not ASCII"),
        ("a.b/x\n", "not a repository name", "newline at the end"),
        ("ab" * 32, "is an image id", "64 hex digits"),
        ("x" * 5000, "is longer than", "endless"),
    ],
)
def test_refused(text: str, message: str, description: str) -> None:
    with pytest.raises((InvalidName, InvalidDigest), match=message) as caught:
        parse(text)
    assert str(caught.value).isascii() and len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["x@", "x@sha256:12", f"x@{DIGEST}\n", "x@latest"])
def test_refused_digests(text: str) -> None:
    with pytest.raises(InvalidDigest):
        parse(text)


def test_the_host_does_not_count_for_the_length_of_a_name() -> None:
    host = ".".join(["a" * 50] * 5)
    assert parse(f"{host}/{'b' * 255}").repository.text == "b" * 255
    with pytest.raises(InvalidName, match="has 256 characters"):
        parse(f"{host}/{'b' * 256}")


@pytest.mark.parametrize("default", ["registry", "", "http://x", "a/b", "UPPER:5000 "])
def test_a_default_that_is_no_registry(default: str) -> None:
    with pytest.raises(InvalidName):
        parse("x", default)


def test_a_bare_word_as_registry_gets_a_hint() -> None:
    with pytest.raises(InvalidName, match="part of a repository name") as caught:
        check_registry("registry")
    assert "registry:443" in caught.value.hint
    assert not is_host("registry") and is_host("registry:443")


@pytest.mark.parametrize("registry", ["index.docker.io", "Example.com", "docker.io"])
def test_the_constructor_takes_only_the_normal_form(registry: str) -> None:
    with pytest.raises(InvalidName):
        Reference(registry, RepositoryName("x"))


def test_no_reference_takes_long_to_refuse() -> None:
    start = time.perf_counter()
    for text in ("a-" * 400 + ".x/y", "a." * 130 + "/y", "-" * 500 + ":1/y", "a/" * 400, ":" * 700):
        with pytest.raises((InvalidName, InvalidDigest)):
            parse(text)
    assert time.perf_counter() - start < 0.5
