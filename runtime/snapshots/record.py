"""`snapshot.json`: what an active snapshot stands on, and how to mount it again."""

from __future__ import annotations

import json
import os

from ocispec.value import value
from runtime.errors import SnapshotError, SystemCallFailed
from runtime.images.store import raise_if_full
from runtime.paths import PRIVATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.paths import Paths

VERSION = 1
_LIMIT = 1 << 20


@value
class SnapshotRecord:
    """One snapshot, as written when it was prepared.

    kind: which snapshotter made it, "overlay" or "copying".
    layers: layer names (`<algorithm>-<hex>`), the base first; the store keeps them while this is
        here.
    lower: what to mount, as short names, the top first; empty for copying.
    writable: False for a view.
    boot: the boot it was prepared in, if it is volatile; else empty.
    """

    kind: str
    layers: tuple[str, ...]
    lower: tuple[str, ...]
    writable: bool
    boot: str


def make_directory(paths: Paths, key: str) -> str:
    """The new, empty directory of a snapshot. Raises: SnapshotError if the key is taken."""
    directory = paths.snapshot(key)
    try:
        os.mkdir(directory, PRIVATE)
    except FileExistsError:
        raise SnapshotError(f"there is already a snapshot {key}") from None
    except OSError as error:
        raise_if_full(error, paths.root)
        raise SystemCallFailed("mkdir", error.errno or 0, subject=directory) from error
    return directory


def write(paths: Paths, key: str, record: SnapshotRecord) -> None:
    text = json.dumps(
        {
            "version": VERSION,
            "kind": record.kind,
            "layers": record.layers,
            "lower": record.lower,
            "writable": record.writable,
            "boot": record.boot,
        }
    )
    with open(paths.snapshot_record(key), "w", encoding="utf-8") as file:
        file.write(text)


def read(paths: Paths, key: str) -> SnapshotRecord:
    """Raises: SnapshotError if there is none, it is damaged, or a newer pyreg wrote it."""
    path = paths.snapshot_record(key)
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_LIMIT))
        if found["version"] != VERSION:
            raise SnapshotError(f"{path} was written by a newer pyreg", hint="use that one")
        return SnapshotRecord(
            found["kind"],
            tuple(found["layers"]),
            tuple(found["lower"]),
            found["writable"],
            found["boot"],
        )
    except FileNotFoundError:
        raise SnapshotError(f"there is no snapshot {key}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SnapshotError(
            f"{path} is damaged: {error}", hint="remove the container and create it again"
        ) from error


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
