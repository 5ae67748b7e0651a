from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.errors import InvalidDocument
from ocispec.image.config import MAX_CONFIG_BYTES, History, ImageConfig, new_config
from ocispec.image.platform import Platform
from tests.ocispec.strategies import digests, json_values, platforms, text_maps, texts

DIFF_ID = Digest.of(b"layer")

# As docker wrote it, nulls included.
DOCKER: dict[str, Any] = {
    "architecture": "arm64",
    "variant": "v8",
    "os": "linux",
    "created": "2024-05-01T10:00:00.5Z",
    "author": "somebody",
    "config": {
        "Hostname": "",
        "AttachStdin": False,
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
        "Env": ["PATH=/bin", "ODD"],
        "Cmd": ["sh", "-c", ""],
        "Entrypoint": None,
        "Volumes": {"/data": {}},
        "WorkingDir": "/srv",
        "User": "www:www",
        "OnBuild": None,
        "Labels": {"a": "b"},
        "StopSignal": "SIGTERM",
        "Shell": ["/bin/bash", "-c"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3000000000},
    },
    "rootfs": {"type": "layers", "diff_ids": [str(DIFF_ID)]},
    "history": [
        {"created": "2024-05-01T10:00:00Z", "created_by": "ADD file"},
        {"comment": "buildkit", "empty_layer": True},
    ],
    "moby.buildkit.cache.v0": "kept in raw",
}


def raw(document: object) -> bytes:
    return json.dumps(document).encode()


def test_as_docker_writes_it() -> None:
    received = raw(DOCKER)
    assert ImageConfig.parse(received) == ImageConfig(
        raw=received,
        architecture="arm64",
        variant="v8",
        os="linux",
        created="2024-05-01T10:00:00.5Z",
        author="somebody",
        exposed_ports=("80/tcp", "53/udp"),
        env=("PATH=/bin", "ODD"),
        cmd=("sh", "-c", ""),
        entrypoint=None,
        volumes=("/data",),
        working_dir="/srv",
        user="www:www",
        labels={"a": "b"},
        stop_signal="SIGTERM",
        shell=("/bin/bash", "-c"),
        healthcheck={"Test": ["CMD", "true"], "Interval": 3000000000},
        diff_ids=(DIFF_ID,),
        history=(
            History(created="2024-05-01T10:00:00Z", created_by="ADD file"),
            History(comment="buildkit", empty_layer=True),
        ),
    )
    assert ImageConfig.parse(received).digest == Digest.of(received)


@pytest.mark.parametrize(
    ("document", "description"),
    [
        ({}, "nothing at all"),
        ({"config": None, "rootfs": None, "history": None}, "nulls"),
        ({"config": {}, "rootfs": {}}, "empty objects"),
        ({"config": dict.fromkeys(DOCKER["config"])}, "null members"),
        ({"rootfs": {"type": "layers", "diff_ids": None}}, "null list of layers"),
    ],
)
def test_what_is_absent_or_null_reads_as_empty(document: object, description: str) -> None:
    received = raw(document)
    assert ImageConfig.parse(received) == ImageConfig(raw=received)


def test_empty_is_not_the_same_as_absent_for_commands() -> None:
    config = ImageConfig.parse(raw({"config": {"Cmd": [], "Entrypoint": []}}))
    assert config.cmd == () and config.entrypoint == ()


@pytest.mark.parametrize(
    ("document", "problem", "description"),
    [
        ({"config": []}, "config is not an object", "list for an object"),
        ({"config": {"Env": "A=b"}}, "config.Env is not a list", "text for a list"),
        ({"config": {"Env": ["A=b", 1]}}, "config.Env[1] is not a text", "number in a list"),
        ({"config": {"Env": ["A=b\0c"]}}, "config.Env[0] contains a NUL", "NUL in a variable"),
        ({"config": {"Cmd": ["a\0b"]}}, "config.Cmd[0] contains a NUL", "NUL in an argument"),
        ({"config": {"User": 0}}, "config.User is not a text", "number for a user"),
        ({"config": {"Labels": {"a": {}}}}, "config.Labels.a is not a text", "object as label"),
        ({"config": {"Volumes": ["/x"]}}, "config.Volumes is not an object", "list of volumes"),
        ({"rootfs": {"diff_ids": ["x"]}}, "rootfs.diff_ids[0] is wrong", "malformed digest"),
        ({"rootfs": {"diff_ids": [None]}}, "rootfs.diff_ids[0] is not a text", "null digest"),
        ({"history": [None]}, "history[0] is not an object", "null step"),
        ({"history": [{"empty_layer": 1}]}, "history[0].empty_layer is not", "number for true"),
        ({"os": 1}, "os is not a text", "number for a text"),
    ],
)
def test_refused(document: object, problem: str, description: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        ImageConfig.parse(raw(document))
    assert problem in caught.value.problems[0]


def test_too_long() -> None:
    with pytest.raises(InvalidDocument, match="the limit is"):
        ImageConfig.parse(b" " * (MAX_CONFIG_BYTES + 1))


lists = st.lists(texts, max_size=3)


@given(
    platform=platforms,
    diff_ids=st.lists(digests, max_size=3),
    history=st.lists(st.builds(History, texts, texts, texts, texts, st.booleans()), max_size=2),
    created=texts,
    author=texts,
    env=lists,
    cmd=st.none() | lists,
    entrypoint=st.none() | lists,
    working_dir=texts,
    user=texts,
    labels=text_maps,
    exposed_ports=lists,
    stop_signal=texts,
    shell=lists,
    on_build=lists,
    healthcheck=st.none() | st.just({"Test": ["NONE"]}),
)
def test_a_new_config_holds_what_was_given(platform: Platform, **given_: Any) -> None:
    config = new_config(platform, **given_)
    assert (config.os, config.architecture, config.variant) == (
        platform.os,
        platform.architecture,
        platform.variant,
    )
    for name, item in given_.items():
        expected = tuple(item) if isinstance(item, list) else item
        if name == "exposed_ports":
            expected = tuple(dict.fromkeys(item))
        assert getattr(config, name) == expected
    assert ImageConfig.parse(config.raw) == config


def test_a_new_config_is_compact() -> None:
    config = new_config(Platform("linux", "amd64"), cmd=["sh"])
    assert json.loads(config.raw) == {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": []},
    }


@given(st.dictionaries(st.sampled_from(list(DOCKER)), json_values))
def test_any_document_is_a_config_or_refused(changes: dict[str, Any]) -> None:
    for document in (DOCKER | changes, {"config": changes}, {"rootfs": {"diff_ids": changes}}):
        try:
            ImageConfig.parse(raw(document))
        except InvalidDocument:
            pass
