"""Cgroup v2: as text in a directory that imitates it, and for real as far as this host has one.

A hybrid host has a v2 hierarchy without controllers: membership, clone3 into a cgroup, freezing,
killing and device programs are real there; limits are compared as text.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.cgroups import detect
from runtime.cgroups.base import CgroupError
from runtime.cgroups.devices import DEFAULT_RULES
from runtime.cgroups.limits import Limits
from runtime.cgroups.v2 import V2Cgroup, V2Driver, enable_controllers
from runtime.linux import syscalls


def _imitate(directory: Path, controllers: str) -> V2Cgroup:
    directory.mkdir(exist_ok=True)
    (directory / "cgroup.controllers").write_text(controllers + "\n")
    for file in ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.subtree_control"):
        (directory / file).write_text("")
    return V2Cgroup(str(directory))


def test_limits_are_written_to_the_files(tmp_path: Path) -> None:
    cgroup = _imitate(tmp_path, "cpu memory pids")
    assert cgroup.apply(Limits(memory=1 << 20, cpu_quota=25_000, pids=9)) == ()
    found = {f: (tmp_path / f).read_text() for f in ("memory.max", "cpu.max", "pids.max")}
    assert found == {"memory.max": "1048576", "cpu.max": "25000 100000", "pids.max": "9"}


def test_a_controller_that_was_not_delegated_is_named_once(tmp_path: Path) -> None:
    cgroup = _imitate(tmp_path, "cpu pids")
    warnings = cgroup.apply(Limits(memory=1 << 20))
    assert warnings[0] == (
        "the memory controller is not delegated to us: memory.max is not limited"
    )


def test_a_missing_file_of_a_present_controller_is_an_error(tmp_path: Path) -> None:
    cgroup = _imitate(tmp_path, "pids")
    (tmp_path / "pids.max").unlink()
    with pytest.raises(CgroupError, match=r"pids\.max"):
        cgroup.apply(Limits(pids=4))


def test_controllers_are_enabled_for_the_children(tmp_path: Path) -> None:
    _imitate(tmp_path, "cpuset hugetlb pids")
    enable_controllers(str(tmp_path))
    # The imitation keeps only the last write; the kernel would gather them.
    assert (tmp_path / "cgroup.subtree_control").read_text() in ("+pids", "+cpuset")


def test_usage_from_text(tmp_path: Path) -> None:
    for file, text in {
        "memory.current": "5000\n",
        "memory.stat": "anon 1\ninactive_file 1000\n",
        "memory.max": "max\n",
        "memory.events": "low 0\noom 1\noom_kill 2\n",
        "cpu.stat": "usage_usec 7\nuser_usec 5\n",
        "pids.current": "3\n",
        "pids.max": "10\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=5 wbytes=1\n",
    }.items():
        (tmp_path / file).write_text(text)
    usage = V2Cgroup(str(tmp_path)).usage()
    assert (usage.memory_bytes, usage.memory_limit, usage.oom_kills) == (4000, -1, 2)
    assert (usage.cpu_ns, usage.pids, usage.pids_limit) == (7000, 3, 10)
    assert (usage.read_bytes, usage.written_bytes) == (15, 21)


def test_usage_of_a_cgroup_that_is_gone_is_unknown() -> None:
    assert V2Cgroup("/nowhere").usage().memory_bytes == -1


HIERARCHY = detect.detect().v2

real = pytest.mark.skipif(
    os.geteuid() != 0 or not HIERARCHY, reason="this host has no v2 hierarchy that we may write to"
)


@pytest.fixture
def cgroup() -> Iterator[V2Cgroup]:
    made = V2Driver(HIERARCHY).create(f"test-{os.getpid()}", Limits())
    yield made
    made.kill()
    made.destroy()
    made.destroy()
    assert not os.path.exists(made.directory)


def _born_inside(cgroup: V2Cgroup, action: str) -> int:
    fd = cgroup.descriptor()
    pid, _ = syscalls.clone3(cgroup_fd=fd)
    if pid == 0:
        status = 99
        try:
            scope: dict[str, object] = {}
            exec(action, scope)
            status = int(str(scope.get("status", 0)))
        finally:
            os._exit(status)
    os.close(fd)
    return pid


def _status(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@real
@pytest.mark.root
def test_a_child_is_born_in_the_cgroup(cgroup: V2Cgroup) -> None:
    pid = _born_inside(cgroup, "import time; time.sleep(60)")
    assert cgroup.processes() == (pid,)
    own = Path(f"/proc/{pid}/cgroup").read_text()
    assert f"0::/pyreg/test-{os.getpid()}" in own
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL


@real
@pytest.mark.root
def test_joining_and_being_added(cgroup: V2Cgroup) -> None:
    first = os.fork()
    if first == 0:
        cgroup.join()
        time.sleep(60)
        os._exit(0)
    second = os.fork()
    if second == 0:
        time.sleep(60)
        os._exit(0)
    cgroup.add(second)
    deadline = time.monotonic() + 5
    while len(cgroup.processes()) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(cgroup.processes()) == {first, second}
    cgroup.kill(signal.SIGTERM)
    assert _status(first) == _status(second) == -signal.SIGTERM


@real
@pytest.mark.root
def test_freeze_and_thaw(cgroup: V2Cgroup) -> None:
    pid = _born_inside(cgroup, "while True: pass")

    def ticks() -> int:
        return sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15]))

    cgroup.freeze()
    before = ticks()
    time.sleep(0.1)
    assert ticks() == before
    cgroup.thaw()
    time.sleep(0.2)
    assert ticks() > before
    cgroup.freeze()
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL


@real
@pytest.mark.root
def test_kill_leaves_nothing_of_forking_processes(cgroup: V2Cgroup) -> None:
    forker = "import os, time\nfor _ in range(40):\n    os.fork() or time.sleep(60)\ntime.sleep(60)"
    pid = _born_inside(cgroup, forker)
    time.sleep(0.1)
    cgroup.kill()
    assert _status(pid) == -signal.SIGKILL


@real
@pytest.mark.root
def test_the_device_program_is_loaded_and_obeyed(cgroup: V2Cgroup, tmp_path: Path) -> None:
    os.mknod(tmp_path / "kmsg", 0o20666, os.makedev(1, 11))
    os.mknod(tmp_path / "null", 0o20666, os.makedev(1, 3))
    warnings = cgroup.allow_devices(DEFAULT_RULES)
    if warnings:
        pytest.skip(f"the kernel refuses device programs: {warnings[0]}")
    action = f"""
import os
status = 0
os.open("{tmp_path}/null", os.O_RDWR)
try:
    os.open("{tmp_path}/kmsg", os.O_RDONLY)
except PermissionError:
    status = 7
os.mknod("{tmp_path}/disk", 0o60600, os.makedev(8, 0))
"""
    assert _status(_born_inside(cgroup, action)) == 7
