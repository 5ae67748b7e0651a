"""The order of a container's start, compared as data."""

from __future__ import annotations

import pytest

from ocispec.runtime.config import Config, IdMapping, Linux, Mount, Namespace, Process, Root
from ocispec.value import replace
from runtime.container import steps as s
from runtime.container.options import RunOptions
from runtime.container.plan import CgroupView, Plan, plan_container
from runtime.container.spec import Host
from runtime.errors import EngineError
from runtime.linux import capabilities
from runtime.linux import flags as f
from runtime.snapshots.base import MountPlan
from tests.runtime.container.test_spec import config

SNAPSHOT = MountPlan("overlay", "overlay", "/store", "lowerdir=l/A:l/B,upperdir=u,workdir=w", False)
ROOTLESS = Host(
    rootless=True, uid_mappings=(IdMapping(0, 7, 1),), gid_mappings=(IdMapping(0, 7, 1),)
)


def plan(found: Config, **more: object) -> Plan:
    return plan_container(
        found,
        SNAPSHOT,
        container_id="x",
        capability_bits=capabilities.NUMBERS,
        **{"seccomp": b"filter", **more},  # type: ignore[arg-type]
    )


def order(made: Plan) -> list[str]:
    """The kinds of steps, repetitions folded."""
    names = [type(step).__name__ for step in made.steps]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]


def test_order_as_root() -> None:
    view = CgroupView(("/sys/fs/cgroup/pids/pyreg/x/tasks",), 1, ("pids",))
    volume = Mount("/data", "bind", "/host", ("rbind", "rprivate", "rw"))
    made = plan(config(RunOptions(read_only=True), volumes=(volume,)), cgroups=view)
    assert order(made) == [
        "JoinCgroups",
        "Unshare",
        "JoinSessionKeyring",
        "CloneSource",
        "MakeMountsPrivate",
        "MountRoot",
        "MountKernelFilesystem",  # /proc, /dev
        "MakeDevice",
        "MakeLink",
        "MountKernelFilesystem",  # /dev/pts, /sys
        "MountCgroups",
        "MountKernelFilesystem",  # mqueue, shm
        "ChangeRoot",
        "SetSysctl",
        "MaskPath",
        "MakeReadonly",
        "AttachSource",
        "SetHostname",
        "BringLoopbackUp",
        "LookUpUser",
        "MakeWorkingDirectory",
        "ReopenNull",
        "MakeRootReadonly",
        "InstallFilter",
        "DropBoundingSet",
        "BecomeUser",
    ]
    assert made.fork_flags == f.CLONE_NEWPID


def test_in_a_user_namespace_nodes_are_attached_before_they_are_used_for_masking() -> None:
    made = plan(config(RunOptions(), ROOTLESS))
    names = [type(step).__name__ for step in made.steps]
    assert "MakeDevice" not in names
    null = s.AttachSource("/dev/null", "/dev/null", replace_node=True)
    assert made.steps.index(null) < names.index("MaskPath")
    assert made.fork_flags == f.CLONE_NEWPID | f.CLONE_NEWUSER
    user = next(step for step in made.steps if isinstance(step, s.BecomeUser))
    assert not user.set_groups


def test_filter_is_last_with_no_new_privileges() -> None:
    made = plan(config(RunOptions(no_new_privileges=True)))
    assert order(made)[-3:] == ["BecomeUser", "SetNoNewPrivileges", "InstallFilter"]


def test_nothing_of_the_host_is_named_after_the_root_has_changed() -> None:
    volume = Mount("/data", "bind", "/host/secret", ("rbind",))
    made = plan(config(RunOptions(), volumes=(volume,)))
    at = next(i for i, step in enumerate(made.steps) if isinstance(step, s.ChangeRoot))
    assert "/host/secret" in repr(made.steps[:at])
    assert "/host/secret" not in repr(made.steps[at:])


def test_terminal_is_opened_when_the_user_is_known() -> None:
    names = order(plan(config(RunOptions(tty=True))))
    assert names.index("LookUpUser") < names.index("OpenTerminal") < names.index("BecomeUser")
    assert "ReopenNull" not in names


def test_bind_options_become_attributes() -> None:
    volume = Mount("/data", "bind", "/host", ("rbind", "rslave", "ro", "nosuid"))
    made = plan(config(RunOptions(), volumes=(volume,)))
    clone = next(
        step for step in made.steps if isinstance(step, s.CloneSource) and step.path == "/host"
    )
    assert clone.attributes_set == f.MOUNT_ATTR_RDONLY | f.MOUNT_ATTR_NOSUID
    assert (clone.recursive, clone.propagation) == (True, f.MS_SLAVE)


def test_sources_are_taken_while_mounts_still_propagate() -> None:
    volume = Mount("/data", "bind", "/host", ("rbind", "rslave"))
    names = [type(step).__name__ for step in plan(config(RunOptions(), volumes=(volume,))).steps]
    assert max(i for i, n in enumerate(names) if n == "CloneSource") < names.index(
        "MakeMountsPrivate"
    )


def test_host_network_has_no_loopback_of_its_own() -> None:
    assert "BringLoopbackUp" not in order(plan(config(RunOptions(network="host"))))


def test_without_cgroups_there_is_nothing_to_join_or_show() -> None:
    names = order(plan(config(RunOptions())))
    assert "JoinCgroups" not in names
    assert "MountCgroups" not in names


def test_copy_up_marks_the_attachment() -> None:
    volume = Mount("/data", "bind", "/v", ("rbind",))
    made = plan(config(RunOptions(), volumes=(volume,)), copy_up=frozenset(("/data",)))
    assert [x.destination for x in made.steps if isinstance(x, s.AttachSource) and x.copy_up] == [
        "/data"
    ]


@pytest.mark.parametrize(
    ("linux", "what"),
    [
        (Linux(namespaces=(Namespace("mount"),)), "pid"),
        (Linux(namespaces=(Namespace("mount"), Namespace("pid", "/proc/1/ns/pid"))), "joining"),
    ],
)
def test_refused_namespaces(linux: Linux, what: str) -> None:
    found = Config(process=Process(args=("x",)), root=Root("/r"), linux=linux)
    with pytest.raises(EngineError, match=what):
        plan(found)


def test_running_with_all_capabilities_is_never_an_accident() -> None:
    found = config(RunOptions())
    with pytest.raises(EngineError, match="capabilities"):
        plan(replace(found, process=replace(found.process, capabilities=None)))


def test_unknown_file_systems_are_refused() -> None:
    with pytest.raises(EngineError, match="nfs"):
        plan(config(RunOptions(), volumes=(Mount("/x", "nfs", "h:/x"),)))
