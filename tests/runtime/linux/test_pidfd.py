from __future__ import annotations

import os
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.value import replace
from runtime.linux import pidfd
from runtime.linux.pidfd import ProcessHandle


def _sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    return pid


def test_a_process_is_followed_from_running_to_zombie_to_gone() -> None:
    pid = _sleeper()
    handle = ProcessHandle.of(pid)
    assert handle.exists() and handle.is_running()
    assert not handle.wait(0.01)
    assert handle.signal(signal.SIGKILL)
    assert handle.wait(5)
    assert handle.exists() and not handle.is_running()  # not reaped yet
    os.waitpid(pid, 0)
    assert not handle.exists() and not handle.signal(signal.SIGKILL) and handle.wait(0)


def test_a_reused_pid_is_not_the_same_process() -> None:
    pid = _sleeper()
    try:
        other = replace(ProcessHandle.of(pid), start_time=1)
        assert not other.exists()
        assert not other.signal(signal.SIGKILL)
        with pytest.raises(ProcessLookupError):
            other.open()
        assert ProcessHandle.of(pid).is_running()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_no_such_process() -> None:
    with pytest.raises(ProcessLookupError):
        ProcessHandle.of((1 << 22) + 1)


@given(st.binary(max_size=15))
def test_a_hostile_process_name_does_not_shift_the_fields(name: bytes) -> None:
    numbers = b" ".join(b"%d" % n for n in range(4, 53))
    assert pidfd.parse_stat(b"17 (" + name + b") S " + numbers) == ("S", 22)


@given(st.binary(max_size=300))
def test_nonsense_raises_only_value_error(line: bytes) -> None:
    try:
        pidfd.parse_stat(line)
    except ValueError:
        pass


def test_boot_id_is_stable() -> None:
    assert pidfd.boot_id() == pidfd.boot_id() and len(pidfd.boot_id()) == 36
