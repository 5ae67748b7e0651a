"""The small languages of `run`'s options."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.runtime.config import Mount, Rlimit
from runtime.container.environment import merge_environment, parse_env_file, read_variables
from runtime.container.mountoptions import parse_mount_options
from runtime.container.options import (
    RunOptions,
    VolumeRequest,
    parse_bytes,
    parse_extra_host,
    parse_label,
    parse_tmpfs,
    parse_ulimit,
    parse_volume,
)
from runtime.errors import EngineError
from runtime.linux import flags as f


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/h:/c", VolumeRequest("/c", "/h")),
        ("/h/:/c:ro", VolumeRequest("/c", "/h", read_only=True)),
        ("name:/c", VolumeRequest("/c", "name")),
        ("name:/c:nocopy", VolumeRequest("/c", "name", copy=False)),
        ("/c", VolumeRequest("/c")),
        ("./x:/c", VolumeRequest("/c", "/here/x")),
        ("../x:/c:ro,rslave", VolumeRequest("/c", "/x", read_only=True, propagation="rslave")),
        ("/h:/c:z,bind", VolumeRequest("/c", "/h", recursive=False)),
    ],
)
def test_volume(text: str, expected: VolumeRequest) -> None:
    assert parse_volume(text, directory="/here") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        ":b",
        "/a:/b:ro:x",
        "/a:b",
        "b",
        "/a:/b:ro,rw",
        "/a:/b:what",
        "a/b:/c",
        "-x:/c",
        "x:/c",
    ],
)
def test_refused_volumes(text: str) -> None:
    with pytest.raises(EngineError):
        parse_volume(text, directory="/here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1024", 1024), ("1k", 1024), ("64m", 64 << 20), ("64MB", 64 << 20), ("1g", 1 << 30),
     ("1.5g", 3 << 29), ("10b", 10), ("1GiB", 1 << 30)],
)  # fmt: skip
def test_bytes(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1 m", "٣", "1e3", "9" * 30])
def test_refused_bytes(text: str) -> None:
    with pytest.raises(EngineError):
        parse_bytes(text)


def test_tmpfs_defaults() -> None:
    assert parse_tmpfs("/t") == Mount("/t", "tmpfs", "tmpfs", ("noexec", "nosuid", "nodev"))
    assert parse_tmpfs("/t:exec,size=64m").options == ("nosuid", "nodev", "exec", "size=64m")


@pytest.mark.parametrize("text", ["t", "/t:what", "/t:size", "/t:lowerdir=/"])
def test_refused_tmpfs(text: str) -> None:
    with pytest.raises(EngineError):
        parse_tmpfs(text)


def test_ulimit_host_and_label() -> None:
    assert parse_ulimit("core=0") == Rlimit("RLIMIT_CORE", 0, 0)
    assert parse_extra_host("db:10.0.0.1") == ("db", "10.0.0.1")
    assert parse_extra_host("db=[::1]") == ("db", "::1")
    assert parse_label("a=b=c") == ("a", "b=c")
    for text in ("db", "db:", "db:name", ":1.2.3.4", "a b:1.2.3.4"):
        with pytest.raises(EngineError):
            parse_extra_host(text)


@pytest.mark.parametrize("hostname", ["a b", "-" * 65, "a..b", "x" * 65, "ä", "a\nb"])
def test_refused_hostnames(hostname: str) -> None:
    with pytest.raises(EngineError):
        RunOptions(hostname=hostname)


def test_networks() -> None:
    with pytest.raises(EngineError, match="not found"):
        RunOptions(network="other")


def test_environment_is_merged_in_place() -> None:
    assert merge_environment(["A=1", "B=2"], ["B=3", "C=4"], ["A"]) == ("B=3", "C=4")
    assert read_variables(["A", "B=", "C"], {"A": "x"}) == ("A=x", "B=", "C")
    for bad in ("", "=x", "A=\0"):
        with pytest.raises(EngineError):
            merge_environment([bad])


def test_env_file() -> None:
    text = "\ufeff# comment\nA=1\n\n  B=two words # kept\nC\n"
    assert parse_env_file(text, "f") == ("A=1", "B=two words # kept", "C")
    with pytest.raises(EngineError, match="f:2"):
        parse_env_file("A=1\nB C=2\n", "f")


def test_mount_options() -> None:
    found = parse_mount_options(
        ("nosuid", "ro", "rw", "mode=755", "rbind", "rslave", "newinstance")
    )
    assert found.flags == f.MS_NOSUID
    assert (found.bind, found.recursive, found.data) == (True, True, "mode=755")
    assert found.propagation == f.MS_SLAVE | f.MS_REC
    assert parse_mount_options(("ro", "noexec")).attributes == (
        f.MOUNT_ATTR_RDONLY | f.MOUNT_ATTR_NOEXEC
    )


@given(st.text(max_size=20))
def test_parsers_raise_only_the_declared_error(text: str) -> None:
    for parse in (
        lambda t: parse_volume(t, directory="/"),
        parse_tmpfs,
        parse_bytes,
        parse_extra_host,
        parse_ulimit,
        parse_label,
    ):
        try:
            parse(text)
        except EngineError:
            pass
