"""The local store: names, ids, what removal removes, and what it never does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.errors import AmbiguousImage, ImageInUse, ImageNotFound, LocalStoreError
from client.local import LocalStore
from client.localimage import LocalImage
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.distribution.reference import Reference
from ocispec.errors import SpecError
from ocispec.image.manifest import new_index
from ocispec.mediatype import OCI_LAYER_GZIP
from tests.client.conftest import descriptor, make, put, reference


def test_an_empty_store_lists_nothing_and_creates_nothing(store: LocalStore) -> None:
    assert store.images() == ()
    assert not os.path.exists(store.root)


def test_what_is_recorded_is_found_by_name_id_and_digest(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "omrisiri/wget")
    for wanted in (
        "omrisiri/wget",
        "omrisiri/wget:latest",
        "localhost:5000/omrisiri/wget",
        f"omrisiri/wget@{made.manifest.digest}",
        str(made.config.digest),
        made.config.digest.encoded,
        made.config.digest.encoded[:12],
        made.config.digest.encoded[:4],
        made.manifest.digest.encoded,
    ):
        found = store.resolve(wanted)
        assert found.id == made.config.digest, wanted
        assert found.names == ("localhost:5000/omrisiri/wget:latest",)
    assert store.resolve("omrisiri/wget").config.cmd == ("true",)
    assert store.resolve("omrisiri/wget").manifest.raw == made.manifest.raw


def test_what_is_not_there_is_said_as_docker_says_it(store: LocalStore) -> None:
    put(store, make(b"layer"), "here:1")
    for wanted in ("here:2", "elsewhere", "docker.io/here:1", "0" * 64, "sha256:" + "0" * 64):
        with pytest.raises(ImageNotFound, match="No such image"):
            store.resolve(wanted)
        assert store.find(wanted) is None
    with pytest.raises(SpecError):
        store.resolve("Not/A/Name")


def test_a_name_is_tried_before_an_id(store: LocalStore) -> None:
    first = make(b"first")
    put(store, first, "one")
    second = make(b"second")
    put(store, second, first.config.digest.encoded[:12])
    assert store.resolve(first.config.digest.encoded[:12]).id == second.config.digest


def test_an_id_prefix_of_two_images_is_ambiguous(store: LocalStore) -> None:
    ids: dict[str, list[str]] = {}
    for number in range(40):  # two of forty share a first digit
        made = make(str(number).encode())
        put(store, made, f"image:{number}")
        ids.setdefault(made.config.digest.encoded[0], []).append(made.config.digest.encoded)
    prefix = next(first for first, found in ids.items() if len(found) > 1)
    with pytest.raises(AmbiguousImage) as caught:
        store.resolve("sha256:" + prefix)
    assert len(caught.value.candidates) == len(ids[prefix])


def test_a_name_that_moves_leaves_the_old_image_dangling(store: LocalStore) -> None:
    old, new = make(b"old"), make(b"new")
    put(store, old, "image")
    put(store, new, "image")
    assert store.resolve("image").id == new.config.digest
    assert store.resolve(str(old.config.digest)).names == ()
    put(store, old, "image:old")  # and gets a name again: one entry, not two
    assert store.resolve(str(old.config.digest)).names == ("localhost:5000/image:old",)
    assert len(store.images()) == 2


def test_recording_twice_changes_nothing(store: LocalStore) -> None:
    put(store, make(b"layer"), "image")
    before = Path(store.root, "index.json").stat()
    put(store, make(b"layer"), "image")
    assert Path(store.root, "index.json").stat().st_ino == before.st_ino


def test_images_are_listed_newest_first_with_all_their_names(store: LocalStore) -> None:
    put(store, make(b"a", created="2025-01-01T00:00:00Z"), "old")
    put(store, make(b"b", created="2026-01-01T00:00:00Z"), "new", "another:tag")
    listed = store.images()
    assert [image.names for image in listed] == [
        ("localhost:5000/another:tag", "localhost:5000/new:latest"),
        ("localhost:5000/old:latest",),
    ]


def test_listing_opens_only_the_index(store: LocalStore) -> None:
    put(store, make(b"layer"), "image")
    for directory, _, names in os.walk(os.path.join(store.root, "blobs")):
        for name in names:
            os.unlink(os.path.join(directory, name))
    (image,) = store.images()
    assert image.size == 5 and image.platform == "linux/amd64"
    with pytest.raises(LocalStoreError, match="missing"):
        _ = image.manifest


def test_entries_of_another_tool_are_understood(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "image")
    index = Path(store.root, "index.json")
    document = json.loads(index.read_text())
    del document["manifests"][0]["annotations"]
    index.write_text(json.dumps(document))
    assert store.resolve(str(made.config.digest)).size == 5


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"manifests": 3}', b"\xff", b"[" * 100_000])
def test_a_damaged_index_is_an_error_that_names_the_file(store: LocalStore, raw: bytes) -> None:
    put(store, make(b"layer"), "image")
    Path(store.root, "index.json").write_bytes(raw)
    with pytest.raises(LocalStoreError, match=r"index\.json"):
        store.images()


def test_removing_a_name_keeps_the_image_while_another_remains(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "one", "two")
    done = store.remove("one")
    assert done.untagged == ("localhost:5000/one:latest",)
    assert done.image is None and done.deleted == ()
    done = store.remove("two")
    assert done.image is not None and done.image.id == made.config.digest
    assert set(done.deleted) == {
        made.manifest.digest, made.config.digest, Digest.of(b"layer")
    }  # fmt: skip
    assert list(store.layout.digests()) == []


def test_shared_layers_stay_until_their_last_image_goes(store: LocalStore) -> None:
    put(store, make(b"shared", b"a"), "one")
    put(store, make(b"shared", b"b"), "two")
    store.remove("one")
    assert store.layout.has(Digest.of(b"shared")) and not store.layout.has(Digest.of(b"a"))
    store.remove("two")
    assert not store.layout.has(Digest.of(b"shared"))


def test_removing_by_id_takes_the_only_tag_and_the_digest(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "image:1", f"image@{made.manifest.digest}")
    done = store.remove(made.config.digest.encoded[:12])
    assert len(done.untagged) == 2 and store.images() == ()


def test_the_last_tag_of_a_repository_takes_the_digest_along(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "image:1", "image:2", f"image@{made.manifest.digest}")
    assert len(store.remove("image:1").untagged) == 1
    assert len(store.remove("image:2").untagged) == 2
    assert store.images() == ()


def test_a_digest_in_another_repository_is_not_taken_along(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "image:1", f"other@{made.manifest.digest}")
    assert len(store.remove("image:1").untagged) == 1
    assert store.images()[0].names == (f"localhost:5000/other@{made.manifest.digest}",)


@pytest.mark.parametrize("names", [("one", "two"), ("one:1", "one:2")])
def test_removing_by_id_with_several_names_needs_force(
    store: LocalStore, names: tuple[str, str]
) -> None:
    made = make(b"layer")
    put(store, made, *names)
    with pytest.raises(ImageInUse, match=r"several names: .*one"):
        store.remove(str(made.config.digest))
    assert len(store.images()[0].names) == 2  # refused, and nothing changed
    store.remove(str(made.config.digest), force=True)
    assert store.images() == ()


def test_what_a_lease_holds_survives_a_removal(store: LocalStore) -> None:
    put(store, make(b"shared", b"mine"), "image")
    with store.lease() as lease:
        lease.hold([Digest.of(b"shared")])
        done = store.remove("image")
        assert Digest.of(b"shared") not in done.deleted
        assert store.layout.has(Digest.of(b"shared"))
        assert not store.layout.has(Digest.of(b"mine"))


def test_the_lease_of_a_dead_process_holds_nothing(store: LocalStore) -> None:
    put(store, make(b"layer"), "image")
    script = (
        "import os, sys; from client.local import LocalStore; from ocispec.digest import Digest\n"
        f"lease = LocalStore({store.root!r}, default_registry='localhost:5000').lease()\n"
        f"lease.hold([Digest.of(b'layer')]); os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", script], cwd=root).returncode == -9
    assert len(os.listdir(os.path.join(store.root, "leases"))) == 1
    store.remove("image")
    assert not store.layout.has(Digest.of(b"layer"))
    assert os.listdir(os.path.join(store.root, "leases")) == []


def test_an_index_is_kept_with_the_platform_that_is_here(store: LocalStore) -> None:
    here = make(b"layer")
    absent = Descriptor(media_type=here.manifest.media_type, digest=Digest.of(b"elsewhere"), size=9)
    index = new_index([descriptor(here.manifest), absent])
    put(store, here)
    store.layout.put(index.raw)
    target = Descriptor(media_type=index.media_type, digest=index.digest, size=len(index.raw))
    store.record(
        target,
        names=[reference("image")],
        manifest=descriptor(here.manifest),
        from_registry=True,
    )
    image = store.resolve(f"image@{index.digest}")
    assert image.target.digest == index.digest
    assert image.descriptor.digest == here.manifest.digest
    assert image.repo_digests == (f"localhost:5000/image@{index.digest}",)
    store.remove("image")
    assert list(store.layout.digests()) == []


def test_a_gzip_layer_counts_unpacked(store: LocalStore) -> None:
    import gzip

    from ocispec.image.manifest import new_manifest

    made = make(b"x")
    raw = gzip.compress(bytes(100_000))
    config = descriptor(made.manifest)
    layer = Descriptor(media_type=OCI_LAYER_GZIP, digest=Digest.of(raw), size=len(raw))
    manifest = new_manifest(made.manifest.config, [layer])
    with store.lease():
        for blob in (made.config.raw, raw, manifest.raw):
            store.layout.put(blob)
    assert config.size
    assert store.record(descriptor(manifest), names=[reference("image")]).size == 100_000


def test_the_start_path_imports_nothing_heavy() -> None:
    """`pyreg run` imports this module; each of these would cost it milliseconds."""
    script = (
        "import sys; import client.local, client.errors, client.localimage\n"
        "bad = {'dataclasses','typing','pathlib','subprocess','logging','tempfile','shutil',"
        "'asyncio','hashlib','httpx','ssl','argparse','tarfile','concurrent.futures','threading',"
        "'http.client','fcntl','urllib.parse'}\n"
        "print(*sorted(bad & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_many_processes_record_at_once(store: LocalStore) -> None:
    """Every one of them finds its name afterwards: no update of the index is lost."""
    made = make(b"layer")
    put(store, made, "image")
    script = (
        "import sys; from client.local import LocalStore\n"
        "from ocispec.distribution.reference import Reference\n"
        f"store = LocalStore({store.root!r}, default_registry='localhost:5000')\n"
        "for number in range(10):\n"
        "    name = Reference.parse(f'p{sys.argv[1]}:{number}', default_registry='localhost:1')\n"
        "    store.tag('image', name)\n"
    )
    root = Path(__file__).resolve().parents[2]
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(number)], cwd=root)
        for number in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert len(store.images()[0].names) == 41


def test_references_read_back(store: LocalStore) -> None:
    put(store, make(b"layer"), "docker.io/library/debian:12")
    (image,) = store.images()
    (name,) = image.names
    parsed = Reference.parse(name, default_registry="localhost:5000")
    assert str(parsed) == name == "docker.io/library/debian:12"


def test_a_digest_decides_over_a_tag(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, f"image:1@{made.manifest.digest}")
    assert store.images()[0].names == (f"localhost:5000/image@{made.manifest.digest}",)
    assert store.resolve(f"image:2@{made.manifest.digest}").id == made.config.digest


def test_removing_by_digest_does_not_take_tags_along(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "image:1")
    with pytest.raises(ImageInUse, match="named by tags"):
        store.remove(f"image@{made.manifest.digest}")
    assert store.find("image:1")
    put(store, made, f"image@{made.manifest.digest}")
    done = store.remove(f"image@{made.manifest.digest}")
    assert done.untagged == (f"localhost:5000/image@{made.manifest.digest}",)
    assert done.image is None and store.find("image:1")


def test_a_removal_sweeps_what_pulls_left_behind_a_day_ago(store: LocalStore) -> None:
    put(store, make(b"layer"), "image")
    old, young = store.layout.put(b"old orphan"), store.layout.put(b"young orphan")
    partial = Path(store.root, "ingest", "sha256-old.partial")
    partial.write_bytes(b"x")
    for path in (store.layout.blob_path(old), str(partial)):
        os.utime(path, (1, 1))
    assert store.remove("image").image is not None
    assert list(store.layout.digests()) == [young]
    assert not partial.exists()


def test_a_guard_may_keep_an_image_from_going_with_its_last_name(store: LocalStore) -> None:
    made = make(b"layer")
    put(store, made, "one", "two")
    asked = []

    def guard(image: LocalImage) -> None:
        asked.append(image.id)
        raise ImageInUse("a container is using it")

    store.remove("one", guard=guard)  # another name remains: nobody asks
    assert asked == []
    with pytest.raises(ImageInUse, match="container"):
        store.remove("two", guard=guard)
    assert asked == [made.config.digest]
    assert store.resolve("two").manifest.raw == made.manifest.raw  # and nothing is gone
