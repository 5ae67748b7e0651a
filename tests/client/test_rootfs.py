"""Import: any tar becomes one layer, the same one every time."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.changes import InvalidChange, Settings, apply
from client.errors import LocalStoreError
from client.local import LocalStore
from client.localimage import LocalImage
from client.rootfs import import_rootfs
from ocispec.digest import Digest
from ocispec.image.platform import Platform
from tests.builders.images import small_rootfs
from tests.client.conftest import reference

TAR = small_rootfs()


def import_bytes(store: LocalStore, raw: bytes, **more: object) -> LocalImage:
    arguments: dict[str, object] = {
        "platform": Platform("linux", "amd64"),
        "created": "2026-01-01T00:00:00Z",
        "source": "root.tar",
        **more,
    }
    return import_rootfs(io.BytesIO(raw), store, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_is_one_layer_however_it_was_compressed(
    store: LocalStore, pack: Callable[[bytes], bytes]
) -> None:
    image = import_bytes(store, pack(TAR), names=(reference("root"),))
    assert image.config.diff_ids == (Digest.of(TAR),)
    (layer,) = image.manifest.layers
    packed = store.layout.read(layer.digest, 10_000_000)
    assert gzip.decompress(packed) == TAR and len(packed) == layer.size
    assert image.names == ("localhost:5000/root:latest",)
    assert image.size == len(TAR)


def test_the_same_input_is_the_same_image(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore(str(tmp_path / "other"), default_registry="localhost:5000")
    first = import_bytes(store, TAR)
    second = import_bytes(other, gzip.compress(TAR, mtime=12345))
    assert first.id == second.id and first.descriptor.digest == second.descriptor.digest


def test_several_gzip_members_are_one_tar(store: LocalStore) -> None:
    raw = gzip.compress(TAR[:1000]) + gzip.compress(TAR[1000:])
    assert import_bytes(store, raw).config.diff_ids == (Digest.of(TAR),)


@pytest.mark.parametrize(
    "raw",
    [b"", b"x", b"#!/bin/sh\necho\n" * 100, gzip.compress(b"hello" * 1000), gzip.compress(b"")],
)
def test_what_is_not_a_tar_is_refused(store: LocalStore, raw: bytes) -> None:
    with pytest.raises(LocalStoreError):
        import_bytes(store, raw)
    assert store.images() == () and list(store.layout.digests()) == []


@pytest.mark.parametrize("raw", [gzip.compress(TAR)[:-100], gzip.compress(TAR)[:-2] + b"xx"])
def test_a_damaged_archive_is_refused(store: LocalStore, raw: bytes) -> None:
    with pytest.raises(LocalStoreError, match="damaged"):
        import_bytes(store, raw)
    assert store.images() == ()


def test_an_empty_tar_is_an_image(store: LocalStore) -> None:
    out = io.BytesIO()
    tarfile.open(fileobj=out, mode="w").close()
    assert import_bytes(store, out.getvalue()).config.diff_ids == (Digest.of(out.getvalue()),)


def test_changes_and_message_are_in_the_config(store: LocalStore) -> None:
    changes = ['CMD ["sh", "-c"]', "ENV A=1 B='two words'", "USER 7", "EXPOSE 80 53/udp"]
    config = import_bytes(store, TAR, changes=changes, message="made by hand").config
    assert config.cmd == ("sh", "-c")
    assert config.env == ("A=1", "B=two words")
    assert config.user == "7" and config.exposed_ports == ("80/tcp", "53/udp")
    assert config.history[0].comment == "made by hand"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["CMD echo $HOME"], Settings(cmd=("/bin/sh", "-c", "echo $HOME"))),
        (["cmd [broken"], Settings(cmd=("/bin/sh", "-c", "[broken"))),
        (['ENTRYPOINT ["/x"]'], Settings(entrypoint=("/x",))),
        (["ENV A 1 2"], Settings(env=("A=1 2",))),
        (["ENV A=1", "ENV A=2 B="], Settings(env=("A=2", "B="))),
        (["LABEL a=b", 'LABEL c="d e"'], Settings(labels={"a": "b", "c": "d e"})),
        (["WORKDIR /a", "WORKDIR b"], Settings(working_dir="/a/b")),
        (['VOLUME ["/a", "/b"]', "VOLUME /b /c"], Settings(volumes=("/a", "/b", "/c"))),
    ],
)
def test_instructions(lines: list[str], expected: Settings) -> None:
    assert apply(Settings(), lines) == expected


@pytest.mark.parametrize(
    "line",
    ["RUN x", "CMD", "", "ENV", "ENV A", "ENV =x", "EXPOSE 0", "EXPOSE 99999", "EXPOSE a",
     "LABEL x", "VOLUME [1]", "VOLUME [", "ENV A='", "USER a\nRUN x"],
)  # fmt: skip
def test_a_bad_instruction_is_an_error_that_shows_it(line: str) -> None:
    with pytest.raises(InvalidChange):
        apply(Settings(), [line])


@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_text_is_applied_or_refused(lines: list[str]) -> None:
    try:
        apply(Settings(), lines)
    except InvalidChange:
        pass
