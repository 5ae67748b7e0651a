"""Attacks on the runtime, each named after the advisory or the trick, run for real."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest

from tests.builders.pyreg import Pyreg, lines
from tests.builders.rootfs import busybox_tree

pytestmark = pytest.mark.root


def _interpreter_digest() -> str:
    return hashlib.sha256(Path(os.path.realpath(sys.executable)).read_bytes()).hexdigest()


def _listing(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_cve_2019_19921_image_replaces_proc_sys_or_dev_by_a_link(
    engine: Pyreg, tmp_path: Path, name: str
) -> None:
    """Also CVE-2026-41579 and CVE-2026-47766: nothing may be made at the link's target."""
    tree = busybox_tree()
    tree[name] = f"->{tmp_path}"
    engine.load("links", tree)
    done = engine("run", "--rm", "links", "true")
    assert done.returncode == 125
    assert f"/{name} of the image is not a directory" in done.stderr
    assert _listing(tmp_path) == []


def test_cve_2021_30465_volume_target_is_a_link_to_the_host(engine: Pyreg, tmp_path: Path) -> None:
    victim, source = tmp_path / "victim", tmp_path / "source"
    victim.mkdir()
    source.mkdir()
    (source / "marker").write_text("x")
    engine.load("linked", busybox_tree() | {"data": f"->{victim}", "up": "->../../../../tmp"})
    for target in ("/data", "/data/deep", "/up/x"):
        done = engine("run", "--rm", "-v", f"{source}:{target}", "linked", "ls", target)
        assert done.returncode == 125 or "marker" in done.stdout
    assert _listing(victim) == []


def test_cve_2024_45310_missing_targets_are_not_made_on_the_host(
    engine: Pyreg, tmp_path: Path
) -> None:
    engine.load("dangling", busybox_tree() | {"etc/resolv.conf": f"->{tmp_path}/made"})
    done = engine("run", "--rm", "dangling", "sh", "-c", f"[ -f {tmp_path}/made ] && echo inside")
    assert lines(done) == ["inside"]
    assert _listing(tmp_path) == []


def test_a_loop_of_links_is_refused(engine: Pyreg) -> None:
    engine.load("loop", busybox_tree() | {"a": "->b", "b": "->a/x"})
    done = engine("run", "--rm", "-w", "/a/y", "loop", "true", timeout_s=20)
    assert done.returncode == 125


@pytest.mark.parametrize("number", [*range(3, 12), 20, 30, 100])
def test_cve_2024_21626_working_directory_behind_a_descriptor(engine: Pyreg, number: int) -> None:
    done = engine("run", "--rm", "-w", f"/proc/self/fd/{number}", "bb", "cat", "../../etc/shadow")
    assert done.returncode in (125, 126, 127)
    assert done.stdout == ""


def test_cve_2024_21626_with_an_inherited_descriptor(engine: Pyreg) -> None:
    import subprocess

    leak = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        words = engine.command("run", "--rm", "-w", f"/proc/self/fd/{leak}", "bb", "pwd")
        done = subprocess.run(
            words, env=engine.environment, capture_output=True, check=False, pass_fds=(leak,)
        )
    finally:
        os.close(leak)
    assert done.returncode in (125, 126, 127)
    assert done.stdout == b""


def test_cve_2019_5736_program_is_a_script_run_by_proc_self_exe(engine: Pyreg) -> None:
    before = _interpreter_digest()
    engine.load("exe", busybox_tree() | {"bin/run": "#!/proc/self/exe\n"})
    for words in (["exe", "/bin/run"], ["--entrypoint", "/proc/self/exe", "exe", "-c", "print(1)"]):
        done = engine("run", "--rm", *words)
        assert done.returncode in (126, 127)
        assert "print" not in done.stdout
    assert _interpreter_digest() == before


def test_cve_2019_5736_proc_self_exe_is_never_our_interpreter(engine: Pyreg) -> None:
    done = engine("run", "--rm", "bb", "readlink", "/proc/1/exe")
    assert lines(done) == ["/bin/busybox"]


def test_cve_2016_9962_init_cannot_be_looked_at_before_exec(engine: Pyreg) -> None:
    """With SYS_PTRACE nothing of the host is in the environment or the memory map of pid 1."""
    done = engine(
        "run",
        "--rm",
        "--cap-add",
        "SYS_PTRACE",
        "bb",
        "sh",
        "-c",
        "cat /proc/1/environ | grep -c PYREG_ROOT; cat /proc/1/maps | grep -c python",
    )
    assert done.stdout.split() == ["0", "0"]


def test_cve_2019_14271_files_of_the_image_are_not_run_by_us(engine: Pyreg, tmp_path: Path) -> None:
    """A standard library and name service of the image's own, at the places where ours are."""
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w'); open('/sprung', 'w'); raise SystemExit(99)\n"
    tree = busybox_tree()
    prefixes = {sys.prefix, sys.base_prefix, "/usr", "/usr/local"}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for prefix in prefixes:
        library = f"{prefix.lstrip('/')}/lib/{version}"
        for module in (
            "encodings/__init__.py",
            "encodings/idna.py",
            "encodings/ascii.py",
            "traceback.py",
            "linecache.py",
            "textwrap.py",
            "os.py",
            "tokenize.py",
            "pwd.py",
            "subprocess.py",
            "site-packages/sitecustomize.py",
        ):
            tree[f"{library}/{module}"] = trap
    tree["etc/nsswitch.conf"] = "passwd: evil\n"
    tree["lib/x86_64-linux-gnu/libnss_evil.so.2"] = b"\x7fELF not really"
    tree["etc/ld.so.preload"] = "/lib/evil.so\n"
    engine.load("trapped", tree)
    for words in (["-u", "alice"], ["-u", "nobody-at-all"], ["-w", "/nowhere/at/all"], []):
        engine("run", "--rm", *words, "trapped", "nosuchprogram")
    assert lines(
        engine("run", "--rm", "trapped", "sh", "-c", "ls /sprung 2>/dev/null; echo ok")
    ) == ["ok"]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("->/proc/self/environ", "link to a magic file"),
        ("->/dev/zero", "endless"),
        ("->.", "a directory"),
    ],
)
def test_cve_2024_9676_passwd_is_not_a_file(engine: Pyreg, content: str, what: str) -> None:
    engine.load("weird", busybox_tree() | {"etc/passwd": content, "etc/group": content})
    done = engine("run", "--rm", "-u", "alice", "weird", "id", timeout_s=20)
    assert done.returncode in (125, 126), what
    assert done.stdout == ""


def test_cve_2026_47262_huge_passwd(engine: Pyreg) -> None:
    engine.load("huge", busybox_tree() | {"etc/passwd": b"x" * (9 << 20)})
    done = engine("run", "--rm", "-u", "alice", "huge", "id", timeout_s=20)
    assert done.returncode in (125, 126)


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/proc/self/attr", "/", "/../proc"])
def test_cve_2015_3630_mounts_over_proc_or_the_root(
    engine: Pyreg, tmp_path: Path, target: str
) -> None:
    done = engine("run", "--rm", "-v", f"{tmp_path}:{target}", "bb", "true")
    assert done.returncode == 125


def test_cve_2025_31133_null_of_the_image_is_not_used_for_masking(
    engine: Pyreg, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_text("host")
    engine.load("fakenull", busybox_tree() | {"dev/null": f"->{target}"})
    done = engine(
        "run", "--rm", "fakenull", "sh", "-c", "echo gone > /dev/null; stat -c %F /dev/null"
    )
    assert lines(done) == ["character special file"]
    assert target.read_text() == "host"


def test_output_file_of_the_caller_cannot_be_made_setuid(engine: Pyreg, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.touch()
    with target.open("wb") as writing:
        process = engine.begin(
            "run",
            "--rm",
            "bb",
            "sh",
            "-c",
            "chmod 4777 /proc/self/fd/1; chown 1000 /proc/self/fd/1; echo done",
            stdout=writing,
        )
        assert process.wait(30) == 0
    assert target.read_text() == "done\n"
    status = target.stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode) & 0o4002) == (os.getuid(), 0)


def test_null_of_the_host_keeps_its_mode(engine: Pyreg) -> None:
    before = os.stat("/dev/null").st_mode
    done = engine(
        "run", "--rm", "bb", "sh", "-c", "chmod 600 /proc/self/fd/0; chown 1000 /dev/stdin"
    )
    assert done.returncode == 0
    assert os.stat("/dev/null").st_mode == before
    assert os.stat("/dev/null").st_uid == 0


def test_cve_2022_0492_and_0185_namespaces_from_inside(engine: Pyreg) -> None:
    engine.load("more", busybox_tree() | {"bin/unshare": "->busybox"})
    done = engine("run", "--rm", "more", "unshare", "-U", "true")
    assert done.returncode != 0


def test_cve_2021_21334_one_containers_environment_is_not_anothers(engine: Pyreg) -> None:
    import subprocess

    started = [
        engine.begin(
            "run", "--rm", "-e", f"MINE={n}", "bb", "sh", "-c", "echo $MINE", stdout=subprocess.PIPE
        )
        for n in range(12)
    ]
    assert [p.communicate(timeout=60)[0] for p in started] == [f"{n}\n".encode() for n in range(12)]


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "-x", "a\nb", "x" * 300])
def test_cve_2014_9358_names_are_not_paths(engine: Pyreg, name: str) -> None:
    done = engine("run", "--rm", f"--name={name}", "bb", "true")
    assert done.returncode == 125
    assert engine("rm", "--", name).returncode == 1


def test_cve_2021_41091_store_is_closed_to_others(engine: Pyreg) -> None:
    for place in ("containers", "layers", "snapshots", "volumes", "images"):
        mode = stat.S_IMODE(os.stat(os.path.join(engine.root, place)).st_mode)
        assert mode & 0o077 == 0, place
