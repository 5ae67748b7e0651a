"""Unpacked layers on disk, each in a directory of its own, named by its diff id.

A layer is begun in a temporary directory, filled by an extractor, and committed by one rename. So a
layer that `has` sees is whole, whatever process or machine died. Two processes that unpack the same
layer at once both succeed: the second rename finds the first and throws its own work away.

`<root>/lock` orders the rest: it is held shared while a snapshot takes layers or a temporary
directory is born, and exclusively by removal and by the collection of leftovers.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os

from ocispec.value import value
from runtime.errors import LayerInUse, LayerUnknown, NotEnoughSpace, StoreUnreadable
from runtime.paths import PRIVATE, TEMPORARY, component, layer_name
from runtime.trees import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from ocispec.digest import Digest
    from runtime.paths import Paths

VERSION = 1
RECORD_LIMIT = 8 << 20
SPARE_BYTES = 64 << 20
"""Left free when a layer is accepted, so that containers can still write their state."""

_SHORT_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@value
class LayerRecord:
    """What the store knows about one unpacked layer."""

    name: str
    """`<algorithm>-<hex>` of the diff id."""
    short: str
    """The short name overlay mounts it by, `l/AB12`, relative to the root."""
    entries: int
    size: int
    """Bytes of file content; holes count, as the archive says."""
    opaque: bool = False
    """It hides every layer below it."""
    implicit: tuple[str, ...] = ()
    """Directories whose attributes belong to a lower layer, see `unpack`."""


class LayerStore:
    """All unpacked layers under one root. Any number of processes may use it at once."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def has(self, diff_id: Digest) -> bool:
        return os.path.isdir(self.paths.layer(diff_id))

    def path(self, diff_id: Digest) -> str:
        """The absolute path of the layer's tree. Raises: LayerUnknown."""
        tree = self.paths.layer_tree(diff_id)
        if not os.path.isdir(tree):
            raise _unknown(diff_id)
        return tree

    def short_name(self, diff_id: Digest) -> str:
        """`l/AB12`, relative to the root: what overlay mounts it by. Raises: LayerUnknown."""
        return self.record(diff_id).short

    def record(self, diff_id: Digest) -> LayerRecord:
        """What is known of a layer; its short name exists afterwards.

        Raises: LayerUnknown; StoreUnreadable if a newer pyreg wrote it or it is damaged.
        """
        path = self.paths.layer_record(diff_id)
        try:
            with open(path, "rb") as file:
                found = json.loads(file.read(RECORD_LIMIT))
            if found["version"] != VERSION:
                raise StoreUnreadable(
                    f"{path} was written by a newer pyreg (version {found['version']})",
                    hint="use that one, or remove the image and pull it again",
                )
            self._restore_link(found["short"], diff_id)
            return LayerRecord(
                layer_name(diff_id),
                found["short"],
                found["entries"],
                found["size"],
                found["opaque"],
                tuple(found["implicit"]),
            )
        except FileNotFoundError:
            raise _unknown(diff_id) from None
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnreadable(
                f"{path} is damaged: {error}", hint="remove the image and pull it again"
            ) from error

    def _restore_link(self, short: str, diff_id: Digest) -> None:
        """Somebody may have tidied up `l/`, or restored a backup without it."""
        link = f"{self.paths.short_links}/{component(os.path.basename(short))}"
        if not os.path.lexists(link):
            try:
                os.symlink(f"../layers/{layer_name(diff_id)}/diff", link)
            except FileExistsError:
                pass

    def names(self) -> Iterator[str]:
        """The directory names of all committed layers (`<algorithm>-<hex>`)."""
        for entry in sorted(os.listdir(self.paths.layers)):
            if TEMPORARY not in entry:
                yield entry

    def begin(self, diff_id: Digest) -> PendingLayer:
        """A new temporary directory for the layer. Use in a `with`: it aborts unless committed."""
        self.paths.create()
        directory = f"{self.paths.layer(diff_id)}{TEMPORARY}{os.urandom(6).hex()}"
        with self.shared():
            os.mkdir(directory, PRIVATE)
            held = os.open(directory, _DIRECTORY)
            # Says that we live: whoever can lock a temporary directory may delete it.
            fcntl.flock(held, fcntl.LOCK_EX)
        try:
            os.mkdir(directory + "/diff", 0o755)
        except BaseException:
            os.close(held)
            raise
        return PendingLayer(self.paths, diff_id, directory, held)

    def adopt(self, diff_id: Digest, tree: str, *, entries: int, size: int) -> None:
        """Make `tree` (a build step's upper, same file system) a layer by renaming it."""
        with self.begin(diff_id) as pending:
            os.rmdir(pending.tree)
            os.rename(tree, pending.tree)
            pending.commit(entries=entries, size=size)

    def remove(self, diff_id: Digest, *, used: frozenset[str]) -> None:
        """Delete a layer that no image needs; one that is not there is already removed.

        `used` are the layer names that images still need; snapshots are looked at here.
        Raises: LayerInUse.
        """
        name = layer_name(diff_id)
        with self.exclusive():
            if name in used or name in self.in_snapshots():
                raise LayerInUse(f"layer {diff_id} is still in use", hint="remove its containers")
            try:
                short = self.record(diff_id).short
            except (LayerUnknown, StoreUnreadable):
                short = ""
            doomed = f"{self.paths.layers}/{name}{TEMPORARY}{os.urandom(6).hex()}"
            try:
                os.rename(self.paths.layer(diff_id), doomed)
            except FileNotFoundError:
                return
            if short:
                _unlink_if_there(f"{self.paths.root}/{short}")
        _remove(doomed)

    def in_snapshots(self) -> frozenset[str]:
        """The names of layers that any snapshot stands on."""
        found: set[str] = set()
        for key in os.listdir(self.paths.snapshots):
            try:
                with open(f"{self.paths.snapshots}/{key}/snapshot.json", "rb") as file:
                    found.update(json.load(file)["layers"])
            except (FileNotFoundError, NotADirectoryError):
                continue
        return frozenset(found)

    def collect(self) -> int:
        """Delete what dead processes left half done; return how many things were removed."""
        doomed = []
        with self.exclusive():
            for entry in os.listdir(self.paths.layers):
                if TEMPORARY in entry and self._abandoned(f"{self.paths.layers}/{entry}"):
                    doomed.append(f"{self.paths.layers}/{entry}")
        for directory in doomed:
            _remove(directory)
        with self.exclusive():
            dangling = [
                link
                for entry in os.listdir(self.paths.short_links)
                if not os.path.exists(link := f"{self.paths.short_links}/{entry}")
                and not self._being_committed(link)
            ]
            for link in dangling:
                _unlink_if_there(link)
        return len(doomed) + len(dangling)

    def require_space(self, size: int) -> None:
        """Check that `size` bytes fit beside a small reserve. Raises: NotEnoughSpace."""
        state = os.statvfs(self.paths.layers)
        free = state.f_bavail * state.f_frsize
        if size + SPARE_BYTES > free:
            raise NotEnoughSpace(
                f"not enough space below {self.paths.root}: {free >> 20} MiB are free, and this "
                f"needs {-(-size >> 20)} MiB beside a reserve of {SPARE_BYTES >> 20} MiB",
                needed=size,
                free=free,
            )

    def shared(self) -> StoreLock:
        """Hold this while layers must not disappear: from naming them in a record to using them."""
        return StoreLock(self.paths.lock, fcntl.LOCK_SH)

    def exclusive(self) -> StoreLock:
        return StoreLock(self.paths.lock, fcntl.LOCK_EX)

    @staticmethod
    def _abandoned(directory: str) -> bool:
        try:
            held = os.open(directory, _DIRECTORY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            return False
        finally:
            os.close(held)

    def _being_committed(self, link: str) -> bool:
        """A link is made just before its layer's rename: look for a temporary directory of it."""
        name = os.path.basename(os.path.dirname(os.readlink(link)))
        return any(entry.startswith(name + TEMPORARY) for entry in os.listdir(self.paths.layers))


class PendingLayer:
    """A layer being unpacked: fill `tree`, then `commit`. Leaving the `with` before aborts."""

    def __init__(self, paths: Paths, diff_id: Digest, directory: str, held: int) -> None:
        self.diff_id = diff_id
        self.directory = directory
        self.tree = directory + "/diff"
        self._paths = paths
        self._held = held

    def commit(
        self,
        *,
        entries: int,
        size: int,
        opaque: bool = False,
        implicit: tuple[str, ...] = (),
        sync: bool = True,
    ) -> None:
        """Make the layer visible, durably. If another process was faster, its layer stays.

        `sync=False` is for a caller that has just synced this file system itself.
        Raises: NotEnoughSpace if the disk is full; nothing is visible then.
        """
        short = self._take_short_name()
        record = {
            "version": VERSION,
            "short": short,
            "entries": entries,
            "size": size,
            "opaque": opaque,
            "implicit": implicit,
        }
        try:
            with open(self.directory + "/layer.json", "w", encoding="utf-8") as file:
                json.dump(record, file)
            if sync:
                from runtime.linux.syscalls import syncfs

                syncfs(self._held)  # one flush for all the files, not an fsync for each
            try:
                os.rename(self.directory, self._paths.layer(self.diff_id))  # visible from here on
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                _unlink_if_there(f"{self._paths.root}/{short}")
                self.abort()
                return
        except OSError as error:
            _unlink_if_there(f"{self._paths.root}/{short}")
            raise_if_full(error, self._paths.root)
            raise
        self._close()
        if sync:
            parent = os.open(self._paths.layers, _DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)

    def abort(self) -> None:
        """Delete what was unpacked so far. After a commit, or a second time, it does nothing."""
        if self._held >= 0:
            self._close()
            _remove(self.directory)

    def __enter__(self) -> PendingLayer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def _close(self) -> None:
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def _take_short_name(self) -> str:
        target = f"../layers/{layer_name(self.diff_id)}/diff"
        while True:
            short = "l/" + "".join(_SHORT_LETTERS[byte & 31] for byte in os.urandom(4))
            try:
                os.symlink(target, f"{self._paths.root}/{short}")
                return short
            except FileExistsError:
                continue


class StoreLock:
    """`with StoreLock(path, LOCK_SH)`: waits; freed by the kernel if the process dies."""

    __slots__ = ("_fd", "_kind", "_path")

    def __init__(self, path: str, kind: int) -> None:
        self._path = path
        self._kind = kind
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, self._kind)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def raise_if_full(error: OSError, where: str) -> None:
    """Turn ENOSPC and EDQUOT into one clear error; leave any other to the caller."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise NotEnoughSpace(f"no space left under {where}: {os.strerror(error.errno)}") from error


def _remove(directory: str) -> None:
    """An ordinary user's layers may hold files of users that only their namespace knows."""
    try:
        remove_tree(directory)
    except PermissionError:
        from runtime.linux.userns import as_owner

        as_owner(lambda: remove_tree(directory))


def _unknown(diff_id: Digest) -> LayerUnknown:
    return LayerUnknown(f"layer {diff_id} is not unpacked", hint="pull the image again")


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
