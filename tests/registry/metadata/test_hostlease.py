"""One machine at a time on one SQLite file; any number of processes of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from registry.errors import DatabaseHeld, DatabaseUnusable
from registry.metadata.database import open_metadata
from registry.metadata.hostlease import HostLease
from tests.builders.tools import require_root


def hold(
    path: Path, me: str, *, renew_s: float = 0.05, expiry_s: float = 60, settle_s: float = 0.05
) -> HostLease:
    return HostLease(path, me=me, renew_s=renew_s, expiry_s=expiry_s, settle_s=settle_s)


def lease_of(path: Path) -> Path:
    return path.with_name(path.name + ".host")


def write_lease(path: Path, machine: str, host: str, *, age_s: float) -> None:
    lease_of(path).write_text(
        json.dumps({"machine": machine, "host": host, "since": 1_700_000_000})
    )
    then = time.time() - age_s
    os.utime(lease_of(path), (then, then))


def test_another_machine_is_refused_and_told_who_has_it_and_what_to_do(path):
    write_lease(path, "boot-one", "alpha", age_s=7)
    with pytest.raises(DatabaseHeld) as caught:
        open_metadata(path)
    said = f"{caught.value} {caught.value.hint}"
    for word in ("alpha", "2023-11-14 22:13:20 UTC", str(path), "PostgreSQL", "7 seconds ago"):
        assert word in said
    assert f"remove {lease_of(path)}" in said
    assert json.loads(lease_of(path).read_text())["host"] == "alpha"


def test_the_override_is_to_remove_the_lease(path):
    write_lease(path, "boot-one", "alpha", age_s=0)
    lease_of(path).unlink()
    open_metadata(path).close()


def test_a_machine_that_fell_silent_is_taken_over_from(path):
    write_lease(path, "boot-one", "alpha", age_s=61)
    lease = hold(path, "boot-two")
    assert json.loads(lease_of(path).read_text())["machine"] == "boot-two"
    lease.close()
    assert not lease_of(path).exists()


def test_processes_of_one_machine_share_it_and_the_last_one_gives_it_back(path):
    first, second = hold(path, "boot-one"), hold(path, "boot-one")
    first.close()
    first.close()
    with pytest.raises(DatabaseHeld):
        hold_elsewhere(path)
    second.close()
    hold_elsewhere(path).close()
    assert list(path.parent.glob("*.host*")) == []


def hold_elsewhere(path: Path) -> HostLease:
    """As another machine, which also has another name."""
    holder = json.loads(lease_of(path).read_text()) if lease_of(path).exists() else None
    if holder is not None and holder["host"] == socket.gethostname():
        stat = os.stat(lease_of(path))
        lease_of(path).write_text(json.dumps({**holder, "host": "alpha"}))
        os.utime(lease_of(path), (stat.st_atime, stat.st_mtime))
    return hold(path, "boot-two")


def test_it_is_renewed_while_it_is_held(path):
    lease = hold(path, "boot-one")
    os.utime(lease_of(path), (1, 1))
    for _ in range(200):
        if os.stat(lease_of(path)).st_mtime > 1:
            break
        time.sleep(0.02)
    assert os.stat(lease_of(path)).st_mtime > 1
    lease.close()


def test_who_was_taken_over_from_stops_to_write(path):
    """It slept for too long, say: it must find out before it writes, not after."""
    lease = hold(path, "boot-one", renew_s=3600, expiry_s=0)
    lease.require()
    write_lease(path, "boot-two", "beta", age_s=0)
    with pytest.raises(DatabaseHeld, match="beta"):
        lease.require()
    lease.close()
    assert lease_of(path).exists(), "it is the other's now"


def test_the_same_machine_after_a_crash_waits_for_its_own_old_lease(path):
    write_lease(path, "boot-one", socket.gethostname(), age_s=59.7)
    lease = hold(path, "boot-two")
    assert json.loads(lease_of(path).read_text())["machine"] == "boot-two"
    lease.close()


def test_a_twin_with_the_same_name_that_is_alive_is_refused(path):
    twin = hold(path, "boot-one", renew_s=0.02)
    with pytest.raises(DatabaseHeld):
        hold(path, "boot-two", expiry_s=2)
    twin.close()


def test_of_two_that_take_over_at_once_one_gets_it(path):
    write_lease(path, "boot-zero", "alpha", age_s=1000)
    begin = threading.Barrier(4)
    held: list[HostLease] = []
    refused: list[DatabaseHeld] = []

    def attempt(number: int) -> None:
        begin.wait()
        try:
            held.append(hold(path, f"boot-{number}", settle_s=0.5, expiry_s=2))
        except DatabaseHeld as error:
            refused.append(error)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 3)
    held[0].close()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"machine": 1}', b"\xff" * 5000])
def test_an_unreadable_lease_is_somebody_unknown(path, content):
    lease_of(path).write_bytes(content)
    with pytest.raises(DatabaseHeld, match="unknown"):
        hold(path, "boot-one")


def test_attack_a_link_in_its_place_is_not_followed(path, tmp_path):
    (tmp_path / "victim").write_text("precious")
    lease_of(path).symlink_to(tmp_path / "victim")
    with pytest.raises(DatabaseUnusable):
        hold(path, "boot-one")
    assert (tmp_path / "victim").read_text() == "precious"


PROGRAM = """
import sys
from pathlib import Path
from registry.errors import DatabaseHeld
from registry.metadata.database import open_metadata
try:
    open_metadata(Path(sys.argv[1])).close()
except DatabaseHeld as error:
    print(error)
"""


def test_another_kernel_on_the_same_directory_is_refused(path, tmp_path):
    """The other machine is real but for its kernel: a namespace in which /proc tells another boot
    id, and the host has another name."""
    require_root()
    (tmp_path / "boot_id").write_text("00000000-0000-4000-8000-000000000000\n")
    script = (
        f"mount --bind {tmp_path}/boot_id /proc/sys/kernel/random/boot_id"
        f" && hostname elsewhere && exec {sys.executable} -c '{PROGRAM}' {path}"
    )
    elsewhere = ["unshare", "--mount", "--uts", "sh", "-c", script]
    metadata = open_metadata(path)
    try:
        done = subprocess.run(elsewhere, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"in use by another machine, {socket.gethostname()}" in done.stdout
    finally:
        metadata.close()
    done = subprocess.run(elsewhere, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
