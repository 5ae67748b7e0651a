"""The same as an ordinary user with one id: no helper program, no cgroup, no capability."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from tests.builders.pyreg import Pyreg, lines
from tests.builders.rootfs import archive, busybox_tree

pytestmark = pytest.mark.root


def test_root_inside_is_the_user_outside(rootless: Pyreg) -> None:
    shared = f"{rootless.root}/shared"  # made by -v, as the user
    done = rootless("run", "--rm", "-v", f"{shared}:/d", "bb", "sh", "-c", "touch /d/x; id -u")
    assert lines(done) == ["0"]
    assert os.stat(f"{shared}/x").st_uid == os.stat(rootless.root).st_uid != 0


@pytest.mark.parametrize(
    ("command", "status"),
    [(["true"], 0), (["sh", "-c", "exit 7"], 7), (["nosuch"], 127), (["/etc"], 126)],
)
def test_exit_status(rootless: Pyreg, command: list[str], status: int) -> None:
    assert rootless("run", "--rm", "bb", *command).returncode == status


def test_a_user_that_is_not_mapped_is_explained(rootless: Pyreg) -> None:
    done = rootless("run", "--rm", "-u", "1000", "bb", "true")
    assert done.returncode == 125
    assert "newuidmap" in done.stderr


def test_confinement(rootless: Pyreg) -> None:
    script = "grep -E 'CapEff|CapBnd|Seccomp:|CapInh' /proc/self/status"
    found = dict(
        line.split(":\t") for line in lines(rootless("run", "--rm", "bb", "sh", "-c", script))
    )
    assert found["CapInh"] == "0" * 16
    assert found["CapEff"] == found["CapBnd"] == "00000000a80425fb"
    assert found["Seccomp"] == "2"


def test_devices_work(rootless: Pyreg) -> None:
    script = "echo x > /dev/null; head -c 1 /dev/zero | wc -c; wc -c < /proc/keys; ls /sys/firmware"
    assert lines(rootless("run", "--rm", "bb", "sh", "-c", script)) == ["1", "0"]


def test_networks(rootless: Pyreg) -> None:
    assert lines(rootless("run", "--rm", "bb", "ls", "/sys/class/net")) == ["lo"]
    done = rootless("run", "--rm", "--network", "host", "bb", "readlink", "/proc/self/ns/net")
    assert lines(done) == [os.readlink("/proc/self/ns/net")]


def test_detached_logs_and_removal(rootless: Pyreg) -> None:
    rootless("run", "-d", "--name", "web", "bb", "sh", "-c", "echo hello; sleep 100")
    assert "Up " in rootless("ps").stdout
    assert rootless("logs", "web").stdout == "hello\n"
    assert rootless("rm", "-f", "web").returncode == 0
    assert rootless.leftovers() == []


def test_files_with_strange_modes_are_removed(rootless: Pyreg) -> None:
    script = "mkdir -p /d/e; touch /d/e/f; chmod 0 /d/e/f /d/e /d"
    assert rootless("run", "--rm", "bb", "sh", "-c", script).returncode == 0
    assert rootless.leftovers() == []


def test_named_volume_takes_the_images_files(rootless: Pyreg) -> None:
    done = rootless("run", "--rm", "-v", "vol:/etc", "bb", "ls", "/etc")
    assert "passwd" in lines(done)


def test_links_of_the_image_do_not_reach_the_host(rootless: Pyreg) -> None:
    victim = f"{rootless.root}/victim"
    os.mkdir(victim, 0o777)
    os.chmod(victim, 0o777)
    rootless.load("linked", busybox_tree() | {"dev": f"->{victim}"})
    assert rootless("run", "--rm", "linked", "true").returncode == 125
    assert os.listdir(victim) == []


def test_with_subordinate_ids_other_users_exist(ranged: Pyreg) -> None:
    done = ranged("run", "--rm", "-u", "alice", "bb", "sh", "-c", "echo $(id -u) $(id -G)")
    assert sorted(lines(done)[0].split()) == ["1000", "1000", "50"]


def test_what_subordinate_ids_wrote_is_removed(ranged: Pyreg) -> None:
    script = "mkdir -p /d/e && touch /d/e/f && chown -R 1000:1000 /d && chmod -R 700 /d"
    assert ranged("run", "--rm", "-v", "/v", "bb", "sh", "-c", script).returncode == 0
    ranged("run", "--name", "kept", "bb", "sh", "-c", script)
    assert ranged("rm", "kept").returncode == 0
    assert ranged.leftovers() == []


OWNED = {
    "srv/web": (33, 33, 0o750),
    "srv/web/page": (33, 33, 0o640),
    "srv/web/secret": (33, 42, 0o700),
    "srv/web/secret/key": (33, 42, 0o600),
    "srv/far": (3_000_000_000, 5, 0o644),
}


def _load_owned(engine: Pyreg, name: str) -> None:
    more = {"srv/web": None, "srv/web/page": "hello\n", "srv/web/secret": None}
    more |= {"srv/web/secret/key": "k\n", "srv/far": "f\n"}
    engine.load(name, busybox_tree() | more, owners=OWNED)


def test_files_of_the_image_keep_their_owners_with_subordinate_ids(ranged: Pyreg) -> None:
    _load_owned(ranged, "owned")
    script = "stat -c '%u:%g %a' /srv/web /srv/web/page /srv/web/secret /srv/far"
    done = ranged("run", "--rm", "owned", "sh", "-c", script)
    assert lines(done) == ["33:33 750", "33:33 640", "33:42 700", "0:0 644"]
    done = ranged("run", "--rm", "-u", "33:33", "owned", "cat", "/srv/web/page")
    assert lines(done) == ["hello"]
    done = ranged("run", "--rm", "-u", "1000", "owned", "cat", "/srv/web/page")
    assert "Permission denied" in done.stderr
    script = "rm -r /srv/web/secret && ls /srv/web"
    assert lines(ranged("run", "--rm", "-u", "33:33", "owned", "sh", "-c", script)) == ["page"]
    assert ranged.leftovers() == []


def test_such_an_image_is_removed(ranged: Pyreg) -> None:
    _load_owned(ranged, "owned2")
    layers = set(os.listdir(f"{ranged.root}/layers"))
    assert ranged("run", "--rm", "owned2", "true").returncode == 0
    new = set(os.listdir(f"{ranged.root}/layers")) - layers
    done = ranged("rmi", "owned2")
    assert (done.returncode, done.stderr) == (0, "")
    assert not new & set(os.listdir(f"{ranged.root}/layers"))


def test_with_one_id_everything_of_the_image_is_roots(rootless: Pyreg) -> None:
    _load_owned(rootless, "owned")
    script = "stat -c '%u:%g' /srv/web /srv/web/secret/key /srv/far"
    done = rootless("run", "--rm", "owned", "sh", "-c", script)
    assert lines(done) == ["0:0"] * 3


@pytest.mark.parametrize("kind", ["root", "ranged", "rootless"])
def test_without_overlay_the_root_is_a_copy(request: pytest.FixtureRequest, kind: str) -> None:
    made = request.getfixturevalue("engine" if kind == "root" else kind)
    _load_owned(made, "copied")
    remembered = f"{made.root}/run/overlay"
    assert made("run", "--rm", "copied", "true").returncode == 0
    with open(remembered, "w") as file:
        file.write("no such device")
    try:
        script = "grep -c ' / overlay' /proc/mounts; stat -c '%u:%g' /srv/web/secret; rm -r /srv"
        done = made("run", "--rm", "copied", "sh", "-c", script)
        assert "no such device" in done.stderr and "full copy" in done.stderr
        owner = "0:0" if kind == "rootless" else "33:42"
        assert (done.returncode, done.stdout.split()) == (0, ["0", owner])
        assert made("run", "--name", "kept", "copied", "touch", "/x").returncode == 0
        assert made("rm", "kept").returncode == 0
        assert os.listdir(f"{made.root}/snapshots") == []
    finally:
        os.unlink(remembered)


def test_what_an_ordinary_user_cannot_unpack_is_said_once(rootless: Pyreg) -> None:
    out = io.BytesIO(archive(busybox_tree()))
    with tarfile.open(fileobj=out, mode="a") as tar:
        for number in (3, 5):
            node = tarfile.TarInfo(f"dev/node{number}")
            node.type, node.devmajor, node.devminor = tarfile.CHRTYPE, 1, number
            tar.addfile(node)
    assert rootless("import", "-", "nodes", stdin=out.getvalue()).returncode == 0
    done = rootless("run", "--rm", "nodes", "true")
    assert done.stderr == "Left out of the image: device node, which needs root (2)\n"
    assert rootless("run", "--rm", "nodes", "true").stderr == ""
