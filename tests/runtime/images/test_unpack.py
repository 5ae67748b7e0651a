"""Whole layers: against GNU tar, against a model, against damage, and without root."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from runtime.errors import InvalidArchive, LayerMismatch
from runtime.images import rootdir
from runtime.images.unpack import ROOTLESS_RULES, Rules, Unpacked, unpack_layer
from tests.builders.archives import (
    archive,
    describe,
    directory,
    file,
    gzipped,
    hard_link,
    pax,
    symlink,
)

pytestmark = pytest.mark.root


def unpack(raw: bytes, target: Path | str, rules: Rules | None = None, **lies: object) -> Unpacked:
    promised: dict[str, object] = {"digest": Digest.of(raw), "size": len(raw)}
    if "diff_id" not in lies:
        plain = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
        promised["diff_id"] = Digest.of(plain)
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return unpack_layer(io.BytesIO(raw), root, rules=rules or Rules(), **(promised | lies))  # type: ignore[arg-type]
    finally:
        os.close(root)


def everything(root: Path | str) -> dict[str, object]:
    """All that can be compared of a tree, links by which names share a file."""
    found: dict[str, object] = {}
    inodes: dict[int, str] = {}
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in [*sorted(folders + files), b"."]:
            path = os.path.join(folder, name)
            state = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(state.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(state.st_mode):
                with open(path, "rb") as opened:
                    content = opened.read()
            elif stat.S_ISCHR(state.st_mode) or stat.S_ISBLK(state.st_mode):
                content = state.st_rdev
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            relative = os.path.relpath(path, os.fsencode(root)).decode("utf-8", "surrogateescape")
            first = relative
            if not stat.S_ISDIR(state.st_mode):
                first = inodes.setdefault(state.st_ino, relative)
            found[relative] = (
                oct(state.st_mode),
                state.st_uid,
                state.st_gid,
                state.st_mtime_ns,
                content,
                xattrs,
                first,
            )
    return found


# --- the same as GNU tar ------------------------------------------------------------------------


CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")


def source_tree(root: Path) -> None:
    """A tree with every kind of thing that tar can hold."""
    (root / "dir/deep/er").mkdir(parents=True)
    (root / "dir/file").write_bytes(b"content" * 1000)
    (root / ("long" * 30)).mkdir()
    (root / ("long" * 30) / ("name" * 40)).write_text("x")
    (root / "empty").write_text("")
    os.link(root / "dir/file", root / "dir/deep/link")
    os.symlink("../dir/file", root / "dir/soft")
    os.symlink("/" + "t" * 300, root / "farsoft")
    os.link(root / "farsoft", root / "farsoft2", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "disk", 0o660 | stat.S_IFBLK, os.makedev(8, 1))
    (root / "suid").write_text("s")
    os.chown(root / "suid", 1234, 5678)
    os.chmod(root / "suid", 0o6755)
    os.chmod(root / "dir/deep", 0o1777)
    (root / os.fsdecode(b"caf\xe9")).write_text("latin")
    with open(root / "sparse", "wb") as opened:
        for start in (0, 70_000, 500_000, 900_000, 1_500_000, 2_000_000):
            opened.seek(start)
            opened.write(b"data")
        opened.truncate(3_000_000)
    os.setxattr(root / "dir/file", "user.note", b"a\0b")
    os.setxattr(root / "empty", "security.capability", CAPABILITY)
    os.utime(root / "dir/file", ns=(1, 1_234_567_890_000_000_000))
    os.utime(root / "dir/soft", ns=(1, 1_000_000_000_000_000_000), follow_symlinks=False)
    os.utime(root / "dir", (1, 1_000_000_001))


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=oldgnu"],
        ["--format=gnu", "--sparse"],
        ["--format=posix", "--xattrs", "--xattrs-include=*"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_the_same_tree_as_gnu_tar(
    tmp_path: Path, options: list[str], compress: Callable[[bytes], bytes]
) -> None:
    for name in ("source", "theirs", "ours"):
        (tmp_path / name).mkdir()
    source_tree(tmp_path / "source")
    command = ["tar", "-C", tmp_path / "source", *options, "-cf", tmp_path / "a.tar", "."]
    subprocess.run(command, check=True, capture_output=True)
    extract = ["tar", "-C", tmp_path / "theirs", "-xpf", tmp_path / "a.tar", "--numeric-owner"]
    extract += ["--xattrs", "--xattrs-include=*"]
    subprocess.run(extract, check=True, capture_output=True)
    unpack(compress((tmp_path / "a.tar").read_bytes()), tmp_path / "ours")
    assert everything(tmp_path / "ours") == everything(tmp_path / "theirs")
    if "--sparse" in options:
        assert os.stat(tmp_path / "ours/sparse").st_blocks * 512 < 1_000_000


def test_v7_and_ustar(tmp_path: Path) -> None:
    (tmp_path / "source/d").mkdir(parents=True)
    (tmp_path / "source/d/f").write_text("x")
    os.symlink("f", tmp_path / "source/d/l")
    for form in ("v7", "ustar"):
        raw = subprocess.run(
            ["tar", "-C", tmp_path / "source", f"--format={form}", "-cf", "-", "d"],
            check=True,
            capture_output=True,
        ).stdout
        (tmp_path / form).mkdir()
        unpack(raw, tmp_path / form)
        assert describe(str(tmp_path / form)) == {"d": "d755", "d/f": "f644 x", "d/l": "l f"}


# --- random trees against a model ---------------------------------------------------------------

names = st.sampled_from(["a", "b", "c", "a/a", "a/b", "b/a", "b/c", "a/b/c", "c/c/c"])
operations = st.lists(
    st.one_of(
        st.tuples(st.just("file"), names, st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("directory"), names, st.sampled_from([0o755, 0o700, 0o1777])),
        st.tuples(st.just("link"), names, names),
        st.tuples(st.just("whiteout"), names, st.none()),
        st.tuples(st.just("opaque"), names, st.none()),
    ),
    max_size=12,
)


class Model:
    """What a layer should become, by the rules in a dozen lines and a dictionary.

    Without symbolic links, which the matrix has. None says that the archive must be refused.
    """

    def __init__(self) -> None:
        self.tree: dict[str, list[object]] = {}

    def parents(self, name: str) -> bool:
        parts = name.split("/")[:-1]
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            found = self.tree.get(path)
            if found is None:
                self.tree[path] = ["d", 0o755, False]
            elif found[0] == "whiteout":
                self.tree[path] = ["d", 0o755, True]
            elif found[0] != "d":
                return False
        return True

    def drop(self, name: str) -> None:
        for path in [p for p in self.tree if p == name or p.startswith(name + "/")]:
            del self.tree[path]

    def apply(self, kind: str, name: str, extra: object) -> bool:
        if kind == "link":
            target = self.tree.get(str(extra))
            if not self.parents(name):
                return False
            target = self.tree.get(str(extra))
            if target is None or target[0] != "f":
                return False
            if name == extra:
                return True
            if str(extra).startswith(name + "/"):
                return False
            if self.tree.get(name) is not target:
                self.drop(name)
                self.tree[name] = target
            return True
        if kind == "opaque":
            if not self.parents(name + "/x"):
                return False
            self.tree[name][2] = True
            return True
        if not self.parents(name):
            return False
        found = self.tree.get(name)
        if kind == "file":
            self.drop(name)
            self.tree[name] = ["f", extra, False]
        elif kind == "directory":
            if found is not None and found[0] == "d":
                found[1] = extra
            else:
                self.tree[name] = ["d", extra, found is not None and found[0] == "whiteout"]
        elif found is None:
            self.tree[name] = ["whiteout", None, False]
        elif found[0] == "d":
            found[2] = True
        return True

    def lines(self) -> dict[str, str]:
        return {path: self._line(*found) for path, found in self.tree.items()}

    def _line(self, kind: object, extra: object, opaque: object) -> str:
        if kind == "f":
            assert isinstance(extra, bytes)
            return "f644 " + extra.decode("latin-1")
        if kind == "d":
            return f"d{extra:o}" + (" opaque" if opaque else "")
        return "whiteout"


def member(kind: str, name: str, extra: object) -> bytes:
    folder, slash, base = name.rpartition("/")
    if kind == "file":
        assert isinstance(extra, bytes)
        return file(name, extra)
    if kind == "directory":
        assert isinstance(extra, int)
        return directory(name, extra)
    if kind == "link":
        return hard_link(name, str(extra))
    return file(f"{name}/.wh..wh..opq" if kind == "opaque" else f"{folder}{slash}.wh.{base}")


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(operations)
def test_random_layers_become_what_the_model_says(steps: list[tuple[str, str, object]]) -> None:
    model = Model()
    accepted = []
    refused = None
    for step in steps:
        if not model.apply(*step):
            refused = step
            break
        accepted.append(step)
    with tempfile.TemporaryDirectory() as target:
        unpack(archive(*(member(*step) for step in accepted)), target)
        if refused is None:
            assert describe(target) == model.lines()
    if refused is not None:
        with tempfile.TemporaryDirectory() as target, pytest.raises(Exception, match="entry"):
            unpack(archive(*(member(*step) for step in [*accepted, refused])), target)


links = st.sampled_from(["a", "b", "../a", "/", "/b", "..", "../../..", "a/b", "/etc", "."])
hostile = st.lists(
    st.one_of(
        st.builds(symlink, names, links),
        st.builds(lambda n: file(n, b"x"), st.one_of(names, links)),
        st.builds(directory, st.one_of(names, links), st.sampled_from([0, 0o755, 0o7777])),
        st.builds(hard_link, names, st.one_of(names, links)),
        st.builds(lambda n: file(f"{n}/.wh.{n[0]}"), names),
    ),
    max_size=15,
)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile)
def test_no_mixture_of_links_reaches_the_outside(members: list[bytes]) -> None:
    from runtime.errors import LayerError

    with tempfile.TemporaryDirectory() as outside:
        layer = os.path.join(outside, "x", "layer")
        os.makedirs(layer)
        for canary in (os.path.join(outside, "a"), os.path.join(outside, "x", "b")):
            with open(canary, "w") as opened:
                opened.write("alive")
        etc = os.stat("/etc")

        def seen() -> list[object]:
            found: list[object] = []
            for folder, folders, files in os.walk(outside):
                if folder == layer:
                    folders.clear()
                    continue
                for name in files:
                    found.append((os.path.join(folder, name), os.lstat(os.path.join(folder, name))))
                found.append((folder, os.stat(folder).st_mode, sorted(folders + files)))
            return found

        before = seen()
        try:
            unpack(archive(*members), layer)
        except LayerError:
            pass
        assert seen() == before
        assert (os.stat("/etc").st_mode, os.stat("/etc").st_mtime) == (etc.st_mode, etc.st_mtime)
        subprocess.run(["chmod", "-R", "u+rwx", layer], check=True)


# --- verification -------------------------------------------------------------------------------

OTHER = Digest.of(b"other")


@pytest.mark.parametrize(
    ("what", "lies"),
    [
        ("digest of the blob", {"digest": OTHER}),
        ("size of the blob", {"size": 3}),
        ("diff id", {"diff_id": OTHER}),
    ],
)
def test_every_promise_is_checked(tmp_path: Path, what: str, lies: dict[str, object]) -> None:
    with pytest.raises(LayerMismatch) as caught:
        unpack(gzipped(file("a", b"x")), tmp_path, **lies)
    assert caught.value.what == what


def test_sha512(tmp_path: Path) -> None:
    raw = gzipped(file("a", b"x"))
    digest, diff_id = Digest.of(raw, "sha512"), Digest.of(gzip.decompress(raw), "sha512")
    unpack(raw, tmp_path, digest=digest, diff_id=diff_id)
    assert describe(str(tmp_path)) == {"a": "f644 x"}


def test_a_damaged_blob_is_called_that_and_not_a_bad_archive(tmp_path: Path) -> None:
    raw = gzipped(file("a", b"x" * 100_000))
    damaged = raw[:60] + b"\xff\xff" + raw[62:]
    with pytest.raises(LayerMismatch, match="digest of the blob"):
        unpack(damaged, tmp_path, digest=Digest.of(raw), diff_id=OTHER)


def test_a_bad_archive_in_a_good_blob_is_called_that(tmp_path: Path) -> None:
    raw = gzip.compress(b"this is not a tar archive, " * 100)
    with pytest.raises(InvalidArchive):
        unpack(raw, tmp_path)


def test_hidden_bytes_after_the_end_count_for_the_diff_id(tmp_path: Path) -> None:
    raw = archive(file("a")) + file("hidden")
    unpack(raw, tmp_path)
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(LayerMismatch):
        unpack(raw, tmp_path / ".", diff_id=Digest.of(archive(file("a"))))


# --- without the newer system call, and without root --------------------------------------------


def test_kernels_without_openat2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(rootdir.syscalls, "openat2", missing)
    raw = archive(
        directory("usr/lib"),
        symlink("lib", "usr/lib"),
        file("lib/x", b"x"),
        symlink("up", "../../.."),
        file("up/y", b"y"),
    )
    unpack(raw, tmp_path)
    assert describe(str(tmp_path)) == {
        "usr": "d755",
        "usr/lib": "d755",
        "usr/lib/x": "f644 x",
        "lib": "l usr/lib",
        "up": "l ../../..",
        "y": "f644 y",
    }


def as_user(uid: int, job: Callable[[], object]) -> None:
    """Run `job` in a child with no privileges; its failure is ours."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            job()
            os._exit(0)
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_user_without_privileges_unpacks_it_all(tmp_path: Path) -> None:
    """Owners become the user's, devices are left out, whiteouts need no privilege (Linux 5.8)."""
    target = Path(tempfile.mkdtemp())
    os.chown(target, 65534, 65534)
    raw = archive(
        directory("ro", 0o555, uid=0),
        file("ro/a", b"x", mode=0o444, uid=33),
        directory("none", 0o000),
        file("none/b", b"y"),
        file("su", b"z", mode=0o4755),
        pax({"SCHILY.xattr.user.note": b"n", "SCHILY.xattr.security.capability": CAPABILITY}),
        file("x", b"x", mode=0o400),
        file("d/.wh.gone"),
        file("d/.wh..wh..opq"),
    )
    try:
        as_user(65534, lambda: unpack(raw, target, ROOTLESS_RULES))
        assert describe(str(target), "user.overlay.") == {
            "ro": "d555",
            "ro/a": "f444 x",
            "none": "d0",
            "none/b": "f644 y",
            "su": "f4755 z",
            "x": "f400 x",
            "d": "d755 opaque",
            "d/gone": "whiteout",
        }
        assert {os.lstat(path).st_uid for path in target.rglob("*")} == {65534}
        assert os.getxattr(target / "x", "user.note") == b"n"
    finally:
        shutil.rmtree(target)


def test_an_unpacked_file_of_tarfile_with_everything_is_whole(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for i in range(200):
            info = tarfile.TarInfo(f"dir{i % 7}/file{i}")
            info.size = i * 1000
            tar.addfile(info, io.BytesIO(bytes([i]) * info.size))
    done = unpack(out.getvalue(), tmp_path)
    assert done.entries == 200
    assert done.size == sum(i * 1000 for i in range(200))
    for i in range(200):
        assert (tmp_path / f"dir{i % 7}/file{i}").read_bytes() == bytes([i]) * (i * 1000)
