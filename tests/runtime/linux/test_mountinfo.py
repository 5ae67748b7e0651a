from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.linux import flags, mountinfo, syscalls
from runtime.linux.mountinfo import InvalidMountinfo
from tests.runtime.linux.forked import in_child

LINE = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 shared:7 - ext3 /dev/ro\134ot rw,errors=con"


def test_the_line_of_the_manual_page() -> None:
    mount = mountinfo.parse_line(LINE)
    assert (mount.id, mount.parent, mount.device) == (36, 35, (98, 0))
    assert (mount.root, mount.target) == ("/mnt1", "/mnt 2")
    assert mount.tags == ("master:1", "shared:7") and mount.is_shared and not mount.is_read_only
    assert (mount.fstype, mount.source) == ("ext3", "/dev/ro\\ot")
    assert mount.super_options == ("rw", "errors=con")


def test_a_line_without_tags() -> None:
    mount = mountinfo.parse_line("1 0 0:5 / / ro - tmpfs none rw")
    assert mount.tags == () and mount.is_read_only


@pytest.mark.parametrize("line", ["", "1 2", "1 2 3:4 / / rw", LINE.replace(" - ", " ")])
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(InvalidMountinfo):
        mountinfo.parse_line(line)


@given(st.text())
def test_arbitrary_text_raises_only_the_declared_error(text: str) -> None:
    try:
        mountinfo.parse(text)
    except InvalidMountinfo:
        pass


def _escape(text: str) -> str:
    """What the kernel does (mangle in fs/proc_namespace.c)."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


@given(st.text())
def test_unescaping_undoes_the_kernels_escaping(text: str) -> None:
    assert mountinfo.unescape(_escape(text)) == text


def test_choosing_mounts() -> None:
    lines = ["/", "/a", "/a/b", "/ab", "/a"]
    mounts = mountinfo.parse(
        "".join(f"{n} 0 0:1 / {target} rw - t s rw\n" for n, target in enumerate(lines))
    )
    top = mountinfo.at(mounts, "/a")
    assert top is not None and top.id == 4
    assert mountinfo.at(mounts, "/nowhere") is None
    held = mountinfo.holding(mounts, "/ab/x")
    assert held is not None and held.id == 3
    assert [mount.id for mount in mountinfo.below(mounts, "/a")] == [4, 2, 1]


def test_this_process_has_a_root_mount() -> None:
    assert mountinfo.at(mountinfo.read(), "/") is not None


@pytest.mark.root
def test_a_real_mount_with_odd_characters(tmp_path: Path) -> None:
    target = tmp_path / "a b\\c\td#é"
    target.mkdir()

    def mounted() -> tuple[str, bool]:
        syscalls.unshare(flags.CLONE_NEWNS)
        syscalls.mount("none", "/", "", flags.MS_REC | flags.MS_PRIVATE)
        syscalls.mount("some source", str(target), "tmpfs", flags.MS_RDONLY)
        found = mountinfo.at(mountinfo.read(), str(target))
        assert found is not None
        return found.source, found.is_read_only

    assert in_child(mounted) == ("some source", True)
    assert os.listdir(target) == []
