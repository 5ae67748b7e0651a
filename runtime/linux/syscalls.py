"""The Linux system calls that Python does not offer, under the kernel's own names.

Each function is one call: it encodes its arguments, retries EINTR, and turns a failure into an
`OSError` that names the call and the paths. No policy lives here. Numbers are written out because
glibc has no wrapper for half of them and `os.unshare`/`os.setns` only exist since Python 3.12.

A child that has entered a container may call all of these: nothing here imports, looks up a
symbol, or asks the name service at call time.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINE = os.uname().machine

# From 424 on every architecture shares one table.
_SHARED = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "fspick": 433,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}

NUMBERS = {
    "x86_64": {
        "rt_sigaction": 13,
        "socket": 41,
        "capget": 125,
        "fstatfs": 138,
        "capset": 126,
        "pivot_root": 155,
        "prctl": 157,
        "mount": 165,
        "umount2": 166,
        "sethostname": 170,
        "setdomainname": 171,
        "keyctl": 250,
        "unshare": 272,
        "syncfs": 306,
        "setns": 308,
        "renameat2": 316,
        "seccomp": 317,
        "bpf": 321,
        "execveat": 322,
        **_SHARED,
    },
    "aarch64": {
        "umount2": 39,
        "fstatfs": 44,
        "mount": 40,
        "pivot_root": 41,
        "capget": 90,
        "capset": 91,
        "unshare": 97,
        "rt_sigaction": 134,
        "sethostname": 161,
        "setdomainname": 162,
        "prctl": 167,
        "keyctl": 219,
        "syncfs": 267,
        "setns": 268,
        "socket": 198,
        "renameat2": 276,
        "seccomp": 277,
        "bpf": 280,
        "execveat": 281,
        **_SHARED,
    },
}

_NUMBER = NUMBERS.get(MACHINE, _SHARED)

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long

# clone3 must come back holding the interpreter's lock in both processes: PyDLL keeps it.
_python = ctypes.PyDLL(None, use_errno=True)
_forking_syscall = _python.syscall
_forking_syscall.restype = ctypes.c_long

CAPABILITY_VERSION_3 = 0x20080522
F_ADD_SEALS = 1033
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def _failure(name: str, code: int, first: str = "", second: str = "") -> OSError:
    """An OSError of the right subclass that says `name: reason: 'first' -> 'second'`."""
    message = f"{name}: {os.strerror(code)}"
    if second:
        return OSError(code, message, first, None, second)
    return OSError(code, message, first) if first else OSError(code, message)


def _call(
    name: str,
    *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None,
    about: str = "",
    and_about: str = "",
) -> int:
    number = _NUMBER.get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: the call's number is not known on {MACHINE}")
    # A bare Python int would be passed as a 32-bit C int.
    words = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    while True:
        result = int(_syscall(ctypes.c_long(number), *words))
        if result != -1:
            return result
        code = ctypes.get_errno()
        if code != errno.EINTR:
            raise _failure(name, code, about, and_about)


def _encode(text: str) -> bytes:
    """Bytes for the kernel; a NUL would silently cut the name short, so it is refused."""
    encoded = os.fsencode(text)
    if b"\0" in encoded:
        raise ValueError(f"NUL byte in {text!r}")
    return encoded


def _encode_or_null(text: str) -> bytes | None:
    return _encode(text) if text else None


# --- mounts -------------------------------------------------------------------------------------


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Empty `fstype` and `data` are passed as NULL.

    Raises: OSError(E2BIG) if `data` does not fit in one page; the kernel would cut it silently.
    """
    options = _encode_or_null(data)
    if options is not None and len(options) >= PAGE_BYTES:
        raise _failure("mount", errno.E2BIG, source, target)
    _call(
        "mount",
        _encode(source),
        _encode(target),
        _encode_or_null(fstype),
        flags,
        options,
        about=source or fstype or "none",
        and_about=target,
    )


def umount2(target: str, flags: int = 0) -> None:
    _call("umount2", _encode(target), flags, about=target)


def pivot_root(new_root: str, put_old: str) -> None:
    _call("pivot_root", _encode(new_root), _encode(put_old), about=new_root, and_about=put_old)


def open_tree(dirfd: int, path: str, flags: int = 0) -> int:
    """A descriptor of the mount at `path`, a detached copy with OPEN_TREE_CLONE; close-on-exec."""
    return _call("open_tree", dirfd, _encode(path), flags | os.O_CLOEXEC, about=path)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int = 0) -> None:
    _call(
        "move_mount",
        from_fd,
        _encode(from_path),
        to_fd,
        _encode(to_path),
        flags,
        about=from_path or f"descriptor {from_fd}",
        and_about=to_path,
    )


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int = 0,
    *,
    attr_set: int = 0,
    attr_clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """Change MOUNT_ATTR_* of a mount, of the whole tree with AT_RECURSIVE. Kernel 5.12."""
    attributes = struct.pack("=QQQQ", attr_set, attr_clear, propagation, userns_fd)
    _call(
        "mount_setattr",
        dirfd,
        _encode(path),
        flags,
        attributes,
        len(attributes),
        about=path or f"descriptor {dirfd}",
    )


def fsopen(fstype: str, flags: int = 1) -> int:
    """A configuration context for a new file system; `flags` is FSOPEN_CLOEXEC unless told."""
    return _call("fsopen", _encode(fstype), flags, about=fstype)


def fsconfig(fd: int, command: int, key: str = "", value: str = "", aux: int = 0) -> None:
    _call("fsconfig", fd, command, _encode_or_null(key), _encode_or_null(value), aux, about=key)


def fsmount(fd: int, flags: int = 1, attributes: int = 0) -> int:
    """A detached mount of a created context, to be placed with `move_mount`; close-on-exec."""
    return _call("fsmount", fd, flags, attributes)


# --- namespaces and processes -------------------------------------------------------------------


def unshare(flags: int) -> None:
    _call("unshare", flags)


def setns(fd: int, nstype: int = 0) -> None:
    """Join a namespace by its file, or several of a process by its pidfd and CLONE_NEW* flags."""
    _call("setns", fd, nstype)


def clone3(flags: int = 0, *, cgroup_fd: int = -1, exit_signal: int = 17) -> tuple[int, int]:
    """Fork with clone3(2); return (pid, pidfd): (0, -1) in the child.

    `flags` may hold CLONE_NEW*, CLONE_PARENT and CLONE_PIDFD (else pidfd is -1). With `cgroup_fd`,
    a directory of a v2 hierarchy, the child is born in that cgroup. The interpreter is told as by
    `os.fork`. Never pass CLONE_VM. `exit_signal` is SIGCHLD.

    Raises: OSError; ENOSYS before kernel 5.3 or under a seccomp filter.
    """
    if cgroup_fd >= 0:
        flags |= 0x200000000  # CLONE_INTO_CGROUP
    pidfd = ctypes.c_int(-1)
    arguments = struct.pack(
        "=11Q", flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, max(cgroup_fd, 0)
    )
    number, buffer = ctypes.c_long(_NUMBER["clone3"]), ctypes.c_char_p(arguments)
    size = ctypes.c_long(len(arguments))
    _python.PyOS_BeforeFork()
    pid = int(_forking_syscall(number, buffer, size))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0, -1
    code = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise _failure("clone3", code)
    return pid, pidfd.value


def execveat(
    dirfd: int, path: str, arguments: Sequence[str], environment: Sequence[str], flags: int = 0
) -> None:
    """Replace this process; only returns by raising. `environment` holds `NAME=value` strings."""
    argv = _string_array(arguments)
    envp = _string_array(environment)
    _call("execveat", dirfd, _encode(path), argv, envp, flags, about=path or f"descriptor {dirfd}")


def _string_array(strings: Sequence[str]) -> ctypes.Array[ctypes.c_char]:
    array = (ctypes.c_char_p * (len(strings) + 1))(*(_encode(text) for text in strings), None)
    return array  # type: ignore[return-value]


def pidfd_open(pid: int, flags: int = 0) -> int:
    return _call("pidfd_open", pid, flags, about=f"pid {pid}")


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send a signal to exactly this process; ProcessLookupError if it has been reaped."""
    _call("pidfd_send_signal", pidfd, signal, None, 0)


def pidfd_getfd(pidfd: int, target_fd: int) -> int:
    return _call("pidfd_getfd", pidfd, target_fd, 0)


def default_signal(number: int) -> None:
    """Give a signal its default disposition; rt_sigaction(2).

    The C library refuses this for the two real-time signals it uses itself (32 and 33), and a
    caller that ignores them would have a container inherit it.
    """
    # struct kernel_sigaction of zeros: SIG_DFL, no flags, no restorer, an empty mask of 8 bytes
    _call("rt_sigaction", number, bytes(32), None, 8, about=f"signal {number}")


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    return _call("prctl", option, arg2, arg3, arg4, arg5)


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of this thread as bit sets."""
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _call("capget", header, data)
    low_e, low_p, low_i, high_e, high_p, high_i = struct.unpack("=6I", data.raw)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    sets = (effective, permitted, inheritable)
    low, high = [s & 0xFFFFFFFF for s in sets], [s >> 32 for s in sets]
    _call("capset", header, struct.pack("=6I", *low, *high))


def sethostname(name: str) -> None:
    encoded = _encode(name)
    _call("sethostname", encoded, len(encoded), about=name)


def setdomainname(name: str) -> None:
    encoded = _encode(name)
    _call("setdomainname", encoded, len(encoded), about=name)


def join_session_keyring(name: str) -> int:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): a session keyring of our own; its serial number."""
    return _call("keyctl", 1, _encode(name), about=name)


def keyctl_setperm(serial: int, permissions: int) -> None:
    _call("keyctl", 5, serial, permissions)


def seccomp_set_mode_filter(program: bytes, flags: int = 0) -> int:
    """Install a classic BPF program (8 bytes an instruction) on this thread and its children."""
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("=HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    return _call("seccomp", 1, flags, fprog)


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2); `attributes` is the packed union bpf_attr, whose pointers the caller keeps alive."""
    return _call("bpf", command, attributes, len(attributes))


# --- files --------------------------------------------------------------------------------------


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open `path` under the RESOLVE_* rules; always close-on-exec. Kernel 5.6.

    Raises: OSError; EXDEV or ELOOP when the rules refuse the path, EAGAIN when a concurrent rename
    makes the kernel unsure (try again).
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve)
    return _call("openat2", dirfd, _encode(path), how, len(how), about=path)


def renameat2(from_fd: int, from_path: str, to_fd: int, to_path: str, flags: int = 0) -> None:
    _call(
        "renameat2",
        from_fd,
        _encode(from_path),
        to_fd,
        _encode(to_path),
        flags,
        about=from_path,
        and_about=to_path,
    )


def fstatfs_type(fd: int) -> int:
    """The kind of file system a descriptor is on, as one of the *_MAGIC numbers."""
    buffer = ctypes.create_string_buffer(256)
    _call("fstatfs", fd, buffer)
    kind: int = struct.unpack_from("=q", buffer.raw)[0]
    return kind & 0xFFFFFFFF


def socket(family: int, kind: int, protocol: int) -> int:
    """A bare socket, for those that must not wait for the `socket` module to load."""
    return _call("socket", family, kind, protocol)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close (or, with CLOSE_RANGE_CLOEXEC, mark) every descriptor from first to last, inclusive."""
    _call("close_range", first, last, flags)


def syncfs(fd: int) -> None:
    _call("syncfs", fd)


def memfd(name: str, content: bytes, *, executable: bool = False) -> int:
    """A sealed memory file with this content: nobody, root included, can change it any more.

    Close-on-exec. `executable` keeps execveat working where vm.memfd_noexec is 1.
    """
    encoded_flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, encoded_flags | (0x10 if executable else 0x8))  # MFD_[NO]EXEC*
    except OSError as error:
        if error.errno != errno.EINVAL:  # kernels before 6.3 do not know the two flags
            raise
        fd = os.memfd_create(name, encoded_flags)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, F_ADD_SEALS, 0xF)  # SEAL | SHRINK | GROW | WRITE
    except BaseException:
        os.close(fd)
        raise
    return fd
