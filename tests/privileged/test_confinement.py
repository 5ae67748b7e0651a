"""What a container's process is confined by, seen from inside: equal to docker's."""

from __future__ import annotations

import os

import pytest

from tests.builders.pyreg import Pyreg, lines

pytestmark = pytest.mark.root

DOCKER_CAPABILITIES = "00000000a80425fb"


def _status(engine: Pyreg, *words: str) -> dict[str, str]:
    done = engine("run", "--rm", *words, "bb", "cat", "/proc/self/status")
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines(done))}


@pytest.mark.parametrize(
    ("words", "sets"),
    [
        ((), {"CapPrm": DOCKER_CAPABILITIES, "CapEff": DOCKER_CAPABILITIES}),
        (("-u", "1000"), {"CapPrm": "0" * 16, "CapEff": "0" * 16}),
        (("--cap-drop", "ALL"), {"CapPrm": "0" * 16, "CapBnd": "0" * 16}),
        (("--cap-drop", "ALL", "--cap-add", "CHOWN"), {"CapEff": "0" * 15 + "1"}),
        (("--cap-add", "NET_ADMIN"), {"CapEff": "00000000a80435fb"}),
    ],
)
def test_capabilities(engine: Pyreg, words: tuple[str, ...], sets: dict[str, str]) -> None:
    found = _status(engine, *words)
    expected = {"CapInh": "0" * 16, "CapAmb": "0" * 16, "CapBnd": DOCKER_CAPABILITIES} | sets
    if "--cap-add" in words:
        del expected["CapBnd"]
    assert {name: found[name] for name in expected} == expected


def test_filter_and_no_new_privileges(engine: Pyreg) -> None:
    assert _status(engine)["Seccomp"] == "2"
    assert _status(engine)["NoNewPrivs"] == "0"
    assert _status(engine, "--security-opt", "no-new-privileges")["NoNewPrivs"] == "1"
    assert _status(engine, "--security-opt", "no-new-privileges")["Seccomp"] == "2"
    assert _status(engine, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"


@pytest.mark.parametrize("user", ["0", "1000"])
def test_signals_are_as_a_program_expects_them(engine: Pyreg, user: str) -> None:
    found = _status(engine, "-u", user)
    assert found["SigBlk"] == "0" * 16
    assert found["SigIgn"] == "0" * 16


def test_only_three_descriptors_are_open(engine: Pyreg) -> None:
    extra = os.open("/", os.O_RDONLY)
    os.set_inheritable(extra, True)
    try:
        # The shell's own glob opens one more while it lists.
        done = engine("run", "--rm", "bb", "sh", "-c", "for f in /proc/1/fd/*; do echo $f; done")
    finally:
        os.close(extra)
    names = {line.rpartition("/")[2] for line in lines(done)}
    assert {"0", "1", "2"} <= names
    for name in names - {"0", "1", "2"}:
        assert int(name) >= 3, name
    assert len(names) <= 4


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/proc/kcore", "memory of the host"),
        ("/proc/keys", "keys of the host"),
        ("/proc/timer_list", "addresses of the kernel"),
        ("/proc/interrupts", "side channel"),
        ("/proc/sched_debug", "processes of the host"),
    ],
)
def test_masked_files_are_empty(engine: Pyreg, path: str, what: str) -> None:
    done = engine("run", "--rm", "bb", "sh", "-c", f"[ ! -e {path} ] || cat {path} | wc -c")
    assert "".join(lines(done)) in ("", "0"), what


@pytest.mark.parametrize("path", ["/sys/firmware", "/proc/acpi", "/proc/scsi"])
def test_masked_directories_are_empty(engine: Pyreg, path: str) -> None:
    done = engine("run", "--rm", "bb", "sh", "-c", f"[ ! -e {path} ] || ls -A {path}")
    assert lines(done) == []


@pytest.mark.parametrize(
    "path", ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"]
)
def test_read_only_paths(engine: Pyreg, path: str) -> None:
    if not os.path.exists(path):
        pytest.skip(f"this kernel has no {path}")
    done = engine("run", "--rm", "bb", "sh", "-c", f"echo x > {path}")
    assert done.returncode != 0
    assert "Read-only" in done.stderr


def test_sysfs_and_cgroups_are_read_only(engine: Pyreg) -> None:
    script = "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/memory/x 2>/dev/null || echo refused"
    assert lines(engine("run", "--rm", "bb", "sh", "-c", script)) == ["refused"]


def test_devices(engine: Pyreg) -> None:
    script = """
        for name in null zero full random urandom tty; do [ -c /dev/$name ] || echo no $name; done
        mknod /disk b 8 0 && cat /disk 2>/dev/null && echo disk readable
        mknod /mem c 1 1 && cat /mem 2>/dev/null && echo memory readable
        echo x > /dev/null && head -c 1 /dev/zero | wc -c
    """
    assert lines(engine("run", "--rm", "bb", "sh", "-c", script)) == ["1"]


def test_mounting_is_refused(engine: Pyreg) -> None:
    done = engine("run", "--rm", "bb", "mount", "-t", "tmpfs", "tmpfs", "/tmp")
    assert done.returncode != 0


def test_ulimit(engine: Pyreg) -> None:
    done = engine(
        "run", "--rm", "--ulimit", "nofile=77:99", "bb", "sh", "-c", "ulimit -n; ulimit -Hn"
    )
    assert lines(done) == ["77", "99"]


def test_shm_size(engine: Pyreg) -> None:
    done = engine("run", "--rm", "--shm-size", "1m", "bb", "grep", "/dev/shm", "/proc/mounts")
    assert "size=1024k" in lines(done)[0]


def test_namespaces_are_its_own(engine: Pyreg) -> None:
    names = ["cgroup", "ipc", "mnt", "net", "pid", "uts"]
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in names)
    found = lines(engine("run", "--rm", "bb", "sh", "-c", script))
    assert not set(found) & {os.readlink(f"/proc/self/ns/{name}") for name in names}


def test_processes_of_the_host_are_not_seen(engine: Pyreg) -> None:
    done = engine("run", "--rm", "bb", "sh", "-c", "ls /proc | grep -c '^[0-9]'")
    assert int(lines(done)[0]) <= 4


def test_the_limits_are_in_its_cgroup(engine: Pyreg) -> None:
    if not os.path.isdir("/sys/fs/cgroup/pids"):
        pytest.skip("needs the pids controller of cgroup v1")
    script = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/memory/memory.limit_in_bytes"
    done = engine("run", "--rm", "--pids-limit", "17", "-m", "32m", "bb", "sh", "-c", script)
    assert lines(done) == ["17", str(32 << 20)]
