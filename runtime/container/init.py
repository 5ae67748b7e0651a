"""The child's half of a start: from the fork to the exec of the program, never returning.

This process is the container's first one. It holds the host interpreter and its open files until
the exec, so it must neither run nor read anything of the image's on the way there:

- `freeze_imports` comes first, because later `sys.path` would be found inside the image.
- It is not dumpable before a process of the container could look at it.
- Its last act is the exec of a sealed memory file, so that /proc/self/exe of the container's first
  program never was the host's interpreter (CVE-2019-5736).
- Descriptors are really closed, not marked, before the working directory is entered: a directory
  of the host's could otherwise be the working directory (CVE-2024-21626).
"""

from __future__ import annotations

import os
import signal
import sys

from runtime.container.apply import Init, Refused, perform
from runtime.container.channel import EXEC, GO, MAPPED, READY, Channel, Failure, PeerLost
from runtime.errors import EngineError
from runtime.linux import flags as f
from runtime.linux import stub, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from runtime.container.plan import Plan

# Only read by the parent, and only if it did not get a report.
FAILED_STATUS = 125


def run_init(
    plan: Plan,
    channel: Channel,
    stdio: tuple[int, int, int],
    stub_fd: int,
    send_terminal: Callable[[int], None] | None,
) -> NoReturn:
    """Become the container. Every way out ends the process."""
    step_name = "start"
    try:
        freeze_imports()
        channel.keep_child_ends()
        os.setsid()
        if plan.fork_flags & f.CLONE_NEWUSER:
            channel.wait_for(MAPPED)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        syscalls.prctl(f.PR_SET_DUMPABLE, 0)
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        init = Init(send_terminal)
        for step in plan.steps:
            step_name = type(step).__name__
            perform(step, init)
        # Set after the change of ids, which clears it: a container does not outlive its supervisor.
        step_name = "parent's death"
        syscalls.prctl(f.PR_SET_PDEATHSIG, signal.SIGKILL)
        reset_signals()
        step_name = "start"
        channel.report(READY)
        channel.wait_for(GO)
        environment = [*plan.env]
        if not any(entry.startswith("HOME=") for entry in environment):
            environment.append("HOME=" + init.home)
        step_name = "working directory"
        stub.arrange(stub_fd, channel.report_write)
        channel.report_write = stub.ERROR_FD
        _enter(plan.cwd)
        path = find_program(plan.args[0], environment)
        step_name = "exec"
        channel.report(EXEC)
        stub.run(path, plan.args, environment)
    except PeerLost:
        pass
    except BaseException as error:
        try:
            channel.report_failure(_explain(step_name, error))
        except OSError:
            pass  # the parent is gone; there is nobody to tell
    os._exit(FAILED_STATUS)


def freeze_imports() -> None:
    """From here on only modules already loaded exist."""
    sys.path[:] = []
    sys.meta_path[:] = []
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()


def reset_signals() -> None:
    """Default dispositions and an empty mask: Python ignores SIGPIPE, and ignoring is inherited."""
    for number in range(1, signal.NSIG):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            syscalls.default_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _enter(cwd: str) -> None:
    os.chdir(cwd)
    try:
        reached = os.getcwd()
    except FileNotFoundError:
        reached = "(unreachable)"
    if not reached.startswith("/"):
        raise Refused(f"the working directory {cwd} is outside the container")


def find_program(name: str, environment: list[str]) -> str:
    """Look a bare name up in PATH as execvp does, with the container's files and rights.

    Raises: OSError(ENOENT) when no directory has it, EACCES when one has but it may not be run.
    """
    if "/" in name:
        return name
    directories = ""
    for entry in environment:
        if entry.startswith("PATH="):
            directories = entry[5:]
    found: OSError = FileNotFoundError(2, "executable file not found in $PATH", name)
    for directory in directories.split(":"):
        candidate = (directory or ".") + "/" + name
        try:
            is_file = os.path.isfile(candidate)
            if is_file and os.access(candidate, os.X_OK):
                return candidate
            if is_file:
                found = PermissionError(13, "permission denied", candidate)
        except OSError:
            continue
    raise found


def _explain(step: str, error: BaseException) -> Failure:
    if isinstance(error, OSError) and error.errno:
        text = error.strerror or os.strerror(error.errno)
        if error.filename:
            text += f": {os.fsdecode(error.filename)}"
        if error.filename2:
            text += f" -> {os.fsdecode(error.filename2)}"
        return Failure(step, error.errno, text)
    if isinstance(error, Refused | EngineError):
        return Failure(step, 0, str(error))
    return Failure(step, 0, f"{type(error).__name__}: {error}")
