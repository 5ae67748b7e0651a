"""The stub: bytes equal to its source, honest about failure, and a wall against CVE-2019-5736."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.linux import flags, stub, syscalls
from tests.runtime.linux.forked import in_child

TOOLS = {"x86_64": "", "aarch64": "aarch64-linux-gnu-"}


def _assembler(machine: str) -> str | None:
    prefix = "" if machine == syscalls.MACHINE else TOOLS[machine]
    return prefix if shutil.which(f"{prefix}as") and shutil.which(f"{prefix}objcopy") else None


@pytest.mark.parametrize("machine", sorted(stub.CODE))
def test_the_bytes_are_what_the_source_assembles_to(machine: str, tmp_path: Path) -> None:
    prefix = _assembler(machine)
    if prefix is None:
        pytest.skip(f"no binutils for {machine}")
    (tmp_path / "stub.S").write_text(stub.SOURCES[machine])
    subprocess.run([f"{prefix}as", "-o", "stub.o", "stub.S"], cwd=tmp_path, check=True)
    copy = [f"{prefix}objcopy", "-O", "binary", "-j", ".text", "stub.o", "stub.bin"]
    subprocess.run(copy, cwd=tmp_path, check=True)
    code = (tmp_path / "stub.bin").read_bytes()
    assert code.rstrip(b"\0") == stub.CODE[machine].rstrip(b"\0")


def _start(path: str, *arguments: str, fd: int | None = None) -> tuple[int, int, str]:
    """(errno reported, exit status, output) of a program started through the stub."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    output, stdout = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(stdout, 1)
            stub.arrange(fd if fd is not None else stub.open_stub(), writer)
            stub.run(path, arguments, ["A=b"])
        finally:
            os._exit(99)
    os.close(writer)
    os.close(stdout)
    outcome = stub.read_outcome(reader)
    with os.fdopen(output) as file:
        text = file.read()
    os.close(reader)
    return outcome, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def test_a_program_gets_its_arguments_environment_and_only_three_descriptors() -> None:
    script = 'echo "$0" "$@"; env | grep ^A=; ls /proc/self/fd | tr "\\n" " "'
    outcome, status, text = _start("/bin/sh", "myname", "-c", script, "zero", "one two")
    assert (outcome, status) == (0, 0)
    # ls itself has 3 open: the directory it reads
    assert text == "zero one two\nA=b\n0 1 2 3 "


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/nowhere", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/etc", errno.EACCES)],
)
def test_why_a_program_could_not_be_executed_is_reported(path: str, expected: int) -> None:
    assert _start(path, "x")[:2] == (expected, 127)


def test_a_program_in_a_foreign_format_is_reported(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\x7fELF no")
    (tmp_path / "odd").chmod(0o755)
    assert _start(str(tmp_path / "odd"), "x")[0] == errno.ENOEXEC


def test_cve_2019_5736_a_script_that_runs_proc_self_exe_gets_the_stub(tmp_path: Path) -> None:
    """The kernel runs /proc/self/exe again: that is the stub, which refuses to run twice."""
    interpreter = Path(os.path.realpath("/proc/self/exe"))
    before = hashlib.sha256(interpreter.read_bytes()).digest()
    evil = tmp_path / "run"
    evil.write_text("#!/proc/self/exe\n")
    evil.chmod(0o755)
    assert _start(str(evil), "run") == (0, 127, "")
    assert hashlib.sha256(interpreter.read_bytes()).digest() == before


HOSTILE_LOADER = """
.globl _start
_start: lea  name(%rip), %rdi       # open("/attacked", O_CREAT | O_WRONLY, 0600)
        mov  $0x41, %esi
        mov  $0600, %edx
        mov  $2, %eax
        syscall
        xor  %edi, %edi             # exit(0)
        mov  $60, %eax
        syscall
name:   .asciz "/attacked"
"""


@pytest.mark.root
@pytest.mark.skipif(
    not shutil.which("gcc") or syscalls.MACHINE != "x86_64", reason="needs gcc on x86_64"
)
@pytest.mark.parametrize("through_stub", [False, True], ids=["the attack works", "the stub holds"])
def test_cve_2019_5736_the_images_dynamic_loader_never_runs_in_our_interpreter(
    tmp_path: Path, through_stub: bool
) -> None:
    """The image brings a loader; a naive execve runs it with our interpreter as its program."""
    image = tmp_path / "image"
    for directory in ("lib64", "proc"):
        (image / directory).mkdir(parents=True)
    (tmp_path / "loader.S").write_text(HOSTILE_LOADER)
    loader = str(image / "lib64/ld-linux-x86-64.so.2")
    build = ["gcc", "-nostdlib", "-static-pie", "-o", loader, str(tmp_path / "loader.S")]
    if subprocess.run(build, capture_output=True).returncode:
        pytest.skip("gcc cannot link static programs here")
    (image / "run").write_text("#!/proc/self/exe\n")
    (image / "run").chmod(0o755)

    def attack() -> int:
        syscalls.unshare(flags.CLONE_NEWNS)
        syscalls.mount("none", "/", "", flags.MS_REC | flags.MS_PRIVATE)
        syscalls.mount("/proc", str(image / "proc"), "", flags.MS_BIND | flags.MS_REC)
        fd, (_, writer) = stub.open_stub(), os.pipe2(os.O_CLOEXEC)
        os.chroot(image)
        os.chdir("/")
        pid = os.fork()
        if pid == 0:
            try:
                if through_stub:
                    stub.arrange(fd, writer)
                    stub.run("/run", ["run"], [])
                os.execve("/run", ["run"], {})
            finally:
                os._exit(99)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(attack) == (127 if through_stub else 0)
    assert (image / "attacked").exists() is not through_stub


def test_what_proc_self_exe_leads_to_cannot_be_written() -> None:
    """Not even by root, and not through a new descriptor."""
    fd = stub.open_stub()
    try:
        for opening in (os.O_WRONLY, os.O_RDWR):
            try:
                again = os.open(f"/proc/self/fd/{fd}", opening)
            except OSError:
                continue
            with pytest.raises(PermissionError):
                os.pwrite(again, b"evil", 0)
            with pytest.raises(PermissionError):
                os.ftruncate(again, 0)
            os.close(again)
    finally:
        os.close(fd)


def test_run_without_an_error_pipe_the_stub_ends_at_once() -> None:
    """Otherwise a script with #!/proc/self/exe would run it for ever."""

    def status() -> int:
        pid = os.fork()
        if pid == 0:
            fd = stub.open_stub()
            os.dup2(fd, 100, inheritable=False)
            syscalls.close_range(3, 99)
            syscalls.execveat(100, "", ["/bin/echo", "echo"], [], flags.AT_EMPTY_PATH)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert in_child(status) == 127


@pytest.mark.root
def test_where_memory_files_may_not_run_a_private_read_only_tmpfs_serves() -> None:
    fd = stub._on_private_tmpfs(stub.build(syscalls.MACHINE))
    try:
        with pytest.raises(OSError, match=r"Read-only|busy"):
            os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
        assert _start("/bin/echo", "echo", "hello", fd=fd) == (0, 0, "hello\n")
    finally:
        os.close(fd)


def test_descriptors_may_already_be_in_each_others_places() -> None:
    def crossed() -> tuple[int, int, str]:
        fd = stub.open_stub()
        if fd != 3:
            os.dup2(fd, 3, inheritable=False)
        return _start("/bin/echo", "echo", "crossed", fd=3)

    # the answer's pipe must not be 3: keep it busy first
    assert in_child(lambda: _crossed_in_grandchild(crossed)) == (0, 0, "crossed\n")


def _crossed_in_grandchild(function: object) -> object:
    return in_child(function)  # type: ignore[arg-type]


@pytest.mark.skipif(not shutil.which("qemu-aarch64-static"), reason="no qemu-user-static")
def test_the_aarch64_stub_runs_under_emulation(tmp_path: Path) -> None:
    """Under emulation execve of the stub's argv[0] is real, so a native program can follow."""
    elf = tmp_path / "stub"
    elf.write_bytes(stub.build("aarch64"))
    elf.chmod(0o755)
    reader, writer = os.pipe2(os.O_CLOEXEC)

    def emulate(*command: str) -> int:
        pid = os.fork()
        if pid == 0:
            os.dup2(writer, 3)
            os.execve(
                "/usr/bin/qemu-aarch64-static",
                ["qemu", "-0", command[0], str(elf), *command[1:]],
                {},
            )
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert emulate("/bin/sh", "sh", "-c", "exit 5") == 5
    assert emulate("/nowhere", "x") == 127
    assert int.from_bytes(os.read(reader, 4), "little") == errno.ENOENT
    os.close(reader)
    os.close(writer)


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(stub.StubUnavailable, match="sparc"):
        stub.build("sparc")
