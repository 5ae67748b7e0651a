"""Cgroup v1 for real: every limit is felt by a process inside."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups import detect
from runtime.cgroups.base import CgroupBusy, CgroupError
from runtime.cgroups.devices import DEFAULT_RULES
from runtime.cgroups.limits import Limits
from runtime.cgroups.v1 import V1Cgroup, V1Driver
from tests.runtime.linux.forked import errno_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or detect.driver().kind != "v1",
        reason="this host has no cgroup v1 that we may write to",
    ),
]


@pytest.fixture
def driver() -> V1Driver:
    found = detect.driver()
    assert isinstance(found, V1Driver)
    return found


@pytest.fixture
def cgroup(driver: V1Driver, request: pytest.FixtureRequest) -> Iterator[V1Cgroup]:
    limits = getattr(request, "param", Limits())
    made = driver.create(f"test-{os.getpid()}", limits)
    made.apply(limits)
    yield made
    made.kill()
    for _ in range(100):
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if not made.processes():
            break
        time.sleep(0.01)
    made.destroy()
    assert not any(os.path.exists(directory) for directory in made.directories)


def _spawn(cgroup: V1Cgroup, program: str) -> int:
    """A child that joins and then runs Python code; its exit status is the code's."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            cgroup.join()
            scope: dict[str, object] = {}
            exec(program, scope)
            status = int(str(scope.get("status", 0)))
        finally:
            os._exit(status)
    return pid


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_joined_is_in_every_hierarchy(cgroup: V1Cgroup) -> None:
    pid = _spawn(cgroup, "import time; time.sleep(60)")
    time.sleep(0.1)
    own = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    inside = {line.split(":")[1] for line in own if "/pyreg/test-" in line}
    assert {"devices", "pids", "memory", "cpu", "cpuacct", "freezer", "blkio"} <= inside
    assert "cpuset" not in inside
    assert cgroup.processes() == (pid,)
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL


@pytest.mark.parametrize("cgroup", [Limits(memory=32 << 20)], indirect=True)
def test_memory_ends_in_a_kill_that_is_counted(cgroup: V1Cgroup) -> None:
    assert _status(_spawn(cgroup, "x = b'x' * (256 << 20)")) == -signal.SIGKILL
    usage = cgroup.usage()
    assert usage.oom_kills == 1 and usage.memory_limit == 32 << 20


@pytest.mark.parametrize("cgroup", [Limits(pids=5)], indirect=True)
def test_pids(cgroup: V1Cgroup) -> None:
    program = """
import os, time
status = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        status += 1
except BlockingIOError:
    pass
"""
    assert _status(_spawn(cgroup, program)) == 4  # itself is the fifth
    assert cgroup.usage().pids_limit == 5


@pytest.mark.parametrize("cgroup", [Limits(cpu_quota=20_000)], indirect=True)
def test_cpu(cgroup: V1Cgroup) -> None:
    program = """
import time
end = time.monotonic() + 0.6
while time.monotonic() < end:
    pass
"""
    assert _status(_spawn(cgroup, program)) == 0
    assert 0 < cgroup.usage().cpu_ns < 300_000_000


def test_devices(cgroup: V1Cgroup, tmp_path: Path) -> None:
    cgroup.allow_devices(DEFAULT_RULES)
    os.mknod(tmp_path / "kmsg", 0o20666, os.makedev(1, 11))
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    program = f"""
import os
status = 0
os.open("{tmp_path}/null", os.O_RDWR)
try:
    os.open("{tmp_path}/kmsg", os.O_RDONLY)
except PermissionError:
    status = 7
os.mknod("{tmp_path}/disk", 0o60600, os.makedev(8, 0))
"""
    assert _status(_spawn(cgroup, program)) == 7


def test_frozen_processes_use_no_time_and_can_be_killed(cgroup: V1Cgroup) -> None:
    pid = _spawn(cgroup, "while True: pass")
    time.sleep(0.05)
    cgroup.freeze()
    before = cgroup.usage().cpu_ns
    time.sleep(0.1)
    assert cgroup.usage().cpu_ns == before
    cgroup.thaw()
    time.sleep(0.1)
    assert cgroup.usage().cpu_ns > before
    cgroup.freeze()
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL


def test_kill_leaves_nothing_of_a_fork_bomb(cgroup: V1Cgroup) -> None:
    cgroup.apply(Limits(pids=60))
    pid = _spawn(cgroup, "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass")
    time.sleep(0.2)
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while cgroup.processes() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert cgroup.processes() == ()


def test_another_signal_is_sent_to_all(cgroup: V1Cgroup) -> None:
    pid = _spawn(cgroup, "import time; time.sleep(60)")
    while not cgroup.processes():
        time.sleep(0.01)
    cgroup.kill(signal.SIGTERM)
    assert _status(pid) == -signal.SIGTERM


@pytest.mark.parametrize(
    "cgroup", [Limits(cpuset_cpus="0"), Limits(cpuset_mems="0")], indirect=True
)
def test_cpuset_is_filled_before_it_is_entered(cgroup: V1Cgroup) -> None:
    assert _status(_spawn(cgroup, "import os; status = 7 if os.sched_getaffinity(0) else 0")) == 7


def test_a_busy_cgroup_is_not_removed_and_says_who_is_inside(
    driver: V1Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.cgroups.base._RETRY_S", 0.05)
    cgroup = driver.create(f"busy-{os.getpid()}", Limits())
    pid = _spawn(cgroup, "import time; time.sleep(60)")
    while not cgroup.processes():
        time.sleep(0.01)
    with pytest.raises(CgroupBusy) as failure:
        cgroup.destroy()
    assert str(pid) in failure.value.hint
    cgroup.kill()
    _status(pid)
    cgroup.destroy()
    cgroup.destroy()


def test_what_a_container_made_below_is_removed_too(driver: V1Driver) -> None:
    cgroup = driver.create(f"nested-{os.getpid()}", Limits())
    for directory in cgroup.directories:
        os.makedirs(f"{directory}/a/b")
    cgroup.destroy()
    assert not any(os.path.exists(directory) for directory in cgroup.directories)


def test_a_process_can_be_added_from_outside(cgroup: V1Cgroup) -> None:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    cgroup.add(pid)
    assert cgroup.processes() == (pid,)
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL


def test_a_cgroup_opened_by_name_is_the_same(driver: V1Driver, cgroup: V1Cgroup) -> None:
    again = driver.open(f"test-{os.getpid()}")
    pid = _spawn(again, "import time; time.sleep(60)")
    while not cgroup.processes():
        time.sleep(0.01)
    again.kill()
    assert _status(pid) == -signal.SIGKILL


def test_a_limit_that_the_kernel_refuses_names_the_file(cgroup: V1Cgroup) -> None:
    with pytest.raises(CgroupError, match=r"cannot set cpu.cfs_quota_us"):
        cgroup.apply(Limits(cpu_quota=1))


def test_a_host_without_the_controller_is_named(tmp_path: Path) -> None:
    cgroup = V1Cgroup({"pids": str(tmp_path)})
    assert cgroup.apply(Limits(memory=1 << 20))[0].startswith("this host has no memory cgroup")
    assert "not restricted" in cgroup.allow_devices(DEFAULT_RULES)[0]
    assert errno_of(lambda: cgroup.usage()) == 0
