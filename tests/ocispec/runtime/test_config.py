"""runtime-spec config.json as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.errors import InvalidDocument
from ocispec.runtime.config import (
    Capabilities,
    Config,
    Device,
    DeviceRule,
    IdMapping,
    Linux,
    Mount,
    Namespace,
    Process,
    Rlimit,
    Root,
    User,
    parse_config,
)
from ocispec.runtime.state import RUNNING, State

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=8)
some = st.lists(texts.filter(bool), max_size=3).map(tuple)
numbers = st.integers(0, 1 << 31)

FULL = Config(
    process=Process(
        args=("sh", "-c", "true"),
        cwd="/work",
        env=("A=1",),
        user=User(1000, 50, (50, 42), 0o27, "alice:staff"),
        terminal=True,
        console_size=(40, 100),
        capabilities=Capabilities(bounding=("CAP_CHOWN",), effective=("CAP_CHOWN",)),
        rlimits=(Rlimit("RLIMIT_NOFILE", 1, 2),),
        no_new_privileges=True,
        oom_score_adj=-5,
    ),
    root=Root("/rootfs", readonly=True),
    hostname="box",
    mounts=(Mount("/proc", "proc", "proc", ("nosuid",)),),
    linux=Linux(
        namespaces=(Namespace("mount"), Namespace("network", "/run/netns/x")),
        uid_mappings=(IdMapping(0, 1000, 1),),
        gid_mappings=(IdMapping(0, 1000, 1),),
        devices=(Device("/dev/fuse", "c", 10, 229, 0o600, 1, 2),),
        device_rules=(DeviceRule(False), DeviceRule(True, "c", 1, 3, "rw")),
        cgroups_path="/pyreg/x",
        masked_paths=("/proc/kcore",),
        readonly_paths=("/proc/sys",),
        sysctl=(("net.ipv4.ip_forward", "1"),),
    ),
    annotations=(("a", "b"),),
)


def test_everything_survives_a_round_trip() -> None:
    assert parse_config(json.loads(json.dumps(FULL.to_json()))) == FULL


@given(args=some.filter(bool), env=some, cwd=texts, uid=numbers, hostname=texts)
def test_round_trip(args, env, cwd, uid, hostname) -> None:
    process = Process(args=args, env=env, cwd="/" + cwd, user=User(uid))
    config = Config(process=process, root=Root("rootfs"), hostname=hostname)
    assert parse_config(json.loads(json.dumps(config.to_json()))) == config


def test_spelling_is_the_specs() -> None:
    found = FULL.to_json()
    assert found["process"]["consoleSize"] == {"height": 40, "width": 100}
    assert found["process"]["noNewPrivileges"] is True
    assert found["linux"]["resources"]["devices"][0] == {
        "allow": False,
        "type": "a",
        "access": "rwm",
    }
    assert found["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(InvalidDocument) as caught:
        parse_config(
            {"ociVersion": "1.0.0", "process": {"args": "sh", "cwd": "rel"}, "root": {"path": 3}}
        )
    told = " ".join(caught.value.problems)
    assert all(name in told for name in ("process.args", "process.cwd", "root.path"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)
NAMES = (
    "process",
    "root",
    "linux",
    "mounts",
    "args",
    "cwd",
    "user",
    "namespaces",
    "devices",
    "path",
)


@given(
    st.dictionaries(
        st.sampled_from((*NAMES, "ociVersion")),
        st.dictionaries(st.sampled_from(NAMES), json_values, max_size=4) | json_values,
    )
)
def test_arbitrary_documents_raise_only_the_declared_error(document) -> None:
    try:
        parse_config(document)
    except InvalidDocument:
        pass


def test_state() -> None:
    assert State("x", RUNNING, "/bundle", 7).to_json() == {
        "ociVersion": "1.2.0",
        "id": "x",
        "status": "running",
        "bundle": "/bundle",
        "pid": 7,
    }
