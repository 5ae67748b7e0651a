"""The last program of ours in a container: a tiny static ELF that closes the door and execs.

Why it exists (CVE-2019-5736): if the interpreter itself did the last execve and the image's program
were a script with `#!/proc/self/exe`, the kernel would run the *host's interpreter* again, in the
container, with the image's dynamic loader; that loader could then open the interpreter through
/proc/self/exe and overwrite it. So the interpreter first becomes this stub, whose file is a sealed
memory file: /proc/self/exe then leads to 200 bytes that nobody can change and that refuse to run
a second time.

What it does: mark descriptor 3 close-on-exec; if that fails, exit 127 (the image is running it,
and would otherwise exec itself for ever). execve(argv[0], argv + 1, envp). If that fails, write
errno (4 bytes) to descriptor 3 and exit 127. The reader at the other end of the pipe sees end of
file when the program runs.

The machine code is written out below with its source; a test assembles the source and compares.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from runtime.errors import EngineError
from runtime.linux import flags, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ERROR_FD = 3
STUB_FD = 4

SOURCES = {
    "x86_64": """
        mov  $72, %eax              # fcntl(3, F_SETFD, FD_CLOEXEC)
        mov  $3, %edi
        mov  $2, %esi
        mov  $1, %edx
        syscall
        test %eax, %eax
        jnz  1f
        mov  (%rsp), %rax           # argc
        lea  8(%rsp), %rsi
        mov  (%rsi), %rdi           # argv[0] is the file to run
        add  $8, %rsi               # argv + 1 is what it gets as argv
        lea  16(%rsp,%rax,8), %rdx  # envp
        mov  $59, %eax              # execve
        syscall
        neg  %eax
        push %rax
        mov  $1, %eax               # write(3, &errno, 4)
        mov  $3, %edi
        mov  %rsp, %rsi
        mov  $4, %edx
        syscall
    1:  mov  $231, %eax             # exit_group(127)
        mov  $127, %edi
        syscall
    """,
    "aarch64": """
        mov  x8, #25                // fcntl(3, F_SETFD, FD_CLOEXEC)
        mov  x0, #3
        mov  x1, #2
        mov  x2, #1
        svc  #0
        cbnz x0, 1f
        ldr  x3, [sp]               // argc
        ldr  x0, [sp, #8]           // argv[0] is the file to run
        add  x1, sp, #16            // argv + 1 is what it gets as argv
        add  x2, x1, x3, lsl #3     // envp
        mov  x8, #221               // execve
        svc  #0
        neg  x0, x0
        str  x0, [sp, #-16]!
        mov  x8, #64                // write(3, &errno, 4)
        mov  x0, #3
        mov  x1, sp
        mov  x2, #4
        svc  #0
    1:  mov  x8, #94                // exit_group(127)
        mov  x0, #127
        svc  #0
    """,
}

CODE = {
    "x86_64": bytes.fromhex(
        "b848000000bf03000000be02000000ba010000000f0585c07533488b0424488d"
        "742408488b3e4883c608488d54c410b83b0000000f05f7d850b801000000bf03"
        "0000004889e6ba040000000f05b8e7000000bf7f0000000f05"
    ),
    "aarch64": bytes.fromhex(
        "280380d2600080d2410080d2220080d2010000d4c00100b5e30340f9e00740f9"
        "e1430091220c038ba81b80d2010000d4e00300cbe00f1ff8080880d2600080d2"
        "e1030091820080d2010000d4c80b80d2e00f80d2010000d4"
    ),
}

_ELF_MACHINE = {"x86_64": 62, "aarch64": 183}
_BASE = 0x400000


class StubUnavailable(EngineError):
    """No stub for this machine, or no place to put it from where it could be executed."""


def build(machine: str) -> bytes:
    """The ELF file for a machine: one header, one read-only executable segment, the code."""
    if machine not in CODE:
        raise StubUnavailable(
            f"containers cannot be started on {machine}",
            hint="supported machines are " + ", ".join(sorted(CODE)),
        )
    headers = 64 + 56
    size = headers + len(CODE[machine])
    identification = b"\x7fELF\x02\x01\x01" + bytes(9)  # 64 bits, little-endian, System V
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        identification,
        2,
        _ELF_MACHINE[machine],
        1,
        _BASE + headers,
        64,
        0,
        0,
        64,
        56,
        1,
        64,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return elf + segment + CODE[machine]


def open_stub(machine: str = syscalls.MACHINE) -> int:
    """A descriptor of a stub that nobody can write to, close-on-exec; the caller closes it.

    A sealed memory file; where the host forbids those to be executed (vm.memfd_noexec = 2), a file
    on a read-only file system that is mounted nowhere, which needs CAP_SYS_ADMIN.
    """
    content = build(machine)
    try:
        return syscalls.memfd("pyreg-init", content, executable=True)
    except PermissionError as error:
        try:
            return _on_private_tmpfs(content)
        except OSError as second:
            raise StubUnavailable(
                "this host does not let memory files be executed",
                hint="set vm.memfd_noexec to 0 or 1 with sysctl",
            ) from (second or error)


def _on_private_tmpfs(content: bytes) -> int:
    context = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig(context, flags.FSCONFIG_CMD_CREATE)
        mount_fd = syscalls.fsmount(context)
    finally:
        os.close(context)
    try:
        opening = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        file = os.open("init", opening, 0o755, dir_fd=mount_fd)
        try:
            os.write(file, content)
        finally:
            os.close(file)
        syscalls.mount_setattr(mount_fd, "", flags.AT_EMPTY_PATH, attr_set=flags.MOUNT_ATTR_RDONLY)
        return os.open("init", os.O_RDONLY | os.O_CLOEXEC, dir_fd=mount_fd)
    finally:
        os.close(mount_fd)


def arrange(stub_fd: int, error_fd: int) -> None:
    """Put the error pipe at descriptor 3 and the stub at 4, and close everything from 5 on.

    0, 1 and 2 stay. The close is a real one, not close-on-exec: after it nothing of the host is
    reachable through /proc/self/fd (CVE-2024-21626), so call it before chdir to the working
    directory.
    """
    safe_stub = fcntl.fcntl(stub_fd, fcntl.F_DUPFD_CLOEXEC, 10)
    safe_error = fcntl.fcntl(error_fd, fcntl.F_DUPFD_CLOEXEC, 10)
    os.dup2(safe_error, ERROR_FD, inheritable=True)
    os.dup2(safe_stub, STUB_FD, inheritable=False)
    syscalls.close_range(STUB_FD + 1)


def run(path: str, arguments: Sequence[str], environment: Sequence[str]) -> None:
    """Become the stub and, through it, the program; `arrange` must have been called.

    `path` is the file itself (no search in PATH), `arguments` begins with the program's name for
    itself. Only returns by raising OSError, if the stub cannot be started.
    """
    syscalls.execveat(STUB_FD, "", (path, *arguments), environment, flags.AT_EMPTY_PATH)


def read_outcome(error_pipe: int) -> int:
    """What came through the error pipe: 0 if the program runs, else errno of its execve.

    Blocks until the stub has exec'ed or ended. A process that died before it got there (killed, for
    instance) also reads as 0: its exit status tells.
    """
    data = b""
    while len(data) < 4:
        chunk = os.read(error_pipe, 4 - len(data))
        if not chunk:
            break
        data += chunk
    return int.from_bytes(data, "little") if len(data) == 4 else errno.EIO if data else 0
