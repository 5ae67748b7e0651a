"""The layer store: whole layers or none, whoever dies and whoever else is at work."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from ocispec.digest import Digest
from runtime.errors import LayerInUse, LayerUnknown, NotEnoughSpace, StoreUnreadable
from runtime.images.store import LayerStore, raise_if_full
from runtime.paths import Paths, layer_name

A, B = Digest.of(b"a"), Digest.of(b"b")


@pytest.fixture
def store(tmp_path: Path) -> LayerStore:
    paths = Paths(str(tmp_path / "root"), str(tmp_path / "run"))
    paths.create()
    return LayerStore(paths)


def fill(store: LayerStore, diff_id: Digest, content: str = "x") -> None:
    with store.begin(diff_id) as pending:
        Path(pending.tree, "file").write_text(content)
        pending.commit(entries=1, size=len(content))


def leftovers(store: LayerStore) -> list[str]:
    return [name for name in os.listdir(store.paths.layers) if ".tmp-" in name]


def test_a_layer_is_there_after_its_commit_and_not_before(store: LayerStore) -> None:
    with store.begin(A) as pending:
        Path(pending.tree, "file").write_text("x")
        assert not store.has(A)
        assert list(store.names()) == []
        with pytest.raises(LayerUnknown):
            store.path(A)
        pending.commit(entries=1, size=1)
        assert store.has(A)
    assert Path(store.path(A), "file").read_text() == "x"
    assert list(store.names()) == [layer_name(A)]


def test_leaving_without_a_commit_leaves_nothing(store: LayerStore) -> None:
    with pytest.raises(KeyError), store.begin(A) as pending:
        Path(pending.tree, "file").write_text("x")
        raise KeyError
    assert os.listdir(store.paths.layers) == []
    assert os.listdir(store.paths.short_links) == []


def test_short_names_lead_to_the_layer(store: LayerStore) -> None:
    fill(store, A)
    short = store.short_name(A)
    assert len(short) == len("l/AB12")
    assert Path(store.paths.root, short, "file").read_text() == "x"


def test_a_lost_short_name_is_made_again(store: LayerStore) -> None:
    fill(store, A)
    link = Path(store.paths.root, store.short_name(A))
    link.unlink()
    assert store.short_name(A) == f"l/{link.name}"
    assert link.exists()


def test_two_at_once_converge(store: LayerStore) -> None:
    with store.begin(A) as first, store.begin(A) as second:
        Path(first.tree, "file").write_text("first")
        Path(second.tree, "file").write_text("second")
        second.commit(entries=1, size=6)
        first.commit(entries=1, size=5)
    assert Path(store.path(A), "file").read_text() == "second"
    assert leftovers(store) == []
    assert os.listdir(store.paths.short_links) == [os.path.basename(store.short_name(A))]


def test_collect_takes_what_the_dead_left_and_not_what_the_living_hold(store: LayerStore) -> None:
    pid = os.fork()
    if pid == 0:
        pending = store.begin(A)
        Path(pending.tree, "half").write_text("x")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    with store.begin(B) as alive:
        assert len(leftovers(store)) == 2
        assert store.collect() == 1
        assert leftovers(store) == [os.path.basename(alive.directory)]
        alive.commit(entries=0, size=0)
    assert store.has(B) and not store.has(A)


def test_collect_removes_short_names_that_lead_nowhere(store: LayerStore) -> None:
    fill(store, A)
    os.symlink(f"../layers/{layer_name(B)}/diff", f"{store.paths.short_links}/DEAD")
    assert store.collect() == 1
    assert os.listdir(store.paths.short_links) == [os.path.basename(store.short_name(A))]


def test_remove(store: LayerStore) -> None:
    fill(store, A)
    store.remove(A, used=frozenset())
    store.remove(A, used=frozenset())
    assert not store.has(A)
    assert os.listdir(store.paths.layers) == os.listdir(store.paths.short_links) == []


def test_a_layer_in_use_stays(store: LayerStore) -> None:
    fill(store, A)
    with pytest.raises(LayerInUse):
        store.remove(A, used=frozenset({layer_name(A)}))
    os.mkdir(store.paths.snapshot("c1"))
    Path(store.paths.snapshot_record("c1")).write_text(f'{{"layers": ["{layer_name(A)}"]}}')
    with pytest.raises(LayerInUse):
        store.remove(A, used=frozenset())
    assert store.has(A)


def test_adopt_takes_a_finished_tree(store: LayerStore) -> None:
    tree = Path(store.paths.snapshots, "upper")
    tree.mkdir()
    (tree / "file").write_text("built")
    store.adopt(A, str(tree), entries=1, size=5)
    assert Path(store.path(A), "file").read_text() == "built"
    assert not tree.exists()


def test_a_full_disk_leaves_nothing_visible(
    store: LayerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NotEnoughSpace), store.begin(A) as pending:
        monkeypatch.setattr(os, "rename", full)
        pending.commit(entries=1, size=1)
    monkeypatch.undo()
    assert not store.has(A)
    assert os.listdir(store.paths.layers) == os.listdir(store.paths.short_links) == []


def test_more_than_the_disk_has_is_refused_before(store: LayerStore) -> None:
    with pytest.raises(NotEnoughSpace) as caught:
        store.require_space(1 << 60)
    assert caught.value.needed == 1 << 60 > caught.value.free


def test_only_a_full_disk_is_called_that() -> None:
    raise_if_full(OSError(errno.EIO, "broken"), "here")
    with pytest.raises(NotEnoughSpace):
        raise_if_full(OSError(errno.EDQUOT, "quota"), "here")


@pytest.mark.parametrize("text", ["", "{}", '{"version": 99}', '{"version": 1}', "[]", "null"])
def test_a_record_that_cannot_be_read(store: LayerStore, text: str) -> None:
    fill(store, A)
    Path(store.paths.layer_record(A)).write_text(text)
    with pytest.raises(StoreUnreadable):
        store.record(A)
