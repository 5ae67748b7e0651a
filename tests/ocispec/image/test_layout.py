"""The blob commit: whole and verified under its name, or not there."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import DigestMismatch, InvalidDigest, InvalidDocument
from ocispec.image.layout import (
    TEMPORARY_PREFIX,
    BlobWriter,
    Layout,
    begin_blob,
    remove_leftovers,
    sync_directory,
    write_file_atomically,
)
from ocispec.image.manifest import new_index
from ocispec.mediatype import OCI_MANIFEST

DATA = b"some content"
DIGEST = Digest.of(DATA)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.create(str(tmp_path / "images"))


def files(root: str | Path) -> list[str]:
    """Every file below a directory, relative to it."""
    return sorted(str(p.relative_to(root)) for p in Path(root).rglob("*") if not p.is_dir())


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Make writes beyond `size` fail in the kernel, halfway, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Writing a blob


def test_a_blob_is_visible_only_after_commit(layout: Layout) -> None:
    path = layout.blob_path(DIGEST)
    with layout.begin() as writer:
        assert writer.write(DATA[:4]) == 4
        assert writer.write(memoryview(DATA)[4:]) == len(DATA) - 4
        assert writer.size == len(DATA) and writer.digest("sha256") == DIGEST
        assert not layout.has(DIGEST) and not os.path.exists(path)
        writer.commit(path, expected=DIGEST)
    assert layout.has(DIGEST)
    assert layout.read(DIGEST, 100) == DATA
    assert files(layout.root) == [f"blobs/sha256/{DIGEST.encoded}", "index.json", "oci-layout"]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_any_chunks_give_the_digest_of_the_whole(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    algorithms = ("sha256", "sha512")
    with begin_blob("/tmp", algorithms=algorithms) as writer:
        for chunk in chunks:
            writer.write(chunk)
        for algorithm in algorithms:
            assert writer.digest(algorithm) == Digest.of(whole, algorithm)


def test_memory_of_wider_items_is_counted_in_bytes(tmp_path: Path) -> None:
    with begin_blob(str(tmp_path)) as writer:
        assert writer.write(memoryview(b"12345678").cast("I")) == 8
        assert writer.size == 8


def test_another_digest_than_expected_leaves_nothing(layout: Layout) -> None:
    with layout.begin() as writer:
        writer.write(b"other content")
        with pytest.raises(DigestMismatch) as caught:
            writer.commit(layout.blob_path(DIGEST), expected=DIGEST)
    assert caught.value.expected == DIGEST
    assert files(layout.root) == ["index.json", "oci-layout"]


def test_leaving_without_commit_leaves_nothing(layout: Layout) -> None:
    with layout.begin() as writer:
        writer.write(DATA)
    with pytest.raises(RuntimeError), layout.begin() as writer:
        writer.write(DATA)
        raise RuntimeError("the network went away")
    assert files(layout.root) == ["index.json", "oci-layout"]


def test_abort_is_harmless_at_any_time(layout: Layout) -> None:
    writer = layout.begin()
    writer.abort()
    writer.abort()
    with layout.begin() as writer:
        writer.write(DATA)
        writer.commit(layout.blob_path(DIGEST), expected=DIGEST)
        writer.abort()
    assert layout.has(DIGEST), "abort after commit removes nothing"


def test_a_finished_writer_refuses_to_go_on(layout: Layout) -> None:
    writer = layout.begin()
    writer.abort()
    with pytest.raises(OSError):
        writer.write(DATA)
    with pytest.raises(ValueError, match="committed or aborted before"):
        writer.commit(layout.blob_path(DIGEST))
    assert not layout.has(DIGEST)


def test_committing_what_is_there_already_is_harmless(layout: Layout) -> None:
    layout.put(DATA)
    with layout.open(DIGEST) as reader, layout.begin() as writer:
        writer.write(DATA)
        writer.commit(layout.blob_path(DIGEST), expected=DIGEST)
        assert reader.read() == DATA, "who has the old file open reads on"
    assert layout.read(DIGEST, 100) == DATA


def test_commits_of_the_same_content_at_once(layout: Layout) -> None:
    barrier = threading.Barrier(8)

    def commit() -> None:
        with layout.begin() as writer:
            writer.write(DATA)
            barrier.wait()
            writer.commit(layout.blob_path(DIGEST), expected=DIGEST)

    threads = [threading.Thread(target=commit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files(layout.root) == [f"blobs/sha256/{DIGEST.encoded}", "index.json", "oci-layout"]


def test_an_unknown_algorithm_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidDigest):
        begin_blob(str(tmp_path), algorithms=("md5",))
    assert files(tmp_path) == []


def test_the_temporary_file_is_private_and_not_inherited(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        with begin_blob(str(tmp_path)) as writer:
            assert stat.S_IMODE(os.stat(writer.path).st_mode) == 0o600
            assert os.path.basename(writer.path).startswith(TEMPORARY_PREFIX)
            assert not os.get_inheritable(writer._descriptor)
    finally:
        os.umask(old)


# What happens when the disk fails


def test_a_write_that_fails_halfway_ends_the_blob(layout: Layout) -> None:
    with layout.begin() as writer, file_size_limit(1000):
        writer.write(b"x" * 900)
        with pytest.raises(OSError):
            writer.write(b"x" * 900)
        with pytest.raises(ValueError):
            writer.commit(layout.blob_path(Digest.of(b"x" * 900)))
    assert files(layout.root) == ["index.json", "oci-layout"]


@pytest.mark.root
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", tmp_path], check=True)
    try:
        layout = Layout.create(str(tmp_path / "images"))
        with pytest.raises(OSError, match="No space left"), layout.begin() as writer:
            for _ in range(100):
                writer.write(b"x" * 10_000)
        assert files(layout.root) == ["index.json", "oci-layout"]
        layout.put(DATA)  # and there is room again
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_content_that_cannot_be_flushed_is_not_committed(layout: Layout) -> None:
    # A pipe cannot be flushed: the real system call fails, as it does with EIO on a bad disk.
    reading, writing = os.pipe()
    temporary = os.path.join(layout.ingest_directory, TEMPORARY_PREFIX + "x")
    Path(temporary).touch()
    with pytest.raises(OSError):
        BlobWriter(writing, temporary, ()).commit(layout.blob_path(DIGEST))
    os.close(reading)
    assert not layout.has(DIGEST)
    assert not os.path.exists(temporary)


def test_a_name_that_cannot_be_made_leaves_nothing(layout: Layout) -> None:
    Path(layout.root, "blobs", "sha512").touch()
    digest = Digest.of(DATA, "sha512")
    with layout.begin(("sha512",)) as writer:
        writer.write(DATA)
        with pytest.raises(OSError):
            writer.commit(layout.blob_path(digest), expected=digest)
    assert files(layout.root) == ["blobs/sha512", "index.json", "oci-layout"]


def test_data_then_name_then_directory(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    # The order is the whole point, and no power can be cut in a test: watch the calls.
    calls: list[str] = []
    for name in ("fdatasync", "rename", "fsync"):
        real = getattr(os, name)

        def watched(*arguments: object, name: str = name, real: object = real) -> object:
            calls.append(name)
            return real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(os, name, watched)
    layout.put(DATA)
    assert calls == ["fdatasync", "rename", "fsync"]
    calls.clear()
    layout.put(b"more", sync=False)
    assert calls == ["rename"]
    calls.clear()
    with layout.begin(("sha512",)) as writer:  # its directory is new, so its name is flushed too
        digest = writer.digest("sha512")
        writer.commit(layout.blob_path(digest), expected=digest)
    assert calls == ["fdatasync", "fsync", "rename", "fsync"]


CRASHING = """
import os, sys
from ocispec.digest import Digest
from ocispec.image.layout import Layout
layout = Layout(sys.argv[1])
print("ready", flush=True)
while True:
    data = os.urandom(50_000)
    digest = Digest.of(data)
    with layout.begin() as writer:
        for start in range(0, len(data), 1000):
            writer.write(data[start:start + 1000])
        writer.commit(layout.blob_path(digest), expected=digest)
"""


def test_a_killed_writer_leaves_whole_blobs_and_leftovers_that_can_be_found(
    layout: Layout,
) -> None:
    for round_ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", CRASHING, layout.root],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout is not None
        with process.stdout:
            process.stdout.readline()
            time.sleep(0.05 + round_ * 0.013)
            process.send_signal(signal.SIGKILL)
            process.wait()
    digests = list(layout.digests())
    assert digests
    for digest in digests:
        assert len(layout.read(digest, 50_000)) == 50_000
    leftovers = {name for name in files(layout.root) if TEMPORARY_PREFIX in name}
    assert all(name.startswith("ingest/") for name in leftovers)
    removed = remove_leftovers(layout.ingest_directory, older_than_s=0, now=time.time() + 10)
    assert {f"ingest/{name}" for name in removed} == leftovers


# Leftovers


def test_only_old_temporary_files_are_leftovers(tmp_path: Path) -> None:
    now = 1_000_000.0
    for name, age in ((".tmp-old", 101), (".tmp-new", 99), ("other", 1000)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / ".tmp-directory").mkdir()
    os.utime(tmp_path / ".tmp-directory", (0, 0))
    assert remove_leftovers(str(tmp_path), older_than_s=100, now=now) == (".tmp-old",)
    assert sorted(os.listdir(tmp_path)) == [".tmp-directory", ".tmp-new", "other"]
    assert remove_leftovers(str(tmp_path / "absent"), older_than_s=0, now=now) == ()


# Small files


def test_a_small_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    old = os.umask(0o077)
    try:
        write_file_atomically(str(path), b"new", mode=0o644)
    finally:
        os.umask(old)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "whatever the umask"
    assert files(tmp_path) == ["file"]


def test_a_small_file_that_does_not_fit_keeps_its_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with file_size_limit(1000), pytest.raises(OSError):
        write_file_atomically(str(path), b"x" * 2000)
    assert path.read_text() == "old"
    assert files(tmp_path) == ["file"]


def test_a_small_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_file_atomically("file", b"x", sync=False)
    assert files(tmp_path) == ["file"]


def test_sync_directory_needs_one(tmp_path: Path) -> None:
    sync_directory(str(tmp_path))
    with pytest.raises(OSError):
        sync_directory(str(tmp_path / "absent"))


# The layout


def test_create_is_harmless_on_a_layout_that_exists(layout: Layout) -> None:
    layout.put(DATA)
    index = new_index([Descriptor(OCI_MANIFEST, DIGEST, len(DATA))])
    layout.write_index(index)
    again = Layout.create(layout.root)
    assert again.read_index() == index
    assert list(again.digests()) == [DIGEST]
    assert Path(layout.root, "oci-layout").read_text() == '{"imageLayoutVersion":"1.0.0"}'
    assert stat.S_IMODE(os.stat(layout.root).st_mode) == 0o700


@pytest.mark.parametrize("marker", ['{"imageLayoutVersion":"2.0.0"}', "{}", "[]", "x" * 5000])
def test_another_version_is_refused(layout: Layout, marker: str) -> None:
    Path(layout.root, "oci-layout").write_text(marker)
    with pytest.raises(InvalidDocument):
        layout.check_version()


def test_blobs_come_and_go(layout: Layout) -> None:
    other = layout.put(b"other")
    assert layout.put(DATA) == DIGEST
    Path(layout.root, "blobs", "sha256", "not-a-digest").touch()
    assert set(layout.digests()) == {DIGEST, other}
    assert layout.remove(other) is True
    assert layout.remove(other) is False
    assert not layout.has(other)
    with pytest.raises(FileNotFoundError):
        layout.open(other)
    with pytest.raises(FileNotFoundError):
        layout.read(other, 100)


def test_read_is_bounded_and_verified(layout: Layout) -> None:
    layout.put(DATA)
    with pytest.raises(InvalidDocument, match="more than 5 bytes"):
        layout.read(DIGEST, 5)
    Path(layout.blob_path(DIGEST)).write_bytes(b"rotten bytes")
    with pytest.raises(DigestMismatch, match=f"blob {DIGEST} has digest"):
        layout.read(DIGEST, 100)


def test_a_link_or_a_pipe_in_place_of_a_blob_is_refused(layout: Layout, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    os.symlink(secret, layout.blob_path(DIGEST))
    other = Digest.of(b"pipe")
    os.mkfifo(layout.blob_path(other))
    for digest in (DIGEST, other):
        assert not layout.has(digest)
        with pytest.raises(OSError):
            layout.open(digest)
