"""Watches one running container: carries its output and input, passes signals on, sees its end.

The same loop serves a foreground `run`, where it runs in the command itself, and a detached one,
where it runs in a small process of its own session (`detach`). One process, one thread, one poll.

What a container gets as stdin, stdout and stderr is never a file, terminal or device of the host:
its root could change mode and owner through the descriptor (a set-user-id file of its own making,
say). Pipes carry the bytes instead. Only what is a pipe already is handed over as it is.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import stat

from runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from runtime.container.launch import Started
    from runtime.container.logs import LogWriter

CHUNK = 64 << 10
# After the container's end its pipes close at once, as its processes are dead; a descriptor that
# was passed out of it over a socket could keep one open.
DRAIN_S = 1.0

# Never passed on: they are about us, not about the container.
_OWN_SIGNALS = frozenset(
    (
        signal.SIGCHLD,
        signal.SIGPIPE,
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCONT,
    )
)


def may_hand_over(fd: int) -> bool:
    """Is it harmless in a container: a pipe, or /dev/null, which is reopened there?"""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    if stat.S_ISCHR(status.st_mode):
        return status.st_rdev == os.makedev(1, 3)
    return stat.S_ISFIFO(status.st_mode)


class Streams:
    """The descriptors of one container's stdio: what it gets, and what we carry in between.

    `capture` also takes over pipes, because everything has to pass by the log. Input comes from
    `stdin` or, without it, from nowhere. For a terminal, the container makes its own.
    """

    def __init__(
        self, *, stdin: int | None, stdout: int | None, stderr: int | None, capture: bool
    ) -> None:
        self.to_container: list[int] = []
        self.outputs: list[tuple[int, int | None, str]] = []  # source, our own target, stream
        self.input: tuple[int, int] | None = None  # our source, the container's stdin
        if stdin is not None and may_hand_over(stdin):
            self.to_container.append(os.dup(stdin))
        elif stdin is not None:
            read, write = os.pipe()
            self.to_container.append(read)
            self.input = (stdin, write)
        else:
            self.to_container.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for target, stream in ((stdout, "stdout"), (stderr, "stderr")):
            if target is not None and not capture and may_hand_over(target):
                self.to_container.append(os.dup(target))
                continue
            read, write = os.pipe()
            self.to_container.append(write)
            self.outputs.append((read, target, stream))

    @property
    def stdio(self) -> tuple[int, int, int]:
        first, second, third = self.to_container
        return first, second, third

    def close_container_ends(self) -> None:
        """After the fork; otherwise no end of file would ever be seen."""
        for fd in self.to_container:
            os.close(fd)
        self.to_container = []


class Watch:
    """The loop over everything one container does, until its end.

    `lost` says afterwards why output could not be passed on, if not because nobody read any more.
    """

    def __init__(self, started: Started, log: LogWriter | None) -> None:
        self._started = started
        self._log = log
        self._poll = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._ended = False
        self.lost = ""
        self._outputs = 0
        self._pending_input = b""

    def run(self) -> int:
        """Until the container's end and the last of its output; the wait status of its init."""
        self._add(self._started.pidfd, select.POLLIN, self._end)
        while not self._ended:
            self._round(None)
        while self._outputs and self._round(DRAIN_S):
            pass
        _, status = os.waitpid(self._started.pid, 0)
        if self._log is not None:
            self._log.close()
        return status

    def carry(self, streams: Streams) -> None:
        """Take on the pipes of a container without a terminal."""
        for source, target, stream in streams.outputs:
            self._add_output(source, target, stream)
        if streams.input is not None:
            self._add_input(*streams.input)

    def carry_terminal(self, *, stdin: int | None, stdout: int | None) -> None:
        """Take on the master of a container's terminal."""
        self._add_output(self._started.terminal, stdout, "stdout")
        if stdin is not None:
            self._add_input(stdin, os.dup(self._started.terminal))

    def follow_size(self, own_terminal: int) -> None:
        """Keep the container's terminal as large as the user's."""
        from runtime.container import tty

        def resize(*_: object) -> None:
            size = tty.size_of(own_terminal)
            if size is not None:
                tty.set_size(self._started.terminal, size)

        signal.signal(signal.SIGWINCH, resize)
        resize()  # it may have changed since the container was started

    def _round(self, timeout_s: float | None) -> bool:
        ready = self._poll.poll(None if timeout_s is None else timeout_s * 1000)
        for fd, _ in ready:
            action = self._actions.get(fd)
            if action is not None:  # an earlier action of this round may have ended this one
                action()
        return bool(ready)

    def _add(self, fd: int, events: int, action: Callable[[], None]) -> None:
        self._poll.register(fd, events)
        self._actions[fd] = action

    def _drop(self, fd: int) -> None:
        if self._actions.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _end(self) -> None:
        self._ended = True
        self._drop(self._started.pidfd)

    def _add_output(self, source: int, target: int | None, stream: str) -> None:
        own_target = target

        def move() -> None:
            nonlocal own_target
            try:
                chunk = os.read(source, CHUNK)
            except BlockingIOError:
                return
            except OSError:  # EIO: the last process left the terminal
                chunk = b""
            if not chunk:
                self._drop(source)
                self._outputs -= 1
                return
            if self._log is not None:
                self._log.write(stream, chunk)
            problem = _write_all(own_target, chunk) if own_target is not None else 0
            if problem:
                if problem != errno.EPIPE and problem != errno.EIO:  # EIO: the terminal is gone
                    self.lost = self.lost or f"cannot write {stream}: {os.strerror(problem)}"
                own_target = None  # our reader went away; the container and its log go on
                if self._log is None:
                    self._drop(source)
                    self._outputs -= 1
                    os.close(source)  # and now the container learns it, as in a shell's pipeline

        self._outputs += 1
        self._add(source, select.POLLIN, move)

    def _add_input(self, source: int, target: int) -> None:
        """One chunk at a time: more is read when the container has taken the last one.

        `target` is ours to close: that is how the container sees the end of its input.
        """
        os.set_blocking(target, False)

        def finish() -> None:
            self._drop(source)
            self._drop(target)
            os.close(target)

        def take() -> None:
            try:
                self._pending_input = os.read(source, CHUNK)
            except OSError:  # the terminal went away, or we are in its background
                self._pending_input = b""
            if self._pending_input:
                self._drop(source)
                give()
            else:
                finish()

        def give() -> None:
            try:
                written = os.write(target, self._pending_input)
            except BlockingIOError:
                written = 0
            except OSError:  # nobody reads any more
                finish()
                return
            self._pending_input = self._pending_input[written:]
            if self._pending_input:
                if target not in self._actions:
                    self._add(target, select.POLLOUT, give)
            else:
                self._drop(target)
                self._add(source, select.POLLIN, take)

        self._add(source, select.POLLIN, take)


def _write_all(fd: int, data: bytes) -> int:
    """0, or errno if it cannot be written. Waits for a slow reader, as a shell's pipeline does."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # somebody else made our stdout non-blocking
            select.select([], [fd], [])
        except OSError as error:
            return error.errno or errno.EIO
    return 0


class SignalProxy:
    """Passes on what is sent to this process to the container; what comes too early is kept.

    For a container with a terminal only the window's size is passed on, keys are bytes there; a
    hang-up or termination of this process then ends the container.
    """

    def __init__(self, *, terminal: bool = False, enabled: bool = True) -> None:
        self._enabled = enabled
        self._terminal = terminal
        self._pidfd = -1
        self._early: list[int] = []
        self._previous: dict[int, object] = {}

    def __enter__(self) -> SignalProxy:
        wanted = (
            (signal.SIGHUP, signal.SIGTERM)
            if self._terminal
            else [n for n in range(1, 32) if n not in _OWN_SIGNALS and n not in _FAULTS]
        )
        for number in wanted if self._enabled else ():
            self._previous[number] = signal.signal(number, self._pass)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def attach(self, pidfd: int) -> None:
        """The container runs: send it what has been kept, and from now on everything."""
        self._pidfd = pidfd
        for number in self._early:
            self._send(number)

    def _pass(self, number: int, _: object) -> None:
        if self._pidfd < 0:
            self._early.append(number)
        else:
            self._send(number)

    def _send(self, number: int) -> None:
        try:
            syscalls.pidfd_send_signal(self._pidfd, signal.SIGKILL if self._terminal else number)
        except ProcessLookupError:
            pass  # it has ended; the wait will say how


_FAULTS = frozenset(
    (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP)
)


def lower_oom_score() -> None:
    """A monitor is small and holds a container's end: others are to be killed first.

    Called after the container's init is forked, which would inherit it.
    """
    for score in ("-999", "0"):  # only root may go below what it was
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
                file.write(score)
            return
        except OSError:
            continue


def detach(work: Callable[[Callable[[bytes], None]], None]) -> bytes:
    """Run `work` in a process of its own session, and return what it reports.

    The process is no child of ours (a double fork), has no descriptor but the report, and works in
    "/". `work(report)` calls `report` once, when it is safe to leave it alone. An empty result
    means that it ended without a word.
    """
    read, write = os.pipe()
    intermediate = os.fork()
    if intermediate == 0:
        _become_monitor(work, write)
    os.close(write)
    os.waitpid(intermediate, 0)
    found = b""
    while chunk := os.read(read, CHUNK):
        found += chunk
    os.close(read)
    return found


def _become_monitor(work: Callable[[Callable[[bytes], None]], None], write: int) -> NoReturn:
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        if write != 3:
            os.dup2(write, 3, inheritable=False)
        syscalls.close_range(4)

        def report(words: bytes) -> None:
            os.write(3, words)
            os.close(3)

        work(report)
        status = 0
    finally:
        os._exit(status)
