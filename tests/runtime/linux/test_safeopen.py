"""Nothing in a hostile root leads out of it, and nothing in it can make us wait."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux import safeopen
from tests.runtime.linux.forked import errno_of


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    image, outside = tmp_path / "image", tmp_path / "outside"
    (image / "etc").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("secret of the host")
    (image / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (image / "absolute").symlink_to(outside)
    (image / "upwards").symlink_to("../../../../../../.." + str(outside))
    (image / "inner").symlink_to("/etc")
    (image / "dangling").symlink_to("/not/there")
    (image / "loop").symlink_to("loop")
    (image / "magic").symlink_to("/proc/self/root")
    os.mkfifo(image / "fifo")
    fd = safeopen.open_root(str(image))
    yield fd
    os.close(fd)
    assert os.listdir(outside) == ["secret"]


@pytest.mark.parametrize("path", ["absolute/secret", "upwards/secret", "../outside/secret"])
def test_links_and_dots_end_at_the_root(root: int, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        safeopen.read_in_root(root, path, 100)


@pytest.mark.parametrize("path", ["etc/passwd", "/etc/passwd", "inner/passwd", "../../etc/passwd"])
def test_links_inside_are_followed(root: int, path: str) -> None:
    assert safeopen.read_in_root(root, path, 100).startswith(b"root:")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("inner/passwd", errno.ELOOP),
        ("../image/etc/passwd", errno.EXDEV),
        ("/etc/passwd", errno.EXDEV),
        ("etc/passwd", 0),
    ],
)
def test_beneath_refuses_every_link(root: int, path: str, expected: int) -> None:
    assert errno_of(lambda: os.close(safeopen.open_beneath(root, path, os.O_PATH))) == expected


def test_cve_2026_47262_a_fifo_a_directory_and_a_huge_file_are_refused_at_once(
    root: int, tmp_path: Path
) -> None:
    with open(tmp_path / "image/huge", "wb") as file:
        file.truncate(2 << 30)
    assert errno_of(lambda: safeopen.read_in_root(root, "fifo", 100)) == errno.EINVAL
    assert errno_of(lambda: safeopen.read_in_root(root, "etc", 100)) == errno.EINVAL
    assert errno_of(lambda: safeopen.read_in_root(root, "huge", 1 << 20)) == errno.EFBIG
    assert errno_of(lambda: safeopen.read_in_root(root, "loop", 100)) == errno.ELOOP


def test_a_file_of_exactly_the_limit_is_read(root: int, tmp_path: Path) -> None:
    (tmp_path / "image/exact").write_bytes(b"x" * 1000)
    assert len(safeopen.read_in_root(root, "exact", 1000)) == 1000
    assert errno_of(lambda: safeopen.read_in_root(root, "exact", 999)) == errno.EFBIG


def test_a_file_that_claims_to_be_empty_is_still_bounded() -> None:
    """Files of /proc have size 0 whatever they hold."""
    fd = safeopen.open_root("/proc/self")
    try:
        assert errno_of(lambda: safeopen.read_in_root(fd, "status", 10)) == errno.EFBIG
        assert safeopen.read_in_root(fd, "comm", 100)
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["a/b/c", "/etc/x/y", "inner/new", "absolute2/../ok", "etc"])
def test_directories_are_made_inside(root: int, tmp_path: Path, path: str) -> None:
    (tmp_path / "image/absolute2").mkdir()
    fd = safeopen.mkdir_in_root(root, path)
    try:
        inside = os.readlink(f"/proc/self/fd/{fd}")
        assert inside.startswith(str(tmp_path / "image") + "/")
    finally:
        os.close(fd)


@pytest.mark.parametrize("path", ["dangling", "dangling/x", "new/../../outside/x", "fifo/x"])
def test_cve_2024_45310_nothing_is_made_through_dangling_links_or_new_dots(
    root: int, path: str
) -> None:
    assert errno_of(lambda: safeopen.mkdir_in_root(root, path)) in (
        errno.ELOOP,
        errno.ENOTDIR,
        errno.EINVAL,
    )


def test_a_failure_leaves_no_descriptor_open(root: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for path in ("dangling/x/y", "new/deep/../x", "fifo/x", "etc/passwd/x"):
        errno_of(lambda path=path: os.close(safeopen.mkdir_in_root(root, path)))  # type: ignore[misc]
        errno_of(lambda path=path: os.close(safeopen.create_in_root(root, path)))  # type: ignore[misc]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_mount_point_file_is_made_once_and_never_outside(root: int, tmp_path: Path) -> None:
    for _ in range(2):
        os.close(safeopen.create_in_root(root, "run/deep/resolv.conf"))
    assert (tmp_path / "image/run/deep/resolv.conf").read_bytes() == b""
    os.close(safeopen.create_in_root(root, "etc/passwd"))
    assert (tmp_path / "image/etc/passwd").stat().st_size > 0
    assert errno_of(lambda: safeopen.create_in_root(root, "dangling")) == errno.EEXIST


def test_magic_links_are_refused() -> None:
    fd = safeopen.open_root("/")
    try:
        opened = errno_of(lambda: safeopen.open_in_root(fd, "proc/self/root/etc", os.O_PATH))
        assert opened == errno.ELOOP
    finally:
        os.close(fd)
