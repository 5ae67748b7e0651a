"""Unpacking in parallel, in processes that can be killed, lied to and left alone."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocispec.digest import Digest
from runtime.errors import (
    EngineError,
    HostileEntry,
    InvalidArchive,
    LayerMismatch,
    LimitExceeded,
    NotEnoughSpace,
)
from runtime.images.limits import Limits
from runtime.images.pool import UnpackJob, UnpackPool, error_document, error_from_document
from runtime.images.store import LayerStore
from runtime.paths import Paths
from tests.builders.archives import archive, device, directory, file, gzipped, symlink

pytestmark = pytest.mark.root


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    return LayerStore(Paths(str(tmp_path / "root"), str(tmp_path / "run")))


def job(folder: Path, *members: bytes, raw: bytes = b"") -> UnpackJob:
    raw = raw or gzipped(*members)
    digest = Digest.of(raw)
    path = folder / digest.encoded
    path.write_bytes(raw)
    try:
        diff_id = Digest.of(gzip.decompress(raw))
    except (OSError, EOFError):
        diff_id = Digest.of(raw)
    return UnpackJob(str(path), digest, len(raw), diff_id)


def test_layers_are_in_the_store_when_collected(store: LayerStore, tmp_path: Path) -> None:
    jobs = [job(tmp_path, file(f"file{i}", b"x" * i)) for i in range(8)]
    with UnpackPool(store) as pool:
        for each in jobs:
            pool.submit(each)
        ended = set()
        while (one := pool.collect()) is not None:
            assert one[1] is None
            ended.add(one[0])
            assert store.has(one[0])
    assert ended == {each.diff_id for each in jobs}
    for i, each in enumerate(jobs):
        assert Path(store.path(each.diff_id), f"file{i}").stat().st_size == i
        assert store.record(each.diff_id).size == i


def test_a_layer_that_is_there_ends_at_once(store: LayerStore, tmp_path: Path) -> None:
    each = job(tmp_path, file("a"))
    with UnpackPool(store) as pool:
        pool.submit(each)
        pool.submit(each)
        pool.finish()
        os.unlink(each.path)
        pool.submit(each)
        pool.finish()


def test_one_bad_layer_does_not_hurt_the_others(store: LayerStore, tmp_path: Path) -> None:
    good, bad = job(tmp_path, file("a")), job(tmp_path, file("../a"))
    with UnpackPool(store) as pool:
        pool.submit(bad)
        pool.submit(good)
        ended = dict(filter(None, (pool.collect(), pool.collect())))
    assert ended[good.diff_id] is None
    assert isinstance(ended[bad.diff_id], HostileEntry)
    assert store.has(good.diff_id) and not store.has(bad.diff_id)
    assert [name for name in os.listdir(store.paths.layers) if ".tmp-" in name] == []


def test_errors_cross_with_their_kind_text_and_facts(store: LayerStore, tmp_path: Path) -> None:
    each = job(tmp_path, file("../a"))
    with UnpackPool(store) as pool:
        pool.submit(each)
        with pytest.raises(HostileEntry) as caught:
            pool.finish()
    assert caught.value.name == "'../a'"
    assert str(caught.value) == f"layer {each.digest}: entry '../a': it leaves the layer"


@pytest.mark.parametrize(
    "error",
    [
        InvalidArchive("bad", offset=7),
        LayerMismatch("digest", expected="a", found="b"),
        NotEnoughSpace("full", needed=1, free=2),
        LimitExceeded("deep", limit="depth", hint="try"),
        EngineError("plain"),
    ],
)
def test_errors_survive_a_round_trip(error: EngineError) -> None:
    again = error_from_document(error_document(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_cut_off_blob(store: LayerStore, tmp_path: Path) -> None:
    whole = job(tmp_path, file("a", b"x" * 100_000))
    raw = Path(whole.path).read_bytes()
    Path(whole.path).write_bytes(raw[: len(raw) // 2])
    with UnpackPool(store) as pool, pytest.raises(LayerMismatch, match="size of the blob"):
        pool.submit(whole)
        pool.finish()
    assert not store.has(whole.diff_id)


def test_a_blob_that_is_missing_or_a_link(store: LayerStore, tmp_path: Path) -> None:
    each = job(tmp_path, file("a"))
    os.rename(each.path, each.path + "x")
    os.symlink(each.path + "x", each.path)
    with UnpackPool(store) as pool, pytest.raises(EngineError, match="cannot unpack"):
        pool.submit(each)
        pool.finish()


def test_a_bomb_ends_in_a_clear_error_and_little_memory(store: LayerStore, tmp_path: Path) -> None:
    """CVE-2017-14992: one gigabyte of zeros in a megabyte of gzip."""
    zeros = gzip.compress(bytes(64 << 20), 6)
    start = gzip.compress(file("zeros", b"")[:124] + b"00000000000\0" + file("z")[136:512], 1)
    each = job(tmp_path, raw=start + zeros * 16)
    # In a process of its own: the figure is the largest of all children that there ever were.
    script = (
        "import resource, sys\n"
        "from ocispec.digest import Digest\n"
        "from runtime.errors import InvalidArchive, LimitExceeded\n"
        "from runtime.images.pool import UnpackJob, UnpackPool\n"
        "from runtime.images.store import LayerStore\n"
        "from runtime.paths import Paths\n"
        "root, path, digest, size, diff_id = sys.argv[1:]\n"
        "job = UnpackJob(path, Digest.parse(digest), int(size), Digest.parse(diff_id))\n"
        "try:\n"
        "    with UnpackPool(LayerStore(Paths(root + '/root', root + '/run'))) as pool:\n"
        "        pool.submit(job)\n"
        "        pool.finish()\n"
        "except (LimitExceeded, InvalidArchive):\n"
        "    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    words = [str(tmp_path), each.path, str(each.digest), str(each.size), str(each.diff_id)]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 400 << 10, done.stderr


def test_limits_are_given_to_the_children(store: LayerStore, tmp_path: Path) -> None:
    each = job(tmp_path, file("a"), file("b"))
    with (
        UnpackPool(store, limits=Limits(entries=1)) as pool,
        pytest.raises(LimitExceeded) as caught,
    ):
        pool.submit(each)
        pool.finish()
    assert caught.value.limit == "entries"


def test_an_image_cannot_give_the_child_code_to_import(store: LayerStore, tmp_path: Path) -> None:
    """After the chroot, an import would find the image's files at our library's path."""
    evil = b"open('/imported', 'w')"
    library = os.path.dirname(os.__file__)
    names = ("encodings/idna", "traceback", "linecache", "textwrap", "zlib")
    members = [file(f"{library}/{name}.py", evil) for name in names]
    each = job(tmp_path, *members, file("../escape"))
    with UnpackPool(store) as pool, pytest.raises(HostileEntry):
        pool.submit(each)
        pool.finish()
    assert not os.path.exists("/imported")


def test_what_is_left_out_is_told(store: LayerStore, tmp_path: Path) -> None:
    each = job(tmp_path, device("null", b"3", 1, 3), file("a"))
    with UnpackPool(store, rootless=True) as pool:
        pool.submit(each)
        pool.finish()
        assert pool.left_out == ["device node, which needs root (1)"]


def test_a_new_pool_clears_what_a_killed_one_left(store: LayerStore, tmp_path: Path) -> None:
    store.paths.create()
    left = f"{store.paths.layers}/sha256-{'0' * 64}.tmp-dead"
    os.makedirs(left + "/diff/half")
    with UnpackPool(store) as pool:
        pool.submit(job(tmp_path, file("a")))
        pool.finish()
    assert not os.path.exists(left)


def slow_job(folder: Path) -> UnpackJob:
    """Takes a few seconds: many small files."""
    return job(folder, raw=gzip.compress(archive(*(file(f"f{i}") for i in range(100_000))), 1))


def processes_below(pid: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and _parent(entry) == pid:
            found += [int(entry), *processes_below(int(entry))]
    return found


def _parent(pid: str) -> int:
    try:
        return int(Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def wait_until(condition: object, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_leaving_early_ends_what_runs_and_leaves_nothing(store: LayerStore, tmp_path: Path) -> None:
    each = slow_job(tmp_path)
    with UnpackPool(store) as pool:
        pool.submit(each)
        wait_until(lambda: os.listdir(store.paths.layers))
    assert os.listdir(store.paths.layers) == []
    assert not store.has(each.diff_id)


def test_when_the_command_is_killed_everything_ends(store: LayerStore, tmp_path: Path) -> None:
    each = slow_job(tmp_path)
    store.paths.create()
    command = os.fork()
    if command == 0:
        try:
            pool = UnpackPool(store)
            pool.submit(each)
            pool.collect()
        finally:
            os._exit(1)
    wait_until(lambda: os.listdir(store.paths.layers))
    family = processes_below(command)
    assert family
    os.kill(command, signal.SIGKILL)
    os.waitpid(command, 0)
    wait_until(lambda: not any(_is_running(pid) for pid in family))
    store.collect()
    assert os.listdir(store.paths.layers) == []
    assert not store.has(each.diff_id)


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as opened:
            return opened.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_child_that_is_killed_is_one_failed_layer(store: LayerStore, tmp_path: Path) -> None:
    slow, quick = slow_job(tmp_path), job(tmp_path, file("a"))
    before = set(processes_below(os.getpid()))
    with UnpackPool(store, workers=1) as pool:
        (server,) = set(processes_below(os.getpid())) - before
        pool.submit(slow)
        wait_until(lambda: processes_below(server))
        wait_until(lambda: os.listdir(store.paths.layers))
        (child,) = processes_below(server)
        pool.submit(quick)
        os.kill(child, signal.SIGKILL)
        first = pool.collect()
        second = pool.collect()
    assert first is not None and second is not None
    assert first[0] == slow.diff_id and "signal 9" in str(first[1])
    assert second == (quick.diff_id, None)


def test_two_pools_at_the_same_layer_both_succeed(store: LayerStore, tmp_path: Path) -> None:
    each = job(tmp_path, directory("d"), file("d/a", b"x" * 1000), symlink("l", "d"))
    with UnpackPool(store) as one, UnpackPool(store) as two:
        for pool in (one, two):
            pool.submit(each)
        one.finish()
        two.finish()
    assert os.listdir(store.paths.layers) == [f"sha256-{each.diff_id.encoded}"]


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=70m", "none", mount], check=True)
    try:
        store = LayerStore(Paths(str(mount), str(tmp_path / "run")))
        each = job(tmp_path, file("big", os.urandom(1 << 10) * (100 << 10)))
        with UnpackPool(store) as pool, pytest.raises(NotEnoughSpace, match="no space left"):
            pool.submit(each)
            pool.finish()
        assert os.listdir(store.paths.layers) == []
    finally:
        subprocess.run(["umount", mount], check=True)
