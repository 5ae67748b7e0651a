"""The calls do what the kernel says, and failures name the call and the path."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.linux import flags, syscall_tables, syscalls
from tests.runtime.linux.forked import in_child


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_call_numbers_agree_with_the_tables_from_the_kernel_headers(machine: str) -> None:
    words = {"x86_64": syscall_tables.X86_64, "aarch64": syscall_tables.AARCH64}[machine].split()
    for name, number in syscalls.NUMBERS[machine].items():
        assert words[number] == name


def test_a_failure_names_the_call_and_both_paths() -> None:
    with pytest.raises(FileNotFoundError, match=r"mount: No such file.*'there' -> '/nowhere/at'"):
        syscalls.mount("there", "/nowhere/at", "tmpfs")


def test_mount_options_longer_than_a_page_are_refused_instead_of_cut() -> None:
    with pytest.raises(OSError, match="mount") as failure:
        syscalls.mount("overlay", "/nowhere", "overlay", 0, "lowerdir=" + "l/AB12:" * 1000)
    assert failure.value.errno == errno.E2BIG


def test_a_nul_byte_in_a_path_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        syscalls.umount2("/tmp\0/x")


def test_openat2_keeps_to_the_root_and_closes_on_exec(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc")
    root = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError, match="openat2"):
            syscalls.openat2(root, "out/passwd", os.O_RDONLY, 0, flags.RESOLVE_BENEATH)
        fd = syscalls.openat2(root, ".", os.O_RDONLY, 0, flags.RESOLVE_BENEATH)
        assert not os.get_inheritable(fd)
        os.close(fd)
    finally:
        os.close(root)


def test_close_range_really_closes() -> None:
    def closed() -> list[str]:
        copies = [os.dup2(0, fd) for fd in range(300, 305)]
        syscalls.close_range(copies[0], copies[-1])
        return [str(fd) for fd in copies if os.path.exists(f"/proc/self/fd/{fd}")]

    assert in_child(closed) == []


def test_a_sealed_memory_file_cannot_be_written_even_by_root() -> None:
    fd = syscalls.memfd("sealed", b"content")
    try:
        assert os.pread(fd, 100, 0) == b"content"
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def test_clone3_forks_and_gives_a_pidfd() -> None:
    pid, pidfd = syscalls.clone3(flags.CLONE_PIDFD)
    if pid == 0:
        os._exit(7)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        with pytest.raises(ProcessLookupError):
            syscalls.pidfd_send_signal(pidfd, 9)
    finally:
        os.close(pidfd)


@pytest.mark.root
def test_clone3_into_new_namespaces_makes_the_child_pid_1() -> None:
    pid, pidfd = syscalls.clone3(flags.CLONE_NEWPID | flags.CLONE_NEWUTS)
    if pid == 0:
        syscalls.sethostname("inside")
        os._exit(os.getpid() if os.uname().nodename == "inside" else 99)
    assert pidfd == -1
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert os.uname().nodename != "inside"


def test_the_interpreter_works_after_clone3() -> None:
    """The child must be able to import, fork again and run threads, as after os.fork."""
    code = """
import os, sys
sys.path.insert(0, os.getcwd())
from runtime.linux import syscalls
pid, _ = syscalls.clone3()
if pid == 0:
    # forked before there is a thread: one that was joined may still be on its way out
    grandchild = os.fork()
    if grandchild == 0:
        os._exit(3)
    import threading
    seen = []
    t = threading.Thread(target=lambda: seen.append(1)); t.start(); t.join()
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) + seen[0])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("4\n", "")


def test_execveat_runs_by_descriptor_with_exactly_that_environment() -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writer, 1)
        fd = os.open("/usr/bin/env", os.O_RDONLY | os.O_CLOEXEC)
        syscalls.execveat(fd, "", ["env"], ["ONLY=this"], flags.AT_EMPTY_PATH)
    os.close(writer)
    with os.fdopen(reader) as file:
        assert file.read() == "ONLY=this\n"
    os.waitpid(pid, 0)


@pytest.mark.root
def test_a_user_mount_is_placed_after_pivot_so_links_of_the_image_lead_nowhere(
    tmp_path: Path,
) -> None:
    """CVE-2019-18837 and its kin: the target is a link to a directory of the host."""
    for name in ("source", "victim", "image"):
        (tmp_path / name).mkdir()
    (tmp_path / "source/marker").write_text("mounted")
    (tmp_path / "image/data").symlink_to(tmp_path / "victim")

    def inside() -> tuple[int, bool]:
        syscalls.unshare(flags.CLONE_NEWNS)
        syscalls.mount("none", "/", "", flags.MS_REC | flags.MS_PRIVATE)
        tree = syscalls.open_tree(
            flags.AT_FDCWD, str(tmp_path / "source"), flags.OPEN_TREE_CLONE | flags.AT_RECURSIVE
        )
        syscalls.mount_setattr(
            tree,
            "",
            flags.AT_EMPTY_PATH | flags.AT_RECURSIVE,
            attr_set=flags.MOUNT_ATTR_RDONLY,
        )
        syscalls.mount(str(tmp_path / "image"), str(tmp_path / "image"), "", flags.MS_BIND)
        os.chdir(tmp_path / "image")
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", flags.MNT_DETACH)
        os.chdir("/")
        try:
            syscalls.move_mount(
                tree,
                "",
                flags.AT_FDCWD,
                "/data",
                flags.MOVE_MOUNT_F_EMPTY_PATH | flags.MOVE_MOUNT_T_SYMLINKS,
            )
        except OSError as error:
            return error.errno or -1, False
        return 0, os.path.exists("/data/marker")

    assert in_child(inside) == (errno.ENOENT, False)
    assert os.listdir(tmp_path / "victim") == []


@pytest.mark.root
def test_a_new_file_system_by_descriptor() -> None:
    context = syscalls.fsopen("tmpfs")
    syscalls.fsconfig(context, flags.FSCONFIG_SET_STRING, "size", "64k")
    syscalls.fsconfig(context, flags.FSCONFIG_CMD_CREATE)
    mount_fd = syscalls.fsmount(context)
    try:
        assert syscalls.fstatfs_type(mount_fd) == flags.TMPFS_MAGIC
        os.mkdir("made", dir_fd=mount_fd)
    finally:
        os.close(mount_fd)
        os.close(context)


def test_nothing_heavy_is_imported() -> None:
    """These modules are on the path of every container's start."""
    code = """
import sys
import runtime.linux.syscalls, runtime.linux.flags, runtime.linux.capabilities
import runtime.linux.seccomp, runtime.linux.stub, runtime.linux.rlimits, runtime.linux.pidfd
import runtime.linux.mountinfo, runtime.linux.idmap, runtime.linux.netlink
import runtime.linux.safeopen, runtime.linux.accounts
import runtime.cgroups.detect
heavy = {"dataclasses", "typing", "enum", "pathlib", "subprocess", "logging", "tempfile", "shutil",
         "asyncio", "hashlib", "socket", "ssl", "argparse", "tarfile", "threading", "re",
         "contextlib", "selectors", "signal", "inspect"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, '.'){code}"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_signals_of_the_c_library_get_their_default_back() -> None:
    """32 and 33 cannot be set through libc; a caller that ignores them must not be inherited."""
    import ctypes
    import subprocess
    import sys

    ignore_32 = (
        "import ctypes; from runtime.linux import syscalls as s\n"
        "s._call('rt_sigaction', 32, (1).to_bytes(8, 'little') + bytes(24), None, 8)\n"
        "def ignored():\n"
        "    text = open('/proc/self/status').read().split('SigIgn:')[1].split()[0]\n"
        "    return bool(int(text, 16) >> 31 & 1)\n"
        "assert ignored()\n"
        "s.default_signal(32)\n"
        "assert not ignored()\n"
    )
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    subprocess.run([sys.executable, "-c", ignore_32], check=True)
