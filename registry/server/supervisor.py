"""Several processes that serve the same sockets, and the small one that watches them.

    parent   binds, forks, waits; opens nothing else and starts no thread
    worker   number 0 … n-1, each with its own event loop, database and threads

All workers accept from the same sockets, so one that died leaves no connection waiting for it. A
worker that died is started again after a pause that doubles; one that cannot start ends everything.
Signals to the parent reach the workers: SIGTERM and SIGINT stop, a second one at once; SIGHUP
reloads. If the parent is killed the kernel stops its workers.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

log = logging.getLogger("pyreg.registry")

#: Seconds before a worker that died is started again; doubled each time, up to the second.
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 30.0
#: A worker that served this long had a good start.
GOOD_S = 60.0
#: Starts that may fail one after the other before all is given up.
FAILED_STARTS = 5
#: Seconds beyond the graceful time before a worker is killed, and after a second signal.
KILL_AFTER_S = 15.0
KILL_SOON_S = 3.0

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_PR_SET_PDEATHSIG = 1

#: Runs in the worker: its number, and what it calls when it serves. Returns the exit status.
Work = Callable[[int, Callable[[], None]], int]


@dataclass(slots=True)
class _Slot:
    """One worker's place."""

    number: int
    pid: int = 0
    #: Where it says that it serves; closed afterwards.
    ready_fd: int = -1
    ready: bool = False
    started_at: float = 0.0
    #: Times in a row that it died soon.
    deaths: int = 0
    #: When to start it again, 0 if it runs.
    due_at: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """Forks `count` workers on `sockets`, which it owns and closes, and watches them in `run`."""

    count: int
    work: Work
    sockets: Sequence[socket.socket]
    graceful_s: float = 30.0
    #: All workers serve for the first time.
    on_ready: Callable[[], None] = lambda: None
    on_stopping: Callable[[], None] = lambda: None
    #: SIGHUP came, and the workers know.
    on_reload: Callable[[], None] = lambda: None
    _slots: list[_Slot] = field(default_factory=list)
    _served: bool = False
    _failed_starts: int = 0
    _stopping: bool = False
    _status: int = 0
    _kill_at: float = 0.0

    def run(self) -> int:
        """Serve until a signal says stop; the exit status: 0, or 1 if workers cannot start.

        To be called while there is one thread.
        """
        self._slots = [_Slot(number) for number in range(self.count)]
        waker, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = {each: signal.signal(each, _nothing) for each in _SIGNALS}
        fd_before = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        # What is there now is shared by all: the collector would touch, and so copy, every page.
        gc.collect()
        gc.freeze()
        try:
            for slot in self._slots:
                self._start(slot)
            while not self._stopping or any(slot.pid for slot in self._slots):
                self._wait(waker)
                for number in _read_signals(waker):
                    self._signalled(number)
                self._look_after_workers()
        finally:
            for slot in self._slots:
                if slot.pid:
                    os.kill(slot.pid, signal.SIGKILL)
                    os.waitpid(slot.pid, 0)
                if slot.ready_fd >= 0:
                    os.close(slot.ready_fd)
            signal.set_wakeup_fd(fd_before)
            for each, handler in before.items():
                signal.signal(each, handler)
            os.close(waker)
            os.close(wakes)
            gc.unfreeze()
        return self._status

    # --- starting -------------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> None:
        parent = os.getpid()
        ready_fd, says_ready = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between fork and the worker's own handlers would be written to our pipe.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._be_worker(slot.number, parent, says_ready, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(says_ready)
        slot.pid, slot.ready_fd, slot.ready = pid, ready_fd, False
        slot.started_at, slot.due_at = time.monotonic(), 0.0

    def _be_worker(
        self, number: int, parent: int, says_ready: int, mask: set[int | signal.Signals]
    ) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            # Ctrl-C reaches the whole group; the parent passes it on as SIGTERM, once.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(each, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() == parent:
                status = self.work(number, lambda: _say(says_ready))
        except SystemExit as stopped:
            status = stopped.code if isinstance(stopped.code, int) else 1
        except BaseException as error:
            if hasattr(error, "hint"):
                log.error("worker %d: %s", number, error)
            else:
                traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    # --- watching -------------------------------------------------------------------------------

    def _wait(self, waker: int) -> None:
        now = time.monotonic()
        moments = [slot.due_at for slot in self._slots if slot.due_at and not self._stopping]
        if self._kill_at:
            moments.append(self._kill_at)
        timeout = max(0.0, min(moments) - now) if moments else None
        pipes = [slot.ready_fd for slot in self._slots if slot.ready_fd >= 0]
        select.select([waker, *pipes], [], [], timeout)

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop(again=self._stopping)
        elif number == signal.SIGHUP and not self._stopping:
            self._tell(signal.SIGHUP)
            self.on_reload()

    def _stop(self, *, again: bool = False) -> None:
        wait_s = KILL_SOON_S if again else self.graceful_s + KILL_AFTER_S
        self._kill_at = time.monotonic() + wait_s
        if not self._stopping:
            self._stopping = True
            self.on_stopping()
            for sock in self.sockets:
                sock.close()
        self._tell(signal.SIGTERM)

    def _tell(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.pid:
                os.kill(slot.pid, number)  # not reaped yet, so the id is still its own

    def _look_after_workers(self) -> None:
        for slot in self._slots:
            self._hear(slot)
            if slot.pid:
                pid, state = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._hear(slot)
                    self._died(slot, os.waitstatus_to_exitcode(state))
        now = time.monotonic()
        for slot in self._slots:
            if slot.due_at and not self._stopping and slot.due_at <= now:
                self._start(slot)
        if self._kill_at and self._kill_at <= now:
            self._kill_at = now + KILL_SOON_S
            self._tell(signal.SIGKILL)

    def _hear(self, slot: _Slot) -> None:
        """Has it said that it serves?"""
        if slot.ready_fd < 0:
            return
        try:
            said = os.read(slot.ready_fd, 1)
        except BlockingIOError:
            return
        os.close(slot.ready_fd)
        slot.ready_fd = -1
        slot.ready = bool(said)
        if slot.ready:
            self._failed_starts = 0
        if not self._served and all(each.ready for each in self._slots):
            self._served = True
            self.on_ready()

    def _died(self, slot: _Slot, code: int) -> None:
        lived = time.monotonic() - slot.started_at
        was_ready = slot.ready
        pid, slot.pid, slot.ready = slot.pid, 0, False
        if self._stopping:
            return
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
        if not was_ready:
            self._failed_starts += 1
            if not self._served or self._failed_starts >= FAILED_STARTS:
                log.error("worker %d ended %s before it served; giving up", slot.number, how)
                self._status = 1
                self._stop()
                return
        slot.deaths = 0 if lived >= GOOD_S else slot.deaths + 1
        pause = min(LAST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(slot.deaths, 20))
        slot.due_at = time.monotonic() + pause
        log.error("worker %d (%d) ended %s; the next in %.1f s", slot.number, pid, how, pause)


def _nothing(number: int, frame: object) -> None:
    """A handler, so that the signal's number is written to the pipe."""


def _say(descriptor: int) -> None:
    os.write(descriptor, b"1")
    os.close(descriptor)


def _read_signals(waker: int) -> bytes:
    try:
        return os.read(waker, 512)
    except BlockingIOError:
        return b""
