"""Can this machine mount overlayfs here, for this user? Asked once a boot, by trying.

Kernel versions and module lists do not answer it: NFS below, an overlay below (docker in docker), a
security module or a sysctl that forbids user namespaces each make the mount fail. The answer is
kept in `<run>/overlay`, which is gone after a boot.
"""

from __future__ import annotations

import os

from runtime.linux import syscalls
from runtime.snapshots.overlay import OverlaySnapshotter
from runtime.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.images.store import LayerStore
    from runtime.paths import Paths
    from runtime.snapshots.base import Snapshotter

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWUSER = 0x1000_0000
_MS_REC_PRIVATE = 0x4000 | 0x4_0000
_PR_SET_DUMPABLE = 4
_FINE = "fine"


def choose_snapshotter(
    store: LayerStore, *, rootless: bool, warn: Callable[[str], None]
) -> Snapshotter:
    """Overlay where it can be mounted; else copies, and `warn` is told why."""
    problem = overlay_problem(store.paths, rootless=rootless)
    if not problem:
        return OverlaySnapshotter(store, rootless=rootless)
    from runtime.snapshots.copying import CopyingSnapshotter

    warn(
        f"overlayfs cannot be mounted under {store.paths.root} ({problem}): "
        "every container gets a full copy of its image, which is slow and large"
    )
    return CopyingSnapshotter(store, rootless=rootless)


def overlay_problem(paths: Paths, *, rootless: bool) -> str:
    """Why overlay cannot be mounted here; empty if it can. The process must have one thread."""
    remembered = f"{paths.run}/overlay"
    try:
        with open(remembered, encoding="utf-8") as file:
            found = file.read(4096)
        if found:
            return "" if found == _FINE else found
    except FileNotFoundError:
        pass
    paths.create()
    found = _try(paths, rootless) or _FINE
    temporary = f"{remembered}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(found)
    os.rename(temporary, remembered)
    return "" if found == _FINE else found


def _try(paths: Paths, rootless: bool) -> str:
    place = f"{paths.snapshots}/.probe-{os.urandom(6).hex()}"
    reading, writing = os.pipe()
    os.mkdir(place, 0o700)
    try:
        pid = os.fork()
        if pid == 0:
            problem = "it could not be tried"
            try:
                problem = _mount(place, rootless)
            except OSError as error:
                problem = f"{error.strerror or error}"
            finally:
                os.write(writing, problem.encode())
                os._exit(0)
        os.close(writing)
        writing = -1
        problem = os.read(reading, 4096).decode("utf-8", "replace")
        os.waitpid(pid, 0)
        return problem
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)
        remove_tree(place)


def _mount(place: str, rootless: bool) -> str:
    os.chdir(place)
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(name, 0o700)
    if rootless:
        uid, gid = os.geteuid(), os.getegid()
        syscalls.prctl(_PR_SET_DUMPABLE, 1)
        syscalls.unshare(_CLONE_NEWUSER | _CLONE_NEWNS)
        _write("/proc/self/setgroups", b"deny")
        _write("/proc/self/uid_map", b"0 %d 1" % uid)
        _write("/proc/self/gid_map", b"0 %d 1" % gid)
    else:
        syscalls.unshare(_CLONE_NEWNS)
    syscalls.mount("", "/", "", _MS_REC_PRIVATE)
    options = "lowerdir=lower,upperdir=upper,workdir=work"
    syscalls.mount("overlay", "merged", "overlay", 0, options + (",userxattr" if rootless else ""))
    _write("merged/file", b"x")
    os.unlink("merged/file")
    return ""


def _write(path: str, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
