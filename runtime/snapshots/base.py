"""What a snapshotter is: it gives a container (or build step) its root file system.

Glossary

key        names an active snapshot: a container's id, or a build step's. Chosen by the caller.
layers     diff ids, the base first, as an image's config lists them.
upper      what the container wrote. It belongs to the snapshot until `commit` or `remove`.
plan       how to mount the snapshot: data. Nothing is mounted by a snapshotter; the container's
           init does it inside its own mount namespace, so the host never sees the mount.

A snapshot's life: `prepare` (or `view`), any number of `mounts`, then `commit` or `remove`. A layer
that a snapshot stands on cannot be removed from the store before the snapshot is.
"""

from __future__ import annotations

from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from ocispec.digest import Digest
else:
    Protocol = object


@value
class MountPlan:
    """One mount(2) call: `chdir(directory)`, then `mount(source, target, filesystem, flags, data)`.

    `filesystem` "bind" means a recursive bind mount of the absolute `source`, and then, as bind
    ignores flags the first time, a remount with MS_RDONLY if `read_only`.
    """

    filesystem: str
    """ "overlay" or "bind". """
    source: str
    """ "overlay", or the absolute path of a tree. """
    directory: str
    """Names in `data` are relative to it: change into it first, and back out after."""
    data: str
    """The option string, at most one page with its NUL: overlay cuts more off silently."""
    read_only: bool
    """True for a view: mount with MS_RDONLY; there is no upper directory."""


class Snapshotter(Protocol):
    """Implementations: `overlay.OverlaySnapshotter`, `copying.CopyingSnapshotter`."""

    def prepare(self, key: str, layers: tuple[Digest, ...], *, volatile: bool = False) -> MountPlan:
        """Begin a writable snapshot on top of `layers` and say how to mount it.

        `volatile` promises that nobody needs the upper after a crash (`--rm`, build steps): the
        kernel then skips every sync. An empty `layers` gives an empty root.

        Raises: SnapshotError if `key` exists or there are too many layers; LayerUnknown if a layer
        is not in the store. After an error there is no snapshot of that key.
        """

    def view(self, key: str, layers: tuple[Digest, ...]) -> MountPlan:
        """Like `prepare`, but read-only: nothing can be written and nothing committed."""

    def mounts(self, key: str) -> MountPlan:
        """The plan again, for a container that starts a second time.

        Raises: SnapshotError if `key` is unknown, or was volatile and the machine went down.
        """

    def commit(self, key: str, diff_id: Digest, *, entries: int, size: int) -> None:
        """Make the upper a layer of the store under `diff_id` and end the snapshot.

        The caller has computed `diff_id` by walking the upper, counting its entries and the bytes
        of its files, and nothing runs on it any more. If the store already has that layer, the
        upper is thrown away. Raises: SnapshotError where there is no upper.
        """

    def remove(self, key: str) -> None:
        """End the snapshot and delete what was written. An unknown key is already removed."""
