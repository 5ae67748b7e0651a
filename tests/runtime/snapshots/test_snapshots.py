"""Snapshots: one suite for what containers see, on overlay and on copies.

The plan is carried out in a child with a mount namespace of its own, as a container's init does.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ocispec.digest import Digest
from runtime.errors import LayerInUse, LayerUnknown, SnapshotError
from runtime.images.store import LayerStore
from runtime.images.unpack import ROOT_RULES, ROOTLESS_RULES, unpack_layer
from runtime.linux import syscalls
from runtime.paths import Paths
from runtime.snapshots.base import MountPlan, Snapshotter
from runtime.snapshots.copying import CopyingSnapshotter
from runtime.snapshots.overlay import OverlaySnapshotter
from tests.builders.archives import archive, describe, directory, file, hard_link, pax, symlink

pytestmark = pytest.mark.root

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000


@pytest.fixture
def place() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def store(place: Path) -> LayerStore:
    paths = Paths(str(place / "root"), str(place / "run"))
    paths.create()
    return LayerStore(paths)


@pytest.fixture(params=["overlay", "copying"])
def snapshotter(request: pytest.FixtureRequest, store: LayerStore) -> Snapshotter:
    return OverlaySnapshotter(store) if request.param == "overlay" else CopyingSnapshotter(store)


def layer(store: LayerStore, *members: bytes, rootless: bool = False) -> Digest:
    """An archive as a layer of the store."""
    raw = archive(*members)
    digest = Digest.of(raw)
    with store.begin(digest) as pending:
        root = os.open(pending.tree, os.O_RDONLY)
        blob = Path(pending.directory, "blob")
        blob.write_bytes(raw)
        with open(blob, "rb", buffering=0) as opened:
            done = unpack_layer(
                opened,
                root,
                digest=digest,
                size=len(raw),
                diff_id=digest,
                rules=ROOTLESS_RULES if rootless else ROOT_RULES,
            )
        blob.unlink()
        os.close(root)
        pending.commit(
            entries=done.entries, size=done.size, opaque=done.opaque, implicit=done.implicit
        )
    return digest


def carry_out(plan: MountPlan, target: str) -> None:
    syscalls.mount("", "/", "", MS_PRIVATE | MS_REC)
    read_only = MS_RDONLY if plan.read_only else 0
    if plan.filesystem == "bind":
        syscalls.mount(plan.source, target, "", MS_BIND | MS_REC)
        if read_only:
            syscalls.mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
        return
    os.chdir(plan.directory)
    syscalls.mount(plan.source, target, plan.filesystem, read_only, plan.data)
    os.chdir("/")


def inside(plan: MountPlan, job: Callable[[str], object], place: Path) -> object:
    """What `job(root)` gives when the plan is mounted at `root`, in a child."""
    target = str(place / "mnt")
    os.makedirs(target, exist_ok=True)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(CLONE_NEWNS)
            carry_out(plan, target)
            os.write(writing, json.dumps({"found": job(target)}).encode())
        except BaseException as error:
            os.write(writing, json.dumps({"error": repr(error)}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as output:
        document = json.loads(output.read())
    os.waitpid(pid, 0)
    assert "error" not in document, document
    return document["found"]


def seen(plan: MountPlan, place: Path) -> object:
    return inside(plan, describe, place)


def f(name: str, content: str = "x", mode: int = 0o644) -> bytes:
    return file(name, content.encode(), mode=mode)


def test_upper_layers_cover_lower_ones(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(store, directory("d"), f("d/a", "1"), f("d/b", "1"), f("f", "1"))
    upper = layer(store, directory("d", 0o700), f("d/a", "2"), directory("f"), f("f/x", "2"))
    plan = snapshotter.prepare("key", (base, upper))
    assert seen(plan, place) == {
        "d": "d700",
        "d/a": "f644 2",
        "d/b": "f644 1",
        "f": "d755",
        "f/x": "f644 2",
    }


def test_whiteouts_and_opaque_directories_hide(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(store, *(f(f"{d}/{n}") for d in "abc" for n in "xy"), f("gone"))
    upper = layer(
        store,
        f(".wh.gone"),
        directory("a"),
        f("a/.wh.x"),
        directory("b"),
        f("b/.wh..wh..opq"),
        f("b/new"),
        f(".wh.c"),
        directory("c"),
        f("c/new"),
    )
    plan = snapshotter.prepare("key", (base, upper))
    found = seen(plan, place)
    assert isinstance(found, dict)
    assert sorted(found) == ["a", "a/y", "b", "b/new", "c", "c/new"]


def test_a_link_of_a_lower_layer_is_replaced_by_a_directory_of_an_upper(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    """As docker's overlay2 and podman do; builders write `usr/bin/x`, and that merges."""
    base = layer(store, directory("usr"), directory("usr/bin"), symlink("bin", "usr/bin"))
    merged = layer(store, f("usr/bin/tool"))
    plan = snapshotter.prepare("merged", (base, merged))
    assert seen(plan, place) == {
        "usr": "d755",
        "usr/bin": "d755",
        "usr/bin/tool": "f644 x",
        "bin": "l usr/bin",
    }
    replaced = layer(store, directory("bin"), f("bin/tool"))
    plan = snapshotter.prepare("replaced", (base, replaced))
    found = seen(plan, place)
    assert isinstance(found, dict)
    assert found["bin"] == "d755" and found["bin/tool"] == "f644 x"


def test_a_directory_that_an_upper_layer_only_implies_keeps_its_attributes(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(store, directory("tmp", 0o1777, uid=3, mtime=99), directory("tmp/in", 0o711))
    middle = layer(store, f("tmp/in/x"))
    top = layer(store, f("tmp/y"), f("own/z"))
    plan = snapshotter.prepare("key", (base, middle, top))

    def attributes(root: str) -> list[object]:
        tmp = os.stat(f"{root}/tmp")
        return [describe(root), tmp.st_uid, tmp.st_mtime]

    assert inside(plan, attributes, place) == [
        {
            "tmp": "d1777",
            "tmp/in": "d711",
            "tmp/in/x": "f644 x",
            "tmp/y": "f644 x",
            "own": "d755",
            "own/z": "f644 x",
        },
        3,
        99,
    ]


def test_an_opaque_root_hides_everything_below(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(store, f("old"))
    upper = layer(store, f(".wh..wh..opq"), f("new"))
    assert seen(snapshotter.prepare("key", (base, upper)), place) == {"new": "f644 x"}


def test_the_same_layer_twice(store: LayerStore, snapshotter: Snapshotter, place: Path) -> None:
    one, two = layer(store, f("a", "1"), f("b", "1")), layer(store, f("a", "2"))
    plan = snapshotter.prepare("key", (one, two, one))
    assert seen(plan, place) == {"a": "f644 1", "b": "f644 1"}


def test_hard_links_and_attributes_are_kept(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(
        store,
        pax({"SCHILY.xattr.user.note": "kept", "mtime": "12.25"}),
        file("d/a", b"x", mode=0o4711, uid=5, gid=6),
        hard_link("b", "d/a"),
    )

    def facts(root: str) -> list[object]:
        a, b = os.stat(f"{root}/d/a"), os.stat(f"{root}/b")
        note = os.getxattr(f"{root}/b", "user.note").decode()
        return [a.st_ino == b.st_ino, oct(a.st_mode), a.st_uid, a.st_gid, a.st_mtime, note]

    plan = snapshotter.prepare("key", (base,))
    assert inside(plan, facts, place) == [True, "0o104711", 5, 6, 12.25, "kept"]


def test_the_root_looks_like_the_top_layers(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(store, directory("./", 0o750, uid=7))
    plan = snapshotter.prepare("key", (base,))
    found = inside(plan, lambda root: [oct(os.stat(root).st_mode), os.stat(root).st_uid], place)
    assert found == ["0o40750", 7]


def test_writes_stay_in_the_snapshot(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    base = layer(store, f("a", "base"), f("gone"))

    def write(root: str) -> None:
        Path(root, "a").write_text("mine")
        Path(root, "gone").unlink()
        Path(root, "new").mkdir()

    inside(snapshotter.prepare("one", (base,)), write, place)
    assert seen(snapshotter.mounts("one"), place) == {"a": "f644 mine", "new": "d755"}
    other = snapshotter.prepare("two", (base,))
    assert seen(other, place) == {"a": "f644 base", "gone": "f644 x"}
    assert describe(store.path(base)) == {"a": "f644 base", "gone": "f644 x"}


def test_a_view_cannot_be_written(store: LayerStore, snapshotter: Snapshotter, place: Path) -> None:
    base = layer(store, f("a"))
    plan = snapshotter.view("key", (base,))
    assert plan.read_only

    def write(root: str) -> str:
        try:
            Path(root, "a").write_text("mine")
        except OSError as error:
            return os.strerror(error.errno or 0)
        return "written"

    assert inside(plan, write, place) == "Read-only file system"
    assert seen(plan, place) == {"a": "f644 x"}


def test_an_image_without_layers_is_an_empty_root(
    store: LayerStore, snapshotter: Snapshotter, place: Path
) -> None:
    assert seen(snapshotter.prepare("rw", ()), place) == {}
    assert seen(snapshotter.view("ro", ()), place) == {}


def test_a_key_is_taken_once(store: LayerStore, snapshotter: Snapshotter) -> None:
    base = layer(store, f("a"))
    snapshotter.prepare("key", (base,))
    with pytest.raises(SnapshotError, match="already"):
        snapshotter.prepare("key", (base,))
    snapshotter.remove("key")
    snapshotter.remove("key")
    snapshotter.prepare("key", (base,))


def test_a_missing_layer_leaves_no_snapshot(store: LayerStore, snapshotter: Snapshotter) -> None:
    with pytest.raises(LayerUnknown):
        snapshotter.prepare("key", (Digest.of(b"missing"),))
    assert os.listdir(store.paths.snapshots) == []
    with pytest.raises(SnapshotError, match="no snapshot"):
        snapshotter.mounts("key")


def test_a_layer_below_a_snapshot_cannot_be_removed(
    store: LayerStore, snapshotter: Snapshotter
) -> None:
    base = layer(store, f("a"))
    snapshotter.prepare("key", (base,))
    with pytest.raises(LayerInUse):
        store.remove(base, used=frozenset())
    snapshotter.remove("key")
    store.remove(base, used=frozenset())


def test_a_key_is_not_a_path(snapshotter: Snapshotter) -> None:
    from runtime.errors import EngineError

    with pytest.raises(EngineError):
        snapshotter.prepare("../x", ())


# --- overlay alone ------------------------------------------------------------------------------


def test_the_plan_is_short_names_from_the_root(store: LayerStore) -> None:
    one, two = layer(store, f("a")), layer(store, f("b"))
    plan = OverlaySnapshotter(store).prepare("key", (one, two), volatile=True)
    assert plan == MountPlan(
        filesystem="overlay",
        source="overlay",
        directory=store.paths.root,
        data=f"lowerdir={store.short_name(two)}:{store.short_name(one)},"
        "upperdir=snapshots/key/upper,workdir=snapshots/key/work,"
        "index=off,redirect_dir=nofollow,metacopy=off,volatile",
        read_only=False,
    )


def test_five_hundred_layers(store: LayerStore, place: Path) -> None:
    layers = tuple(layer(store, f(f"f{i}", "")) for i in range(500))
    snapshotter = OverlaySnapshotter(store)
    plan = snapshotter.prepare("0123456789abcdef" * 4, layers)
    found = seen(plan, place)
    assert isinstance(found, dict) and len(found) == 500
    with pytest.raises(SnapshotError, match="501 layers"):
        snapshotter.prepare("more", (*layers, layer(store, f("one more"))))


def test_a_volatile_snapshot_mounts_again_in_the_same_boot(store: LayerStore, place: Path) -> None:
    base = layer(store, f("a"))
    snapshotter = OverlaySnapshotter(store)
    plan = snapshotter.prepare("key", (base,), volatile=True)
    inside(plan, lambda root: Path(root, "b").write_text("x"), place)
    assert seen(snapshotter.mounts("key"), place) == {"a": "f644 x", "b": "f644 x"}


def test_a_volatile_snapshot_is_lost_after_a_boot(store: LayerStore) -> None:
    snapshotter = OverlaySnapshotter(store)
    snapshotter.prepare("key", (layer(store, f("a")),), volatile=True)
    record = Path(store.paths.snapshot_record("key"))
    document = json.loads(record.read_text())
    record.write_text(json.dumps(document | {"boot": "another"}))
    with pytest.raises(SnapshotError, match="machine went down"):
        snapshotter.mounts("key")


def test_commit_makes_the_upper_a_layer(store: LayerStore, place: Path) -> None:
    base = layer(store, f("a"), f("b"))
    snapshotter = OverlaySnapshotter(store)

    def build(root: str) -> None:
        Path(root, "a").unlink()
        Path(root, "new").write_text("built")

    inside(snapshotter.prepare("key", (base,)), build, place)
    made = Digest.of(b"computed by a walk of the upper")
    snapshotter.commit("key", made, entries=2, size=5)
    assert not os.path.exists(store.paths.snapshot("key"))
    plan = snapshotter.prepare("next", (base, made))
    assert seen(plan, place) == {"b": "f644 x", "new": "f644 built"}


def test_renaming_a_directory_leaves_no_redirect(store: LayerStore, place: Path) -> None:
    snapshotter = OverlaySnapshotter(store)
    plan = snapshotter.prepare("key", (layer(store, directory("d"), f("d/a")),))

    def rename(root: str) -> str:
        try:
            os.rename(f"{root}/d", f"{root}/e")
        except OSError as error:
            return os.strerror(error.errno or 0)
        return "renamed"

    assert inside(plan, rename, place) == "Invalid cross-device link"


@pytest.mark.parametrize("text", ["", "{}", "null", '{"version": 2}', '{"version": 1}'])
def test_a_record_that_cannot_be_read(
    store: LayerStore, snapshotter: Snapshotter, text: str
) -> None:
    snapshotter.prepare("key", (layer(store, f("a")),))
    Path(store.paths.snapshot_record("key")).write_text(text)
    with pytest.raises(SnapshotError):
        snapshotter.mounts("key")


def test_without_root_in_a_user_namespace(place: Path) -> None:
    """Whiteouts, opaque directories and writes, with one mapped id and userxattr."""
    os.chown(place, 65534, 65534)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.write(writing, json.dumps(_rootless(place)).encode())
        except BaseException as error:
            os.write(writing, json.dumps(repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as output:
        found = json.loads(output.read())
    os.waitpid(pid, 0)
    assert found == {"d": "d755", "d/new": "f644 x", "kept": "f644 x", "mine": "f644 w"}


def _rootless(place: Path) -> dict[str, str]:
    paths = Paths(str(place / "root"), str(place / "run"))
    paths.create()
    store = LayerStore(paths)
    base = layer(store, f("d/old"), f("gone"), f("kept"), rootless=True)
    top = layer(store, f(".wh.gone"), f("d/.wh..wh..opq"), f("d/new"), rootless=True)
    plan = OverlaySnapshotter(store, rootless=True).prepare("key", (base, top))
    os.mkdir(place / "mnt")
    # Dumpable again, so that our own /proc files are ours after the change of user.
    syscalls.prctl(4, 1)
    syscalls.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text("0 65534 1")
    Path("/proc/self/gid_map").write_text("0 65534 1")
    carry_out(plan, str(place / "mnt"))
    (place / "mnt/mine").write_text("w")
    return describe(str(place / "mnt"), "user.overlay.")


def test_removal_needs_no_permission_inside(store: LayerStore, snapshotter: Snapshotter) -> None:
    base = layer(store, directory("no", 0), f("no/a"))
    snapshotter.prepare("key", (base,))
    snapshotter.remove("key")
    assert os.listdir(store.paths.snapshots) == []
    assert stat.S_ISDIR(os.stat(store.path(base)).st_mode)
