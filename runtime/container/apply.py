"""Performs the steps of a plan in the child that becomes the container.

Everything here runs after the fork, in a process with one thread that must never import a module,
ask the name service or change locale: from `ChangeRoot` on, the files found would be the image's.

Paths of the image are opened relative to the root's descriptor with openat2, so that a symbolic
link of the image leads nowhere but into the image, and mounts are made on descriptors, so that a
path checked is the path used.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.container import steps as s
from runtime.container.copyup import copy_up
from runtime.container.mountpoint import open_mount_point
from runtime.linux import accounts, capabilities, netlink, rlimits, syscalls
from runtime.linux import flags as f
from runtime.linux.safeopen import open_in_root, read_in_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_NO_LINKS = f.RESOLVE_IN_ROOT | f.RESOLVE_NO_SYMLINKS | f.RESOLVE_NO_MAGICLINKS
_CLONE_FD = f.OPEN_TREE_CLONE | f.AT_EMPTY_PATH
_ONTO_FD = f.MOVE_MOUNT_F_EMPTY_PATH | f.MOVE_MOUNT_T_EMPTY_PATH
NULL_DEVICE = os.makedev(1, 3)


class Refused(Exception):
    """The image or the request makes a step impossible; the text is for a person."""


class Init:
    """What one step leaves for a later one."""

    def __init__(self, send_terminal: Callable[[int], None] | None = None) -> None:
        self.root_fd = -1
        self.sources: dict[str, int] = {}
        self.uid = 0
        self.gid = 0
        self.groups: tuple[int, ...] = ()
        self.home = "/"
        self.null_fd = -1  # a checked /dev/null of the container
        self.empty_fd = -1  # an empty read-only directory to hide others behind
        self.send_terminal = send_terminal


def perform(step: s.Step, init: Init) -> None:
    """Do one step. Raises: OSError, Refused."""
    _PERFORMERS[type(step)](step, init)


# --- host side --------------------------------------------------------------------------------


def _join_cgroups(step: s.JoinCgroups, init: Init) -> None:
    for path in step.files:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # To `tasks`, and as a process of one thread: `cgroup.procs` would take a global lock
            # whose grace period costs 8 ms.
            os.write(fd, b"0")
        finally:
            os.close(fd)


def _unshare(step: s.Unshare, init: Init) -> None:
    syscalls.unshare(step.flags)


def _join_session_keyring(step: s.JoinSessionKeyring, init: Init) -> None:
    try:
        syscalls.join_session_keyring(step.name)
    except OSError as error:
        # A kernel without keys, or a quota of keys that is used up: docker goes on as well.
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EPERM):
            raise


def _make_mounts_private(step: s.MakeMountsPrivate, init: Init) -> None:
    syscalls.mount("", "/", "", f.MS_REC | f.MS_PRIVATE)


def _clone_source(step: s.CloneSource, init: Init) -> None:
    recursive = f.AT_RECURSIVE if step.recursive else 0
    fd = syscalls.open_tree(f.AT_FDCWD, step.path, f.OPEN_TREE_CLONE | recursive)
    syscalls.mount_setattr(fd, "", f.AT_EMPTY_PATH | recursive, propagation=step.propagation)
    if step.attributes_set:
        below = f.AT_RECURSIVE if step.attributes_recursive else 0
        syscalls.mount_setattr(fd, "", f.AT_EMPTY_PATH | below, attr_set=step.attributes_set)
    init.sources[step.key] = fd


def _mount_root(step: s.MountRoot, init: Init) -> None:
    plan = step.snapshot
    if plan.filesystem == "bind":
        syscalls.mount(plan.source, step.target, "", f.MS_BIND | f.MS_REC)
        if plan.read_only:
            syscalls.mount("", step.target, "", f.MS_BIND | f.MS_REMOUNT | f.MS_RDONLY)
    else:
        os.chdir(plan.directory)  # the names in `data` are relative, to fit in one page
        syscalls.mount(
            plan.source,
            step.target,
            plan.filesystem,
            f.MS_RDONLY if plan.read_only else 0,
            plan.data,
        )
    init.root_fd = os.open(step.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(init.root_fd)


# --- the kernel's file systems ------------------------------------------------------------------


def _open_frame_directory(path: str, init: Init) -> int:
    """A directory that is really one: procfs behind a link of the image would be a fake."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return syscalls.openat2(init.root_fd, path, flags, 0, _NO_LINKS)
    except FileNotFoundError:
        parent, _, name = path.rstrip("/").rpartition("/")
        parent_fd = _open_frame_directory(parent or "/", init)
        os.mkdir(name, 0o755, dir_fd=parent_fd)
        os.close(parent_fd)
        return syscalls.openat2(init.root_fd, path, flags, 0, _NO_LINKS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Refused(f"{path} of the image is not a directory but a link or a file") from error
        raise


def _mount_at(path: str, source: str, kind: str, flags: int, data: str, init: Init) -> None:
    fd = _open_frame_directory(path, init)
    os.fchdir(fd)
    syscalls.mount(source or kind, ".", kind, flags, data)
    os.close(fd)
    os.fchdir(init.root_fd)


def _mount_kernel_filesystem(step: s.MountKernelFilesystem, init: Init) -> None:
    _mount_at(step.destination, step.source, step.type, step.flags, step.data, init)


def _mount_cgroups(step: s.MountCgroups, init: Init) -> None:
    flags = f.MS_NOSUID | f.MS_NODEV | f.MS_NOEXEC
    final = flags | (f.MS_RDONLY if step.read_only else 0)
    if step.version == 2:
        _mount_at(step.destination, "cgroup", "cgroup2", final, "", init)
        return
    _mount_at(step.destination, "tmpfs", "tmpfs", flags, "mode=755", init)
    top = _open_frame_directory(step.destination, init)
    for hierarchy in step.hierarchies:
        name = hierarchy.removeprefix("name=")
        os.mkdir(name, 0o755, dir_fd=top)
        options = hierarchy if "=" not in hierarchy else "none," + hierarchy
        _mount_at(f"{step.destination}/{name}", "cgroup", "cgroup", final, options, init)
        if "," in name:
            for controller in name.split(","):
                os.symlink(name, controller, dir_fd=top)
    os.fchdir(top)
    if step.read_only:
        syscalls.mount("", ".", "", f.MS_BIND | f.MS_REMOUNT | final)
    os.close(top)
    os.fchdir(init.root_fd)


def _make_device(step: s.MakeDevice, init: Init) -> None:
    device = step.device
    parent, _, name = device.path.rpartition("/")
    parent_fd = _open_frame_directory(parent, init)
    kind = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    before = os.umask(0)
    number = os.makedev(device.major, device.minor)
    os.mknod(name, kind[device.type] | device.mode, number, dir_fd=parent_fd)
    os.umask(before)
    if device.uid or device.gid:
        os.chown(name, device.uid, device.gid, dir_fd=parent_fd, follow_symlinks=False)
    os.close(parent_fd)


def _make_link(step: s.MakeLink, init: Init) -> None:
    parent, _, name = step.path.rpartition("/")
    parent_fd = _open_frame_directory(parent, init)
    os.symlink(step.target, name, dir_fd=parent_fd)
    os.close(parent_fd)


# --- inside the new root ------------------------------------------------------------------------


def _change_root(step: s.ChangeRoot, init: Init) -> None:
    old = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(init.root_fd)
    syscalls.pivot_root(".", ".")
    # The old root now lies on top of the new one, at the same place.
    os.fchdir(old)
    syscalls.mount("", ".", "", f.MS_REC | f.MS_PRIVATE)
    syscalls.umount2(".", f.MNT_DETACH)
    os.close(old)
    os.chdir("/")
    # The descriptor from before stands below what the kernel now calls "/".
    os.close(init.root_fd)
    init.root_fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _attach_source(step: s.AttachSource, init: Init) -> None:
    source = init.sources.pop(step.key)
    is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
    if step.replace_node:
        parent, _, name = step.destination.rpartition("/")
        parent_fd = _open_frame_directory(parent, init)
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent_fd))
        target = syscalls.openat2(parent_fd, name, os.O_PATH | os.O_NOFOLLOW, 0, f.RESOLVE_BENEATH)
        os.close(parent_fd)
    else:
        target = open_mount_point(init.root_fd, step.destination, directory=is_directory)
    if step.copy_up and is_directory:
        copy_up(target, source)
    syscalls.move_mount(source, "", target, "", _ONTO_FD)
    os.close(source)
    os.close(target)


def _mount_tmpfs(step: s.MountTmpfs, init: Init) -> None:
    fd = open_mount_point(init.root_fd, step.destination, directory=True)
    os.fchdir(fd)
    syscalls.mount("tmpfs", ".", "tmpfs", step.flags, step.data)
    os.close(fd)
    os.chdir("/")


def _mask_path(step: s.MaskPath, init: Init) -> None:
    try:
        target = syscalls.openat2(init.root_fd, step.path, os.O_PATH, 0, _NO_LINKS)
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(os.fstat(target).st_mode):
        if init.empty_fd < 0:
            init.empty_fd = _empty_directory()
        cover = syscalls.open_tree(init.empty_fd, "", _CLONE_FD)
    else:
        if init.null_fd < 0:
            init.null_fd = _checked_null(init)
        cover = syscalls.open_tree(init.null_fd, "", _CLONE_FD)
    syscalls.move_mount(cover, "", target, "", _ONTO_FD)
    os.close(cover)
    os.close(target)


def _empty_directory() -> int:
    context = syscalls.fsopen("tmpfs")
    for key, setting in (("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "0755")):
        syscalls.fsconfig(context, f.FSCONFIG_SET_STRING, key, setting)
    syscalls.fsconfig(context, f.FSCONFIG_CMD_CREATE)
    attributes = f.MOUNT_ATTR_RDONLY | f.MOUNT_ATTR_NOSUID | f.MOUNT_ATTR_NODEV
    fd = syscalls.fsmount(context, f.FSMOUNT_CLOEXEC, attributes | f.MOUNT_ATTR_NOEXEC)
    os.close(context)
    return fd


def _checked_null(init: Init) -> int:
    fd = syscalls.openat2(init.root_fd, "/dev/null", os.O_PATH | os.O_NOFOLLOW, 0, _NO_LINKS)
    status = os.fstat(fd)
    if not stat.S_ISCHR(status.st_mode) or status.st_rdev != NULL_DEVICE:
        raise Refused("/dev/null of the container is not the null device")
    return fd


def _make_readonly(step: s.MakeReadonly, init: Init) -> None:
    try:
        target = syscalls.openat2(init.root_fd, step.path, os.O_PATH, 0, _NO_LINKS)
    except (FileNotFoundError, NotADirectoryError):
        return
    cover = syscalls.open_tree(target, "", _CLONE_FD | f.AT_RECURSIVE)
    syscalls.mount_setattr(
        cover, "", f.AT_EMPTY_PATH | f.AT_RECURSIVE, attr_set=f.MOUNT_ATTR_RDONLY
    )
    syscalls.move_mount(cover, "", target, "", _ONTO_FD)
    os.close(cover)
    os.close(target)


def _make_root_readonly(step: s.MakeRootReadonly, init: Init) -> None:
    syscalls.mount_setattr(init.root_fd, "", f.AT_EMPTY_PATH, attr_set=f.MOUNT_ATTR_RDONLY)


def _set_hostname(step: s.SetHostname, init: Init) -> None:
    if step.name:
        syscalls.sethostname(step.name)
    if step.domain:
        syscalls.setdomainname(step.domain)


def _set_sysctl(step: s.SetSysctl, init: Init) -> None:
    path = "/proc/sys/" + step.name.replace(".", "/")
    fd = syscalls.openat2(init.root_fd, path, os.O_WRONLY, 0, _NO_LINKS)
    os.write(fd, step.setting.encode())
    os.close(fd)


def _bring_loopback_up(step: s.BringLoopbackUp, init: Init) -> None:
    netlink.loopback_up()


def _reopen_null(step: s.ReopenNull, init: Init) -> None:
    for fd in (0, 1, 2):
        status = os.fstat(fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == NULL_DEVICE:
            own = syscalls.openat2(init.root_fd, "/dev/null", os.O_RDWR, 0, _NO_LINKS)
            if os.fstat(own).st_rdev != NULL_DEVICE:
                raise Refused("/dev/null of the container is not the null device")
            os.dup2(own, fd)
            os.close(own)


def _open_terminal(step: s.OpenTerminal, init: Init) -> None:
    from runtime.container import tty  # loaded by the parent before the fork

    master, slave = tty.open_pty_in(init.root_fd)
    os.fchown(slave, init.uid, -1)
    dev = _open_frame_directory("/dev", init)
    os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=dev))
    target = syscalls.openat2(dev, "console", os.O_PATH | os.O_NOFOLLOW, 0, f.RESOLVE_BENEATH)
    cover = syscalls.open_tree(slave, "", _CLONE_FD)
    syscalls.move_mount(cover, "", target, "", _ONTO_FD)
    for fd in (cover, target, dev):
        os.close(fd)
    assert init.send_terminal is not None, "a terminal needs a socket to be sent over"
    init.send_terminal(master)
    os.close(master)
    for fd in (0, 1, 2):
        os.dup2(slave, fd)
    os.close(slave)
    tty.make_controlling(0)


# --- the process --------------------------------------------------------------------------------


def _look_up_user(step: s.LookUpUser, init: Init) -> None:
    if not step.user and (step.uid or step.gid):
        init.uid, init.gid, init.groups = step.uid, step.gid, step.additional_gids
        return
    found = accounts.resolve(
        step.user,
        accounts.parse_passwd(_read_accounts("/etc/passwd", init)),
        accounts.parse_group(_read_accounts("/etc/group", init)),
    )
    init.uid, init.gid, init.home = found.uid, found.gid, found.home
    init.groups = tuple(dict.fromkeys((*found.groups, *step.additional_gids)))


def _read_accounts(path: str, init: Init) -> bytes:
    """An image may do without the file; one that is no file, or endless, is refused."""
    try:
        return read_in_root(init.root_fd, path, accounts.MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _make_working_directory(step: s.MakeWorkingDirectory, init: Init) -> None:
    os.close(open_mount_point(init.root_fd, step.path, directory=True))


def _set_rlimits(step: s.SetRlimits, init: Init) -> None:
    for limit in step.limits:
        rlimits.apply(rlimits.ResourceLimit.of(limit.type, limit.soft, limit.hard))


def _set_oom_score(step: s.SetOomScore, init: Init) -> None:
    # /proc/self is a link of the kernel's own making.
    fd = open_in_root(init.root_fd, "/proc/self/oom_score_adj", os.O_WRONLY)
    os.write(fd, str(step.adjustment).encode())
    os.close(fd)


def _set_no_new_privileges(step: s.SetNoNewPrivileges, init: Init) -> None:
    syscalls.prctl(f.PR_SET_NO_NEW_PRIVS, 1)


def _install_filter(step: s.InstallFilter, init: Init) -> None:
    syscalls.seccomp_set_mode_filter(step.program)


def _drop_bounding_set(step: s.DropBoundingSet, init: Init) -> None:
    capabilities.drop_bounding(step.keep)


def _become_user(step: s.BecomeUser, init: Init) -> None:
    syscalls.prctl(f.PR_SET_KEEPCAPS, 1)
    for fd in (0, 1, 2):
        _give_stdio(fd, init.uid)
    if step.set_groups:
        os.setgroups(init.groups)
    os.setresgid(init.gid, init.gid, init.gid)
    os.setresuid(init.uid, init.uid, init.uid)
    # A pyreg that was started with fewer capabilities than root's cannot hand out the others.
    _, held, _ = syscalls.capget()
    capabilities.set_all(
        step.effective & held, step.permitted & held, step.inheritable & held, step.ambient & held
    )
    os.umask(step.umask)


def _give_stdio(fd: int, uid: int) -> None:
    """Let the user reopen /dev/stdout: only for pipes, a file or device of the host is not ours."""
    status = os.fstat(fd)
    if stat.S_ISFIFO(status.st_mode) and status.st_uid != uid:
        try:
            os.fchown(fd, uid, -1)
        except PermissionError:
            pass  # somebody else's pipe, in a user namespace


_PERFORMERS: dict[type, Callable[[Any, Init], None]] = {
    s.JoinCgroups: _join_cgroups,
    s.Unshare: _unshare,
    s.JoinSessionKeyring: _join_session_keyring,
    s.MakeMountsPrivate: _make_mounts_private,
    s.CloneSource: _clone_source,
    s.MountRoot: _mount_root,
    s.MountKernelFilesystem: _mount_kernel_filesystem,
    s.MountCgroups: _mount_cgroups,
    s.MakeDevice: _make_device,
    s.MakeLink: _make_link,
    s.ChangeRoot: _change_root,
    s.AttachSource: _attach_source,
    s.MountTmpfs: _mount_tmpfs,
    s.MaskPath: _mask_path,
    s.MakeReadonly: _make_readonly,
    s.MakeRootReadonly: _make_root_readonly,
    s.SetHostname: _set_hostname,
    s.SetSysctl: _set_sysctl,
    s.BringLoopbackUp: _bring_loopback_up,
    s.ReopenNull: _reopen_null,
    s.OpenTerminal: _open_terminal,
    s.LookUpUser: _look_up_user,
    s.MakeWorkingDirectory: _make_working_directory,
    s.SetRlimits: _set_rlimits,
    s.SetOomScore: _set_oom_score,
    s.SetNoNewPrivileges: _set_no_new_privileges,
    s.InstallFilter: _install_filter,
    s.DropBoundingSet: _drop_bounding_set,
    s.BecomeUser: _become_user,
}
