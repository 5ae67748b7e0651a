"""Snapshots on overlayfs: the layers below, one directory for what is written.

mount(2) takes at most one page of options and overlay silently cuts off the rest, so layers are
named relative to the root by their short names: `l/AB12:l/CD34`, 500 of them in one page. The plan
therefore asks for a chdir to the root first.

Directories that a layer's archive left out exist in that layer with mode 0755 (see
`runtime.images.unpack`) and would cover the real ones below, `/tmp` for example. `prepare` makes
these in the upper with the attributes they should have.
"""

from __future__ import annotations

import os

from runtime.errors import SnapshotError, SystemCallFailed
from runtime.images.store import raise_if_full
from runtime.paths import layer_name
from runtime.snapshots import record
from runtime.snapshots.base import MountPlan
from runtime.snapshots.implicit import restore_attributes
from runtime.snapshots.record import SnapshotRecord
from runtime.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ocispec.digest import Digest
    from runtime.images.store import LayerRecord, LayerStore

MOST_LAYERS = 500
"""OVL_MAX_STACK of the kernel."""
_PAGE = 4096

# Never follow a redirect, and never let one layer's file stand for another's data: with these marks
# a directory could show what its layer does not contain.
_ROOT_OPTIONS = "index=off,redirect_dir=nofollow,metacopy=off"
# In a user namespace overlay keeps its marks in user.* attributes, and redirects are always off.
_ROOTLESS_OPTIONS = "userxattr"


class OverlaySnapshotter:
    """Snapshots of the layers of one store. Keeps nothing in memory."""

    def __init__(self, store: LayerStore, *, rootless: bool = False) -> None:
        self._store = store
        self._paths = store.paths
        self._options = _ROOTLESS_OPTIONS if rootless else _ROOT_OPTIONS

    def prepare(self, key: str, layers: tuple[Digest, ...], *, volatile: bool = False) -> MountPlan:
        """See `Snapshotter.prepare`."""
        return self._begin(key, layers, writable=True, volatile=volatile)

    def view(self, key: str, layers: tuple[Digest, ...]) -> MountPlan:
        """See `Snapshotter.view`."""
        return self._begin(key, layers, writable=False, volatile=False)

    def mounts(self, key: str) -> MountPlan:
        """See `Snapshotter.mounts`."""
        found = record.read(self._paths, key)
        if found.kind != "overlay":
            raise SnapshotError(
                f"snapshot {key} is a copy and not an overlay",
                hint="remove the container and create it again",
            )
        if found.boot:
            if found.boot != record.boot_id():
                raise SnapshotError(
                    f"what {key} wrote was not kept when the machine went down",
                    hint="remove the container and create it again",
                )
            self._allow_second_mount(key)
        return self._plan(key, found)

    def commit(self, key: str, diff_id: Digest, *, entries: int, size: int) -> None:
        """See `Snapshotter.commit`."""
        found = record.read(self._paths, key)
        if not found.writable:
            raise SnapshotError(f"snapshot {key} is read-only: there is nothing to commit")
        upper = f"{self._paths.snapshot(key)}/upper"
        self._store.adopt(diff_id, upper, entries=entries, size=size)
        self.remove(key)

    def remove(self, key: str) -> None:
        """See `Snapshotter.remove`."""
        remove_tree(self._paths.snapshot(key))

    def _begin(
        self, key: str, layers: tuple[Digest, ...], *, writable: bool, volatile: bool
    ) -> MountPlan:
        directory = record.make_directory(self._paths, key)
        try:
            with self._store.shared():  # no layer goes away between here and the record
                stack = visible([self._store.record(layer) for layer in layers])
                found = SnapshotRecord(
                    kind="overlay",
                    layers=tuple(layer_name(layer) for layer in layers),
                    lower=tuple(layer.short for layer in reversed(stack)),
                    writable=writable,
                    boot=record.boot_id() if volatile else "",
                )
                record.write(self._paths, key, found)
            plan = self._plan(key, found)
            if writable:
                os.mkdir(directory + "/work", 0o700)
                os.mkdir(directory + "/upper", 0o755)
                self._dress_upper(directory + "/upper", stack)
            else:
                os.mkdir(directory + "/empty", 0o755)
        except OSError as error:
            remove_tree(directory)
            raise_if_full(error, self._paths.root)
            raise SystemCallFailed("preparing", error.errno or 0, subject=directory) from error
        except BaseException:
            remove_tree(directory)
            raise
        return plan

    def _plan(self, key: str, found: SnapshotRecord) -> MountPlan:
        mine = f"snapshots/{key}"
        if not found.lower:
            source = f"{self._paths.root}/{mine}/{'upper' if found.writable else 'empty'}"
            return MountPlan("bind", source, self._paths.root, "", not found.writable)
        if len(found.lower) > MOST_LAYERS:
            raise SnapshotError(
                f"an image of {len(found.lower)} layers: overlay takes at most {MOST_LAYERS}",
                hint="squash the image",
            )
        lower = ":".join(found.lower)
        if found.writable:
            data = f"lowerdir={lower},upperdir={mine}/upper,workdir={mine}/work"
        else:  # without an upper there must be two lower ones
            data = f"lowerdir={lower}:{mine}/empty"
        data += "," + self._options
        if found.boot:
            data += ",volatile"
        if len(data) >= _PAGE:
            raise SnapshotError(
                f"mount options of {len(data)} bytes do not fit in one page",
                hint="squash the image, or use shorter names",
            )
        return MountPlan("overlay", "overlay", self._paths.root, data, not found.writable)

    def _dress_upper(self, upper: str, stack: list[LayerRecord]) -> None:
        """Give the root, and directories that some layer left out, their right attributes."""
        if not stack:
            os.chmod(upper, 0o755)
            return
        trees = [f"{self._paths.layers}/{layer.name}/diff" for layer in stack]
        top = os.stat(trees[-1])
        if (top.st_uid, top.st_gid) != (os.geteuid(), os.getegid()):
            os.chown(upper, top.st_uid, top.st_gid)
        os.chmod(upper, top.st_mode & 0o7777)
        if any(layer.implicit for layer in stack):
            implicit = [frozenset(layer.implicit) for layer in stack]
            restore_attributes(upper, trees, implicit)

    def _allow_second_mount(self, key: str) -> None:
        """The kernel marks a volatile work directory; within one boot nothing was lost."""
        marker = f"{self._paths.snapshot(key)}/work/work/incompat"
        remove_tree(marker) if os.path.isdir(marker) else None


def visible(layers: list[LayerRecord]) -> list[LayerRecord]:
    """The layers that can be seen, the base first.

    What lies below an opaque layer cannot. Of a layer that is there twice only the upper one
    counts: it covers all that the lower would show, and overlay refuses a directory given twice.
    """
    seen: dict[str, LayerRecord] = {}
    for layer in reversed(layers):
        seen.setdefault(layer.name, layer)
        if layer.opaque:
            break
    return list(reversed(seen.values()))
