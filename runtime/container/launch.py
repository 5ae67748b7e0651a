"""The parent's half of a start: fork the init, do what only the parent can, say go."""

from __future__ import annotations

import errno
import os
import signal

from ocispec.value import value
from runtime.container.channel import EXEC, GO, MAPPED, READY, Channel, Failure, PeerLost
from runtime.container.init import run_init
from runtime.errors import (
    CommandNotExecutable,
    CommandNotFound,
    ContainerError,
    EngineError,
)
from runtime.linux import flags as f
from runtime.linux import stub, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from runtime.container.plan import Plan


@value
class Started:
    """A container whose program runs."""

    pid: int  # of its init, a child of this process
    pidfd: int
    terminal: int  # master of its terminal, or -1


def launch(
    plan: Plan,
    stdio: tuple[int, int, int],
    *,
    on_fork: Callable[[int], None],
    write_mappings: Callable[[int], None] | None = None,
    terminal_size: tuple[int, int] | None = None,
    cgroup_fd: int = -1,
) -> Started:
    """Start a container; return when its program runs.

    `on_fork(pid)` is called while the child is at work and before the program may run: record there
    what has to be known of a running container. `terminal_size` is rows and columns.

    Raises: EngineError with the exit status `run` should end with; the child is gone then.
    """
    stub_fd = stub.open_stub()
    channel = Channel()
    ours, theirs = _terminal_socket(plan)
    try:
        pid, pidfd = syscalls.clone3(plan.fork_flags | f.CLONE_PIDFD, cgroup_fd=cgroup_fd)
    except OSError as error:
        raise _cannot_fork(error, plan) from error
    if pid == 0:
        run_init(plan, channel, stdio, stub_fd, _sender(theirs))
    channel.keep_parent_ends()
    os.close(stub_fd)
    if theirs is not None:
        theirs.close()
    terminal = -1
    try:
        if write_mappings is not None:
            write_mappings(pid)
            channel.order(MAPPED)
        on_fork(pid)
        failure = channel.next_report(READY)
        if failure is None and ours is not None:
            terminal = _receive(ours)
            if terminal_size is not None:
                from runtime.container import tty

                tty.set_size(terminal, terminal_size)
        if failure is None:
            channel.order(GO)
            failure = channel.next_report(EXEC)
        if failure is not None:
            raise _explained(failure, plan)
        code = stub.read_outcome(channel.report_read)
        if code:
            raise _explained(Failure("exec", code, f"{os.strerror(code)}: {plan.args[0]}"), plan)
    except BaseException as error:
        _reap(pid, pidfd)
        if terminal >= 0:
            os.close(terminal)
        if isinstance(error, PeerLost):
            raise ContainerError(
                "the container was killed before its program started",
                hint="was it out of memory? see dmesg",
            ) from error
        raise
    finally:
        channel.close()
        if ours is not None:
            ours.close()
    return Started(pid, pidfd, terminal)


def _terminal_socket(plan: Plan) -> tuple[socket.socket | None, socket.socket | None]:
    if not plan.terminal:
        return None, None
    import socket

    from runtime.container import tty  # noqa: F401  the child uses it and may not import

    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def _sender(connection: socket.socket | None) -> Callable[[int], None] | None:
    if connection is None:
        return None
    import socket

    def send(fd: int) -> None:
        socket.send_fds(connection, [b"t"], [fd])

    return send


def _receive(connection: socket.socket) -> int:
    import socket

    _, fds, _, _ = socket.recv_fds(connection, 1, 1)
    if not fds:
        raise PeerLost
    os.set_inheritable(fds[0], False)
    return fds[0]


def _reap(pid: int, pidfd: int) -> None:
    try:
        syscalls.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)
    os.close(pidfd)


def _explained(failure: Failure, plan: Plan) -> EngineError:
    """Docker's exit statuses: 127 for a program that is not there, 126 for one that cannot run."""
    program = plan.args[0]
    if failure.step in ("exec", "working directory"):
        if failure.errno in (errno.ENOENT, errno.ENOTDIR):
            return CommandNotFound(
                f"cannot run {program!r}: {failure.message}",
                hint="the program must be in the image, and so must its interpreter or loader",
            )
        if failure.errno in (errno.EACCES, errno.EISDIR, errno.EPERM, errno.ENOEXEC):
            return CommandNotExecutable(f"cannot run {program!r}: {failure.message}")
    name = _WORDS.get(failure.step, failure.step)
    return ContainerError(
        f"cannot start the container: {name}: {failure.message}", hint=_hint(failure, plan)
    )


_WORDS = {
    "Unshare": "making namespaces",
    "JoinCgroups": "joining the cgroup",
    "CloneSource": "bind mount source",
    "MountRoot": "mounting the root file system",
    "MountKernelFilesystem": "mounting the kernel's file systems",
    "MountCgroups": "mounting the cgroup file system",
    "ChangeRoot": "changing to the new root",
    "AttachSource": "attaching a mount",
    "MountTmpfs": "mounting a tmpfs",
    "LookUpUser": "looking up the user",
    "MakeWorkingDirectory": "making the working directory",
    "SetRlimits": "setting limits",
    "InstallFilter": "installing the seccomp filter",
    "BecomeUser": "changing to the user",
    "OpenTerminal": "opening the terminal",
}


def _hint(failure: Failure, plan: Plan) -> str:
    if failure.step == "BecomeUser" and failure.errno == errno.EINVAL:
        return (
            "the user namespace has no such user or group: install newuidmap (package uidmap) "
            "and add a range for this user to /etc/subuid and /etc/subgid"
        )
    if failure.step == "Unshare" and failure.errno == errno.EPERM:
        return "this process may not make namespaces here; is it inside a container itself?"
    if failure.step == "MountRoot" and failure.errno == errno.EINVAL:
        return "see the kernel's log (dmesg) for overlay's reason"
    return ""


def _cannot_fork(error: OSError, plan: Plan) -> EngineError:
    userns = plan.fork_flags & f.CLONE_NEWUSER
    hint = ""
    if error.errno == errno.EPERM and userns:
        hint = (
            "user namespaces are forbidden here: see sysctl kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns, or run as root"
        )
    elif error.errno == errno.EPERM:
        hint = "this process may not make namespaces here; is it inside a container itself?"
    elif error.errno == errno.ENOSPC:
        hint = "the limit in /proc/sys/user/max_user_namespaces or max_pid_namespaces is reached"
    elif error.errno == errno.EAGAIN:
        hint = "the limit of processes is reached"
    return ContainerError(f"cannot fork the container: {error.strerror}", hint=hint)
