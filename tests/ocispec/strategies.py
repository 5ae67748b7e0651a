"""Random values of the specs' words, for property tests."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.distribution.challenge import Challenge
from ocispec.distribution.name import RepositoryName, Tag
from ocispec.distribution.reference import DOCKER_HUB, Reference
from ocispec.distribution.scope import Scope
from ocispec.image.platform import Platform
from ocispec.mediatype import OCI_LAYER_GZIP, OCI_MANIFEST

LOWER = "abcxyz019"

digests = st.builds(
    lambda data, algorithm: Digest(algorithm, hashlib.new(algorithm, data).hexdigest()),
    st.binary(max_size=8),
    st.sampled_from(["sha256", "sha512"]),
)

words = st.text(LOWER, min_size=1, max_size=6)
separators = st.sampled_from([".", "_", "__", "-", "---"])
components = st.builds(
    lambda first, rest: first + "".join(s + w for s, w in rest),
    words,
    st.lists(st.tuples(separators, words), max_size=2),
)
names = st.lists(components, min_size=1, max_size=4).map("/".join).map(RepositoryName)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True).map(Tag)

ports = st.integers(1, 65535)
hosts = st.one_of(
    st.just("localhost"),
    st.lists(words, min_size=2, max_size=3).map(".".join),
    st.builds("{}:{}".format, words, ports),
    st.builds("[::{:x}]:{}".format, st.integers(0, 65535), ports),
    st.just("[::1]"),
    st.just(DOCKER_HUB),
)


def _reference(
    host: str, name: RepositoryName, tag: Tag | None, digest: Digest | None
) -> Reference:
    if host == DOCKER_HUB and "/" not in name.text:
        name = RepositoryName(f"library/{name}")
    return Reference(host, name, tag, digest)


references = st.builds(_reference, hosts, names, st.none() | tags, st.none() | digests)

platforms = st.builds(
    Platform,
    os=st.sampled_from(["linux", "windows", "freebsd"]),
    architecture=st.sampled_from(["amd64", "arm64", "arm", "386", "riscv64"]),
    variant=st.sampled_from(["", "v5", "v6", "v7", "v8"]),
)

# What a document may hold as text: anything but NUL and halves of surrogate pairs.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
text_maps = st.dictionaries(texts, texts, max_size=3)


@st.composite
def descriptors(draw: st.DrawFn, media_type: str = OCI_LAYER_GZIP) -> Descriptor:
    data = draw(st.binary(max_size=16))
    return Descriptor(
        media_type=media_type,
        digest=Digest.of(data, draw(st.sampled_from(["sha256", "sha512"]))),
        size=len(data),
        annotations=draw(text_maps),
        platform=draw(st.none() | platforms) if media_type == OCI_MANIFEST else None,
        artifact_type=draw(st.sampled_from(["", "application/x"])),
        urls=tuple(draw(st.lists(texts, max_size=2))),
        data=draw(st.sampled_from([None, data])),
    )


header_texts = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=12)
challenges = st.builds(
    Challenge,
    scheme=words.map(str.capitalize),
    parameters=st.dictionaries(words, header_texts, max_size=3),
)

scopes = st.builds(
    Scope,
    type=st.sampled_from(["repository", "registry"]),
    name=st.one_of(names.map(str), st.builds("{}/{}".format, hosts, names)),
    actions=st.frozensets(st.sampled_from(["pull", "push", "delete", "*", "metadata_read"])),
)

# JSON of any shape, and bytes that nearly are.
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
