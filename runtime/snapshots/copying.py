"""Snapshots as full copies, where overlayfs cannot be mounted.

Slow and large, and it works everywhere: the layers are merged into one tree, the base first, with
overlay's marks carried out instead of shown. Where the file system can share blocks (btrfs, XFS),
copy_file_range does.
"""

from __future__ import annotations

import errno
import os
import stat

from runtime.errors import SnapshotError, SystemCallFailed
from runtime.images.store import raise_if_full
from runtime.paths import layer_name
from runtime.snapshots import record
from runtime.snapshots.base import MountPlan
from runtime.snapshots.record import SnapshotRecord
from runtime.trees import remove_entry, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.digest import Digest
    from runtime.images.store import LayerStore

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_AT_ONCE = 1 << 30


class CopyingSnapshotter:
    """Snapshots of the layers of one store. Keeps nothing in memory."""

    def __init__(self, store: LayerStore, *, rootless: bool = False) -> None:
        self._store = store
        self._paths = store.paths
        self._rootless = rootless

    def prepare(self, key: str, layers: tuple[Digest, ...], *, volatile: bool = False) -> MountPlan:
        """See `Snapshotter.prepare`; `volatile` changes nothing here."""
        return self._begin(key, layers, writable=True)

    def view(self, key: str, layers: tuple[Digest, ...]) -> MountPlan:
        """See `Snapshotter.view`."""
        return self._begin(key, layers, writable=False)

    def mounts(self, key: str) -> MountPlan:
        """See `Snapshotter.mounts`."""
        found = record.read(self._paths, key)
        if found.kind != "copying":
            raise SnapshotError(
                f"snapshot {key} is an overlay, which this machine cannot mount now",
                hint="load the overlay module, or remove the container and create it again",
            )
        return self._plan(key, found)

    def commit(self, key: str, diff_id: Digest, *, entries: int, size: int) -> None:
        """Raises: SnapshotError, always: a copy does not know what was written to it."""
        raise SnapshotError(
            "a container on a copied root file system cannot be committed",
            hint="commit and build need overlayfs",
        )

    def remove(self, key: str) -> None:
        """See `Snapshotter.remove`."""
        remove_tree(self._paths.snapshot(key))

    def _begin(self, key: str, layers: tuple[Digest, ...], *, writable: bool) -> MountPlan:
        directory = record.make_directory(self._paths, key)
        found = SnapshotRecord(
            "copying", tuple(layer_name(layer) for layer in layers), (), writable, ""
        )
        try:
            with self._store.shared():
                records = [self._store.record(layer) for layer in layers]
                record.write(self._paths, key, found)
            tree = directory + "/tree"
            os.mkdir(tree, 0o755)
            self._store.require_space(sum(layer.size for layer in records))
            for layer in records:
                source = os.open(f"{self._paths.layers}/{layer.name}/diff", _DIRECTORY)
                target = os.open(tree, _DIRECTORY)
                try:
                    if layer.opaque:
                        _empty(target)
                    Merge(frozenset(layer.implicit), rootless=self._rootless).directory(
                        source, target, "", fresh=layer is records[0]
                    )
                finally:
                    os.close(source)
                    os.close(target)
        except OSError as error:
            remove_tree(directory)
            raise_if_full(error, self._paths.root)
            raise SystemCallFailed("copying layers", error.errno or 0, subject=key) from error
        except BaseException:
            remove_tree(directory)
            raise
        return self._plan(key, found)

    def _plan(self, key: str, found: SnapshotRecord) -> MountPlan:
        source = f"{self._paths.snapshot(key)}/tree"
        return MountPlan("bind", source, self._paths.root, "", not found.writable)


class Merge:
    """Copies one layer's tree over what the layers below gave. Follows nothing in either."""

    def __init__(self, implicit: frozenset[str], *, rootless: bool) -> None:
        self._implicit = implicit
        self._own = (os.geteuid(), os.getegid())
        self._mark = "user.overlay.opaque" if rootless else "trusted.overlay.opaque"
        # The first copy of a file with several links, kept open so that others can be linked to it.
        self._links: dict[tuple[int, int], str] = {}
        self._top = -1

    def directory(self, source: int, target: int, path: str, *, fresh: bool) -> None:
        """Copy everything in `source` to `target`; `fresh` when `target` has nothing to replace."""
        if self._top < 0:
            self._top = target
        before = os.fstat(target).st_mtime_ns
        with os.scandir(source) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            state = os.stat(name, dir_fd=source, follow_symlinks=False)
            below = f"{path}/{name}" if path else name
            if stat.S_ISDIR(state.st_mode):
                self._subdirectory(source, target, name, below, fresh)
                continue
            if not fresh:
                remove_entry(target, name)
            if stat.S_ISCHR(state.st_mode) and state.st_rdev == 0:
                continue
            self._file(source, target, name, below, state)
        if path not in self._implicit or fresh:
            self._dress(source, target)
        else:
            os.utime(target, ns=(before, before))

    def _subdirectory(self, source: int, target: int, name: str, path: str, fresh: bool) -> None:
        made = False
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            made = True
        except FileExistsError:
            state = os.stat(name, dir_fd=target, follow_symlinks=False)
            if not stat.S_ISDIR(state.st_mode):
                os.unlink(name, dir_fd=target)
                os.mkdir(name, 0o700, dir_fd=target)
                made = True
        inner_source = os.open(name, _DIRECTORY, dir_fd=source)
        try:
            inner_target = os.open(name, _DIRECTORY, dir_fd=target)
            try:
                if not made and self._is_opaque(inner_source):
                    _empty(inner_target)
                    made = True
                self.directory(inner_source, inner_target, path, fresh=made)
            finally:
                os.close(inner_target)
        finally:
            os.close(inner_source)

    def _is_opaque(self, directory: int) -> bool:
        try:
            return os.getxattr(directory, self._mark) == b"y"
        except OSError as error:
            if error.errno in (errno.ENODATA, errno.ENOTSUP):
                return False
            raise

    def _file(self, source: int, target: int, name: str, path: str, state: os.stat_result) -> None:
        key = (state.st_dev, state.st_ino)
        if state.st_nlink > 1 and key in self._links:
            first = self._links[key]
            # Every component was made by this merge, in a tree nobody else can reach.
            os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
            return
        if stat.S_ISREG(state.st_mode):
            self._regular(source, target, name, state)
        elif stat.S_ISLNK(state.st_mode):
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            self._dress_nofollow(target, name, state)
        else:
            os.mknod(name, state.st_mode, state.st_rdev, dir_fd=target)
            self._dress_nofollow(target, name, state)
        if state.st_nlink > 1:
            self._links[key] = path

    def _regular(self, source: int, target: int, name: str, state: os.stat_result) -> None:
        reading = os.open(name, _READ, dir_fd=source)
        try:
            writing = os.open(name, _WRITE_NEW, 0o600, dir_fd=target)
            try:
                left = state.st_size
                while left:
                    copied = os.copy_file_range(reading, writing, min(left, _AT_ONCE))
                    if not copied:
                        break
                    left -= copied
                self._dress(reading, writing)
            finally:
                os.close(writing)
        finally:
            os.close(reading)

    def _dress(self, source: int, target: int) -> None:
        """Owner, mode, attributes and times, in the order in which none undoes another."""
        state = os.fstat(source)
        if (state.st_uid, state.st_gid) != self._own:
            os.fchown(target, state.st_uid, state.st_gid)
        for name in os.listxattr(source):
            if not name.startswith(("trusted.overlay.", "user.overlay.")):
                os.setxattr(target, name, os.getxattr(source, name))
        os.fchmod(target, state.st_mode & 0o7777)
        os.utime(target, ns=(state.st_mtime_ns, state.st_mtime_ns))

    def _dress_nofollow(self, target: int, name: str, state: os.stat_result) -> None:
        if (state.st_uid, state.st_gid) != self._own:
            os.chown(name, state.st_uid, state.st_gid, dir_fd=target, follow_symlinks=False)
        times = (state.st_mtime_ns, state.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _empty(directory: int) -> None:
    with os.scandir(directory) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        remove_entry(directory, name)
