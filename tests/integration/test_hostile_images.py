"""Images made to do harm, from the registry to `run`: nothing leaves the layer, nothing stays."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.archives import (
    archive,
    device,
    directory,
    file,
    gzipped,
    hard_link,
    header,
    symlink,
)
from tests.builders.machine import Machine
from tests.builders.raw import RawImage, RawRegistry, raw_image
from tests.builders.rootfs import archive as rootfs
from tests.builders.rootfs import busybox_tree
from tests.integration.conftest import MakeMachine

pytestmark = pytest.mark.root
UP = "../" * 16


def bomb() -> tuple[bytes, bytes]:
    """200 MB of zeros in 200 kB, as gzip: (compressed, archive)."""
    size = 200_000_000
    diff = header(b"zeros", size=size) + bytes(size + -size % 512) + bytes(1024)
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(diff) + packer.flush(), diff


REFUSED: list[tuple[str, list[bytes], str]] = [
    ("dot-dot out of the layer", [file(f"{UP}@/escaped", b"x")], "leaves the layer"),
    ("dot-dot behind a good start", [file(f"etc/{UP}@/escaped", b"x")], "leaves the layer"),
    ("dot-dot as an absolute name", [file(f"/{UP}@/escaped", b"x")], "leaves the layer"),
    ("hard link to a file of the host", [hard_link("stolen", "@/canary")], "hard link"),
    ("hard link with dot-dot", [hard_link("stolen", f"{UP}@/canary")], "leaves the layer"),
    ("whiteout of the parent", [file("d/.wh..", b"")], "whiteout"),
    ("whiteout of dot-dot", [file("d/.wh...", b"")], "whiteout"),
    ("inside a whiteout", [file(".wh.etc/passwd", b"root::0:0")], "whiteout"),
    ("the root as a link", [symlink("./", "@"), file("escaped", b"x")], "replace the root"),
    ("a device that Linux has not", [device("d", b"4", 1 << 13, 0)], "device"),
    ("a link that is its own parent", [symlink("a", "a"), file("a/b")], "a"),
]


def with_layer(*layers: bytes, diffs: tuple[bytes, ...] = ()) -> RawImage:
    base = rootfs(busybox_tree())
    cmd = ("sh", "-c", "echo inside; ls /")
    return raw_image(base, *layers, diffs=(base, *(diffs or layers)), cmd=cmd)


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory of the host with something worth stealing or damaging; its path is short."""
    place = Path(tempfile.mkdtemp(prefix="pyreg-out-", dir="/tmp"))
    (place / "canary").write_text("untouched")
    yield place
    shutil.rmtree(place)


def aimed(members: list[bytes], outside: Path) -> bytes:
    """The archive with `@` in names and targets replaced by the path outside, checksums fixed."""
    out = b""
    for member in members:
        block, rest = member[:512], member[512:]
        if b"@" in block:
            where = os.fsencode(outside).lstrip(b"/")
            name, link = block[:100].rstrip(b"\0"), block[157:257].rstrip(b"\0")
            name = name.replace(b"@", where)
            link = link.replace(b"@", where if b".." in link else b"/" + where)
            assert len(name) <= 100 and len(link) <= 100, "the temporary directory is too deep"
            block = header(name, kind=block[156:157], size=len(rest) and 1, link=link)
        out += block + rest
    return out + bytes(1024)


@pytest.mark.parametrize(
    ("members", "said"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_an_entry_that_leaves_its_layer(
    new_machine: MakeMachine,
    raw: RawRegistry,
    outside: Path,
    members: list[bytes],
    said: str,
) -> None:
    machine = new_machine()
    raw.put_image("hostile/entry", "latest", with_layer(aimed(members, outside)))
    for words, status in [(("pull", "hostile/entry"), 1), (("run", "hostile/entry"), 125)]:
        done = machine(*words, status=status)
        assert said in done.error and "layer sha256:" in done.error, done.err
        assert "inside" not in done.out
        assert_nothing_is_here(machine)
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "untouched"
    assert (outside / "canary").stat().st_nlink == 1


def assert_nothing_is_here(machine: Machine) -> None:
    assert machine.names() == [] and machine("images", "-aq").out == ""
    assert machine.half_unpacked() == [] and machine.container_ids() == set()
    # The base was good and may stay unpacked, its blob too; the hostile layer may not.
    assert len(machine.unpacked()) <= 1


def test_a_bomb_is_stopped_before_it_fills_the_disk(machine: Machine, raw: RawRegistry) -> None:
    packed, diff = bomb()
    assert len(packed) < 250_000
    raw.put_image("hostile/bomb", "latest", with_layer(packed, diffs=(diff,)))
    for words, status in [(("pull", "hostile/bomb"), 1), (("run", "hostile/bomb"), 125)]:
        done = machine(*words, status=status)
        assert "decompression bomb" in done.error, done.err
        assert_nothing_is_here(machine)
    used = sum(f.lstat().st_blocks for f in machine.root.rglob("*"))
    assert used * 512 < 16 << 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("another diff id", "diff id"),
        ("garbage after the gzip stream", "gzip"),
        ("half a gzip stream", "gzip"),
        ("not an archive", "archive"),
    ],
)
def test_a_layer_that_is_not_what_the_config_says(
    machine: Machine, raw: RawRegistry, change: str, said: str
) -> None:
    diff = archive(file("a", random.Random(change).randbytes(1000)))
    packed = gzipped(file("a", random.Random(change).randbytes(1000)))
    layer, claimed = {
        "another diff id": (packed, archive(file("b", b"x"))),
        "garbage after the gzip stream": (packed + b"garbage", diff),
        "half a gzip stream": (packed[: len(packed) // 2], diff),
        "not an archive": (b"\x01" * 2048, b"\x01" * 2048),
    }[change]
    raw.put_image("hostile/layer", "latest", with_layer(layer, diffs=(claimed,)))
    done = machine("pull", "hostile/layer", status=1)
    assert said in done.error.lower(), done.err
    assert_nothing_is_here(machine)


def test_links_and_devices_stay_inside(machine: Machine, raw: RawRegistry, outside: Path) -> None:
    """What a layer may have, it has; but it leads nowhere outside and gives no access."""
    target = str(outside)
    layer = archive(
        symlink("evil", target),
        file("evil/written", b"x"),
        symlink("up", "../" * 12 + target.lstrip("/")),
        file("up/also", b"x"),
        symlink("passwd", "/etc/passwd"),
        directory("dev2"),
        device("dev2/disk", b"4", 8, 0, mode=0o666),
        device("dev2/mem", b"3", 1, 1, mode=0o666),
        file("bin/su", b"", mode=0o4755),
    )
    raw.put_image("hostile/links", "latest", with_layer(layer))
    machine("pull", "hostile/links")
    assert sorted(p.name for p in outside.iterdir()) == ["canary"]
    script = f"ls {target}; for d in disk mem; do head -c 1 /dev2/$d 2>&1; done"
    done = machine("run", "--rm", "hostile/links", "sh", "-c", script, status=None)
    assert done.lines[:2] == ["also", "written"], done.out
    assert "canary" not in done.out
    assert done.out.count("Operation not permitted") == 2, done.out


def test_manifests_that_claim_too_much(machine: Machine, raw: RawRegistry) -> None:
    """More layers than any image has: refused before anything is fetched."""
    empty = archive()
    image = raw_image(*[empty] * 600)
    raw.put_image("hostile/many", "latest", image)
    done = machine("pull", "hostile/many", status=1)
    assert "layers" in done.error and machine.names() == []
    assert list((machine.root / "images/blobs").rglob("*/*")) == []
