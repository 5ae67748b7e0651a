"""The same as an ordinary user with one id: no helper program, no cgroup, no capability."""

from __future__ import annotations

import os

import pytest

from tests.builders.pyreg import Pyreg, lines
from tests.builders.rootfs import busybox_tree

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
