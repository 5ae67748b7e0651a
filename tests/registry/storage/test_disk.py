"""The store in files: the contract, and what only a file system can do to it."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.digest import Digest
from registry.storage.base import StoreKey
from registry.storage.disk import WRITEBACK_EVERY, DiskStorage
from registry.storage.errors import (
    BlobMissing,
    StorageFailed,
    StorageFull,
    UploadUnknown,
)
from tests.registry.storage.contract import (
    DATA,
    KEY,
    UPLOAD,
    StorageContract,
    commit,
    content,
    store,
)


class TestDisk(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> DiskStorage:
        return DiskStorage(str(tmp_path / "registry"))


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "registry")


def test_where_the_files_are(root: str) -> None:
    storage = DiskStorage(root)
    store(storage, DATA, StoreKey(KEY.digest, 2))
    storage.begin("upload-that-stays")
    files = {
        os.path.relpath(os.path.join(directory, name), root)
        for directory, _, names in os.walk(root)
        for name in names
    }
    encoded = KEY.digest.encoded
    assert files == {
        f"blobs/sha256/{encoded[:2]}/{encoded}.2",
        "uploads/upload-that-stays",
    }


def test_nobody_else_may_look(root: str) -> None:
    storage = DiskStorage(root)
    store(storage, DATA, KEY)
    storage.begin("upload-that-stays")
    for directory, _, names in os.walk(root):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        for name in names:
            assert stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) == 0o600


def test_an_upload_goes_on_after_a_restart(root: str) -> None:
    first = DiskStorage(root)
    first.begin(UPLOAD)
    with first.append(UPLOAD, 0) as writer:
        writer.write(DATA[:4])
    second = DiskStorage(root)
    status = second.status(UPLOAD)
    assert status.size == 4
    with second.append(UPLOAD, 4) as writer:
        writer.write(DATA[4:])
    commit(second, UPLOAD, KEY, len(DATA))
    assert content(second, KEY) == DATA


def test_the_epoch_is_the_boot(root: str) -> None:
    storage = DiskStorage(root)
    storage.begin(UPLOAD)
    assert (
        storage.status(UPLOAD).epoch == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    )


def test_a_large_blob_crosses_the_writeback(root: str) -> None:
    storage = DiskStorage(root)
    data = os.urandom(1 << 20) * (2 * WRITEBACK_EVERY >> 20)
    key = StoreKey(Digest.of(data))
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        for start in range(0, len(data), 1 << 20):
            writer.write(data[start : start + (1 << 20)])
    commit(storage, UPLOAD, key, len(data))
    assert content(storage, key) == data


def test_the_lock_holds_between_processes(root: str) -> None:
    storage = DiskStorage(root)
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0):
        assert in_another_process(root) == "UploadBusy"
    assert in_another_process(root) == "appended"


def in_another_process(root: str) -> str:
    code = f"""
from registry.storage.disk import DiskStorage
from registry.storage.errors import UploadBusy
try:
    DiskStorage({root!r}).append({UPLOAD!r}, 0).close()
    print("appended")
except UploadBusy:
    print("UploadBusy")
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=os.getcwd()
    )
    return result.stdout.strip()


def test_a_writer_never_writes_into_a_blob(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload becomes a blob between a writer's open and its lock."""
    storage = DiskStorage(root)
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        writer.write(DATA)
    flock = fcntl.flock

    def flock_after_a_commit(fd: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        commit(storage, UPLOAD, KEY, len(DATA))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_a_commit)
    with pytest.raises(UploadUnknown):
        storage.append(UPLOAD, len(DATA))
    assert content(storage, KEY) == DATA


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may grow beyond this size: the kernel's answer is EFBIG, in the middle of a write."""
    limit = 100_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield limit
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_no_room_keeps_what_was_acknowledged(root: str, small_files: int) -> None:
    storage = DiskStorage(root)
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        writer.write(b"a" * 60_000)
    with storage.append(UPLOAD, 60_000) as writer:
        writer.write(b"b" * 20_000)
        with pytest.raises(StorageFull, match="no space left"):
            writer.write(b"c" * 40_000)
        assert writer.offset == 60_000
    assert b"".join(storage.read(UPLOAD)) == b"a" * 60_000
    assert list(storage.blobs()) == []
    with storage.append(UPLOAD, 60_000) as writer:  # after somebody made room
        writer.write(b"d" * 1000)


@pytest.mark.root
def test_a_full_file_system(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", mount], check=True)
    try:
        storage = DiskStorage(str(mount / "registry"))
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            writer.write(DATA)
        with storage.append(UPLOAD, len(DATA)) as writer:
            writer.write(b"x" * 500_000)
            with pytest.raises(StorageFull):
                writer.write(b"x" * 900_000)
        assert storage.status(UPLOAD).size == len(DATA)
        commit(storage, UPLOAD, KEY, len(DATA))
        assert content(storage, KEY) == DATA
    finally:
        subprocess.run(["umount", mount], check=True)


def test_bytes_that_cannot_be_made_durable_are_not_a_blob(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel forgets pages it failed to write: a second fdatasync would lie."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    storage = DiskStorage(root)
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        writer.write(DATA)
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(StorageFailed, match="Input/output error"):
        commit(storage, UPLOAD, KEY, len(DATA))
    with pytest.raises(BlobMissing):
        storage.open(KEY)
    with pytest.raises(UploadUnknown):
        storage.status(UPLOAD)


def test_the_order_of_a_commit(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data before name before directory; a new directory before what is in it is promised."""
    storage = DiskStorage(root)
    storage.begin(UPLOAD)
    with storage.append(UPLOAD, 0) as writer:
        writer.write(DATA)
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fdatasync", "fsync", "rename", "mkdir")}

    def noted(name: str):  # type: ignore[no-untyped-def]
        def call(target, *rest):  # type: ignore[no-untyped-def]
            path = os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target
            steps.append(f"{name} {os.path.relpath(path, root)}")
            return real[name](target, *rest)

        return call

    for name in real:
        monkeypatch.setattr(os, name, noted(name))
    commit(storage, UPLOAD, KEY, len(DATA))
    prefix = f"blobs/sha256/{KEY.digest.encoded[:2]}"
    assert [step for step in steps if not step.startswith("mkdir")] == [
        f"fdatasync uploads/{UPLOAD}",
        "fsync blobs",
        "fsync blobs/sha256",
        f"rename uploads/{UPLOAD}",
        f"fsync {prefix}",
    ]


def test_a_killed_writer_leaves_no_blob(root: str) -> None:
    DiskStorage(root)
    context = multiprocessing.get_context("fork")
    ready = context.Event()

    def write() -> None:
        storage = DiskStorage(root)
        storage.begin(UPLOAD)
        with storage.append(UPLOAD, 0) as writer:
            while True:
                writer.write(b"x" * 65536)
                ready.set()

    process = context.Process(target=write)
    process.start()
    ready.wait(10)
    process.kill()
    process.join()
    storage = DiskStorage(root)
    assert list(storage.blobs()) == []
    size = storage.status(UPLOAD).size
    assert size >= 65536
    with storage.append(UPLOAD, size) as writer:  # the lock died with its holder
        writer.write(b"y")


def test_a_symbolic_link_is_not_followed(root: str, tmp_path: Path) -> None:
    storage = DiskStorage(root)
    (tmp_path / "outside").write_bytes(b"secret")
    os.symlink(tmp_path / "outside", os.path.join(root, "uploads", UPLOAD))
    with pytest.raises(StorageFailed):
        storage.append(UPLOAD, 6)
    with pytest.raises(StorageFailed):
        storage.read(UPLOAD)


def test_an_unreadable_root_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match=r"Not a directory|File exists"):
        DiskStorage(str(tmp_path / "file" / "registry"))
