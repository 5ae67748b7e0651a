"""Image config and options → runtime-spec config, as docker has it."""

from __future__ import annotations

import json

import pytest

from ocispec.image.config import ImageConfig
from ocispec.runtime.config import IdMapping, Mount
from runtime.container.options import RunOptions, parse_tmpfs, parse_ulimit
from runtime.container.spec import (
    Files,
    Host,
    check_destination,
    clean_path,
    command_line,
    container_config,
    environment,
    working_directory,
)
from runtime.errors import EngineError

ID = "0123456789ab" * 5 + "cdef"
FILES = Files("/c/rootfs", "/c/resolv.conf", "/c/hostname", "/c/hosts")


def image(**config: object) -> ImageConfig:
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    return ImageConfig.parse(json.dumps(document).encode())


def config(options: RunOptions, host: Host | None = None, volumes: tuple[Mount, ...] = (), **kw):
    return container_config(
        image(**{"Cmd": ["sh"]} | kw),
        options,
        container_id=ID,
        host=host or Host(),
        files=FILES,
        volumes=volumes,
    )


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "given_entrypoint", "given", "expected"),
    [
        (None, ["sh"], None, (), ("sh",)),
        (None, ["sh"], None, ("ls", "-l"), ("ls", "-l")),
        (["/e", "a"], ["b"], None, (), ("/e", "a", "b")),
        (["/e", "a"], ["b"], None, ("c",), ("/e", "a", "c")),
        (["/e", "a"], ["b"], "/x", (), ("/x",)),  # the image's Cmd is void
        (["/e", "a"], ["b"], "/x", ("c",), ("/x", "c")),
        (["/e"], ["b"], "", ("c",), ("c",)),
    ],
)
def test_command_line(entrypoint, cmd, given_entrypoint, given, expected) -> None:
    options = RunOptions(entrypoint=given_entrypoint, command=given)
    assert command_line(image(Entrypoint=entrypoint, Cmd=cmd), options) == expected


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "given"), [(None, None, None), (["/e"], ["b"], ""), ([], [], None)]
)
def test_no_command(entrypoint, cmd, given) -> None:
    with pytest.raises(EngineError, match="no command"):
        command_line(image(Entrypoint=entrypoint, Cmd=cmd), RunOptions(entrypoint=given))


def test_environment_order_and_precedence() -> None:
    found = environment(
        image(Env=["PATH=/x", "B=image", "C=image"]),
        RunOptions(env=("B=user", "C", "D=")),
        "box",
    )
    assert found == ("PATH=/x", "HOSTNAME=box", "B=user", "D=")


def test_term_only_with_a_terminal() -> None:
    assert "TERM=xterm" in environment(image(), RunOptions(tty=True), "box")
    assert not any(e.startswith("TERM") for e in environment(image(), RunOptions(), "box"))


@pytest.mark.parametrize(
    ("of_image", "given", "expected"),
    [("", "", "/"), ("/srv", "", "/srv"), ("srv", "", "/srv"), ("/srv", "/w/../x//", "/x")],
)
def test_working_directory(of_image: str, given: str, expected: str) -> None:
    assert (
        working_directory(image(WorkingDir=of_image), RunOptions(working_directory=given))
        == expected
    )


def test_relative_working_directory_is_refused() -> None:
    with pytest.raises(EngineError, match="absolute"):
        working_directory(image(), RunOptions(working_directory="x"))


def test_default_config_is_dockers() -> None:
    found = config(RunOptions())
    assert [m.destination for m in found.mounts] == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
        "/etc/resolv.conf", "/etc/hostname", "/etc/hosts",
    ]  # fmt: skip
    assert [n.type for n in found.linux.namespaces] == [
        "mount", "network", "uts", "pid", "ipc", "cgroup",
    ]  # fmt: skip
    caps = found.process.capabilities
    assert caps is not None
    assert caps.bounding == caps.effective == caps.permitted
    assert len(caps.bounding) == 14
    assert caps.inheritable == caps.ambient == ()
    assert len(found.linux.masked_paths) == 12
    assert found.hostname == ID[:12]
    assert not found.process.no_new_privileges


def test_host_network() -> None:
    found = config(RunOptions(network="host"), Host(hostname="machine"))
    assert "network" not in [n.type for n in found.linux.namespaces]
    assert found.hostname == "machine"


def test_rootless() -> None:
    one = Host(
        rootless=True, uid_mappings=(IdMapping(0, 7, 1),), gid_mappings=(IdMapping(0, 7, 1),)
    )
    many = Host(
        rootless=True,
        uid_mappings=(IdMapping(0, 7, 1), IdMapping(1, 100000, 65536)),
        gid_mappings=(IdMapping(0, 7, 1), IdMapping(1, 100000, 65536)),
    )

    def devpts(host: Host) -> tuple[str, ...]:
        return next(m.options for m in config(RunOptions(), host).mounts if m.type == "devpts")

    assert config(RunOptions(), one).linux.namespaces[0].type == "user"
    assert "gid=5" not in devpts(one)
    assert "gid=5" in devpts(many)


def test_sysfs_of_a_foreign_network_namespace_is_bound_rootless() -> None:
    host = Host(rootless=True)
    sysfs = next(
        m for m in config(RunOptions(network="host"), host).mounts if m.destination == "/sys"
    )
    assert (sysfs.type, sysfs.source) == ("bind", "/sys")
    assert {"rbind", "rro"} <= set(sysfs.options)


def test_mounts_of_the_user_come_last_by_depth_and_replace_ours() -> None:
    volumes = (
        Mount("/a/b/c", "bind", "/1", ("rbind",)),
        Mount("/a", "bind", "/2", ("rbind",)),
        Mount("/etc/hosts", "bind", "/3", ("rbind",)),
        Mount("/dev/shm", "bind", "/4", ("rbind",)),
    )
    found = config(RunOptions(tmpfs=(parse_tmpfs("/t"),)), volumes=volumes).mounts
    destinations = [m.destination for m in found]
    assert destinations[-5:] == ["/a", "/t", "/etc/hosts", "/dev/shm", "/a/b/c"]
    assert destinations.count("/etc/hosts") == destinations.count("/dev/shm") == 1


def test_privileged() -> None:
    found = config(RunOptions(privileged=True))
    assert found.process.capabilities is not None
    assert len(found.process.capabilities.bounding) > 38
    assert found.linux.masked_paths == found.linux.readonly_paths == ()


def test_read_only_root_has_read_only_files() -> None:
    found = config(RunOptions(read_only=True))
    assert found.root.readonly
    assert all("ro" in m.options for m in found.mounts if m.destination.startswith("/etc/"))


@pytest.mark.parametrize("path", ["/proc", "/proc/sys", "/proc/../proc/x", "/", "/..", "relative"])
def test_refused_destinations(path: str) -> None:
    with pytest.raises(EngineError):
        check_destination(path)


@pytest.mark.parametrize("path", ["/proc/cpuinfo", "/process", "/data"])
def test_allowed_destinations(path: str) -> None:
    check_destination(path)


@pytest.mark.parametrize(
    ("path", "expected"), [("/", "/"), ("//a/./b//", "/a/b"), ("/../../a", "/a"), ("/a/..", "/")]
)
def test_clean_path(path: str, expected: str) -> None:
    assert clean_path(path) == expected


def test_ulimits_reach_the_config() -> None:
    limit = parse_ulimit("nofile=10:-1")
    assert config(RunOptions(ulimits=(limit,))).process.rlimits[0].hard == (1 << 64) - 1
