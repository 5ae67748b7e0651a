"""Which driver a host gets, from mount tables as text."""

from __future__ import annotations

import pytest

from runtime.cgroups import detect
from runtime.cgroups.base import CgroupError, check_name
from runtime.cgroups.detect import Layout, NoCgroups
from runtime.cgroups.devices import DEFAULT_RULES
from runtime.cgroups.limits import Limits
from runtime.linux import mountinfo

TMPFS = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "34 31 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
)
V2 = "35 23 0:32 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
UNIFIED = "36 31 0:32 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mounts", "kind"),
    [
        (TMPFS + V1, "v1"),
        (TMPFS + V1 + UNIFIED, "hybrid"),
        (V2, "v2"),
        (TMPFS, "none"),
        ("", "none"),
    ],
)
def test_kinds(mounts: str, kind: str) -> None:
    assert detect.layout(mountinfo.parse(mounts), "").kind == kind


def test_controllers_that_share_a_hierarchy_share_its_directory() -> None:
    found = detect.layout(mountinfo.parse(TMPFS + V1), "")
    assert dict(found.v1) == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
    }


@pytest.mark.parametrize(
    ("mounts", "own", "expected"),
    [
        (V2, "0::/user.slice/x.scope\n", "user.slice/x.scope"),
        (V2, "0::/\n", ""),
        (V2.replace(" / /sys", " /outer /sys"), "0::/outer/inner\n", "inner"),
        (V2, "3:memory:/x\n", ""),
    ],
)
def test_where_we_are_in_v2(mounts: str, own: str, expected: str) -> None:
    assert detect.layout(mountinfo.parse(mounts), own).own_v2 == expected


def test_a_delegated_subtree_begins_where_we_may_write() -> None:
    own = "user.slice/user-1000.slice/user@1000.service/app.slice/x.scope"
    start = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"

    def is_writable(path: str) -> bool:
        return path.startswith(start)

    assert detect.delegated_root("/sys/fs/cgroup", own, is_writable) == start
    assert detect.delegated_root("/sys/fs/cgroup", own, lambda _: True) == "/sys/fs/cgroup"
    assert detect.delegated_root("/sys/fs/cgroup", own, lambda _: False) == ""


@pytest.mark.parametrize(
    "layout",
    [
        Layout((), "", ""),
        Layout((("memory", "/nowhere/memory"),), "", ""),
        Layout((), "/nowhere", "x"),
    ],
    ids=["nothing", "v1 not writable", "v2 not writable"],
)
def test_without_a_usable_cgroup_containers_run_and_one_sentence_says_so(layout: Layout) -> None:
    driver = detect.driver(layout)
    assert driver.kind == "none" and "without limits" in driver.warning
    assert "\n" not in driver.warning
    cgroup = driver.create("name", Limits(memory=1 << 20))
    assert cgroup.descriptor() == -1 and cgroup.directories == () and cgroup.processes() == ()
    assert cgroup.apply(Limits(memory=1 << 20)) == () == cgroup.allow_devices(DEFAULT_RULES)
    cgroup.join()
    cgroup.kill()
    cgroup.destroy()
    assert cgroup.usage().memory_bytes == -1
    with pytest.raises(CgroupError, match="paused"):
        cgroup.freeze()


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "-x", "a b", "é", "a\n", "x" * 201, "../x"])
def test_a_name_is_one_directory(name: str) -> None:
    with pytest.raises((CgroupError, IndexError)):
        check_name(name)
    with pytest.raises((CgroupError, IndexError)):
        NoCgroups("none").create(name, Limits())


def test_this_host_has_some_layout() -> None:
    assert detect.detect().kind in ("v1", "v2", "hybrid", "none")
