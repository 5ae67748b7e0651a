"""Jobs in a few threads: all of them, or the first error and no further one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from client import parallel
from client.errors import TransferStopped
from client.progress import Silence, Stoppable
from ocispec.digest import Digest


@pytest.mark.parametrize("count", [1, 3, 100])
@pytest.mark.parametrize("items", [0, 1, 7])
def test_every_item_is_done_once(count: int, items: int) -> None:
    done: list[int] = []
    parallel.run(done.append, range(items), count, threading.Event())
    assert sorted(done) == list(range(items))


def test_no_more_than_count_at_once() -> None:
    running, most = 0, 0
    lock = threading.Lock()

    def job(_: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    parallel.run(job, range(12), 3, threading.Event())
    assert most == 3


def test_the_first_failure_stops_the_others_and_is_what_is_raised() -> None:
    stop = threading.Event()
    progress = Stoppable(Silence(), stop)
    started = []

    def job(number: int) -> None:
        started.append(number)
        if number == 0:
            raise ValueError("the real reason")
        for _ in range(1000):  # a transfer of 10 seconds, were it not stopped
            progress.step(Digest.of(b"x"), "Downloading")
            time.sleep(0.01)

    before = time.monotonic()
    with pytest.raises(ValueError, match="the real reason"):
        parallel.run(job, range(50), 2, stop)
    assert time.monotonic() - before < 5 and len(started) <= 3
    with pytest.raises(TransferStopped):
        progress.step(Digest.of(b"x"), "Downloading")


def test_an_interrupt_does_not_wait_for_a_stalled_transfer() -> None:
    script = (
        "import threading, time; from client import parallel\n"
        "print('ready', flush=True)\n"
        "try: parallel.run(lambda _: time.sleep(60), range(4), 4, threading.Event())\n"
        "except KeyboardInterrupt: raise SystemExit(7)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(10) == 7
    process.stdout.close()
