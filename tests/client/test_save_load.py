"""Archives of images: out and in again, in every shape that is known, and from strangers."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from client.errors import ClientError, ContentMismatch, LocalStoreError, RefusedContent
from client.load import Loaded, load
from client.local import LocalStore
from client.localimage import LocalImage
from client.rootfs import import_rootfs
from client.save import SavedImage, save
from ocispec.digest import Digest
from ocispec.errors import SpecError
from tests.builders.images import small_rootfs
from tests.client.conftest import AMD64, DEFAULT, make, reference


@pytest.fixture
def other(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "other"), default_registry="elsewhere:5000")


@pytest.fixture
def image(store: LocalStore) -> LocalImage:
    return import_rootfs(
        io.BytesIO(small_rootfs()),
        store,
        platform=AMD64,
        created="2026-01-01T00:00:00Z",
        source="root.tar",
        names=(reference("team/app:v1"),),
    )


def saved(store: LocalStore, image: LocalImage, *names: str) -> bytes:
    out = io.BytesIO()
    save([SavedImage(image, names)], store, out)
    return out.getvalue()


def loaded(store: LocalStore, raw: bytes) -> tuple[Loaded, ...]:
    return load(io.BytesIO(raw), store, AMD64, source="the archive")


def tar(files: Mapping[str, bytes | str], *, changed: Mapping[str, bytes] | None = None) -> bytes:
    """Files by path; text is a symbolic link's target."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def untar(raw: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]


def everything(store: LocalStore) -> set[Digest]:
    return set(store.layout.digests())


def test_an_image_is_the_same_on_the_other_side(
    store: LocalStore, image: LocalImage, other: LocalStore
) -> None:
    raw = saved(store, image, "team/app:v1", "team/app:latest")
    assert raw == saved(store, image, "team/app:v1", "team/app:latest")
    (done,) = loaded(other, raw)
    assert [str(name) for name in done.names] == [
        "elsewhere:5000/team/app:v1",
        "elsewhere:5000/team/app:latest",
    ]
    found = other.resolve("team/app:v1")
    assert (found.id, found.descriptor) == (image.id, image.descriptor)
    for descriptor in found.manifest.references():
        other.layout.read(descriptor.digest, 64 << 20)  # verifies


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_loading_twice_changes_nothing(
    store: LocalStore, image: LocalImage, other: LocalStore, pack: type[bytes]
) -> None:
    raw = pack(saved(store, image, "team/app:v1"))
    first = loaded(other, raw)
    before = everything(other)
    assert loaded(other, raw)[0].image == first[0].image
    assert everything(other) == before


def test_without_a_name_it_is_known_by_its_id(
    store: LocalStore, image: LocalImage, other: LocalStore
) -> None:
    (done,) = loaded(other, saved(store, image))
    assert done.names == () and other.resolve(str(image.id)).id == image.id


def test_a_layout_of_other_tools_without_manifest_json(
    store: LocalStore, image: LocalImage, other: LocalStore
) -> None:
    files = untar(saved(store, image, "host:1/team/app:v1"))
    del files["manifest.json"]
    (done,) = loaded(other, tar(files))
    assert [str(name) for name in done.names] == ["host:1/team/app:v1"]


def test_what_docker_wrote_before_with_links_between_equal_layers(other: LocalStore) -> None:
    layer = small_rootfs()
    made = make(layer, layer)
    files: dict[str, bytes | str] = {
        "a/VERSION": b"1.0",
        "a/json": b"{}",
        "a/layer.tar": layer,
        "b/layer.tar": "../a/layer.tar",
        f"{made.config.digest.encoded}.json": made.config.raw,
        "manifest.json": json.dumps(
            [
                {
                    "Config": f"{made.config.digest.encoded}.json",
                    "RepoTags": ["old/app:1"],
                    "Layers": ["a/layer.tar", "b/layer.tar"],
                }
            ]
        ).encode(),
        "repositories": b"{}",
    }
    (done,) = loaded(other, tar(files))
    assert done.image.config.diff_ids == (Digest.of(layer),) * 2
    assert [layer.size for layer in done.image.manifest.layers] == [len(layer)] * 2
    assert other.resolve("old/app:1").id == made.config.digest


def test_a_damaged_blob_is_not_passed_on(store: LocalStore, image: LocalImage) -> None:
    (layer,) = image.manifest.layers
    path = Path(store.layout.blob_path(layer.digest))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(LocalStoreError, match="damaged"):
        saved(store, image)


def refused(store: LocalStore, raw: bytes, kind: type[Exception] = ClientError) -> str:
    """Loading fails, and leaves nothing."""
    before = everything(store) if Path(store.root).exists() else set()
    with pytest.raises(kind) as caught:
        loaded(store, raw)
    assert everything(store) == before and store.images() == ()
    return str(caught.value)


def test_an_archive_that_ends_early_leaves_nothing(
    store: LocalStore, image: LocalImage, other: LocalStore
) -> None:
    raw = saved(store, image, "team/app:v1")
    for end in (0, 100, 600, len(raw) // 2, len(raw) - 12_000):
        refused(other, raw[:end])
    assert "not a whole tar" in refused(other, b"no tar at all" * 100)


def test_attack_a_blob_under_another_digest(
    store: LocalStore, image: LocalImage, other: LocalStore
) -> None:
    files = untar(saved(store, image, "team/app:v1"))
    (layer,) = image.manifest.layers
    name = f"blobs/sha256/{layer.digest.encoded}"
    files[name] = files[name][:-1] + b"x"
    refused(other, tar(files), ContentMismatch)


def test_attack_a_layer_that_the_config_does_not_name(other: LocalStore) -> None:
    layer = small_rootfs()
    made = make(layer)
    item = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["l.tar"]}
    files = {"c.json": made.config.raw, "manifest.json": json.dumps([item]).encode()}
    refused(other, tar({**files, "l.tar": layer + bytes(512)}), ContentMismatch)
    refused(other, tar(files), LocalStoreError)
    item["Layers"] = ["l.tar", "l.tar"]
    files["manifest.json"] = json.dumps([item]).encode()
    refused(other, tar({**files, "l.tar": layer}), RefusedContent)


def test_attack_names_and_links_that_lead_outside(other: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes(b"{}")
    for config in ("../secret.json", str(tmp_path / "secret.json"), "link.json", "round.json"):
        item = {"Config": config, "RepoTags": ["a:1"], "Layers": []}
        files: dict[str, bytes | str] = {
            "../../escaped.json": b"x",
            "/absolute.json": b"x",
            "link.json": "../../../secret.json",
            "round.json": "round.json",
            "manifest.json": json.dumps([item]).encode(),
        }
        refused(other, tar(files), LocalStoreError)
    found = [path.name for path in tmp_path.rglob("*.json")]
    assert sorted(found) == ["secret.json"]


@pytest.mark.parametrize(
    "document",
    [b"[]", b"{}", b"[1]", b"not json", b'[{"Config":1}]', b'[{"Config":"c","Layers":[1]}]',
     b'[{"Config":"c","RepoTags":"a"}]', b"[" * 100_000],
)  # fmt: skip
def test_attack_documents_of_nonsense(other: LocalStore, document: bytes) -> None:
    refused(other, tar({"manifest.json": document}), (ClientError, SpecError))  # type: ignore[arg-type]
    refused(other, tar({"index.json": document}), (ClientError, SpecError))  # type: ignore[arg-type]


def test_attack_a_header_that_would_fill_the_memory(other: LocalStore) -> None:
    """A PAX header says that it is 8 GiB long: it is refused before a byte of it is read."""
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 8 << 30
    raw = member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)
    assert "header of" in refused(other, raw, RefusedContent)


def test_attack_devices_and_too_many_files(
    other: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = tarfile.TarInfo("blobs/sha256/device")
    member.type = tarfile.CHRTYPE
    assert "no plain file" in refused(other, member.tobuf() + bytes(1024), RefusedContent)
    monkeypatch.setattr("client.load.MAX_MEMBERS", 3)
    refused(other, tar({f"{n}": b"" for n in range(4)}), RefusedContent)


def test_a_failed_load_takes_nothing_from_images_that_were_here(
    store: LocalStore, image: LocalImage
) -> None:
    files = untar(saved(store, image, "team/app:v1"))
    files["manifest.json"] = b"broken"
    before = everything(store)
    with pytest.raises(SpecError):
        loaded(store, tar(files))
    assert everything(store) == before
    assert store.resolve("team/app:v1") == image
    assert DEFAULT in store.resolve("team/app:v1").names[0]
