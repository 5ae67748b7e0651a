"""`pyreg run` with real containers: what a user of docker relies on."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.builders.pyreg import Pyreg, lines

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("command", "status", "what"),
    [
        (["true"], 0, "success"),
        (["sh", "-c", "exit 7"], 7, "the program's own status"),
        (["nosuch"], 127, "no such program in PATH"),
        (["/bin/nosuch"], 127, "no such file"),
        (["/etc"], 126, "a directory"),
        (["/tmp"], 126, "a directory by path"),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137, "a child killed"),
    ],
)
def test_exit_status(engine: Pyreg, command: list[str], status: int, what: str) -> None:
    assert engine("run", "--rm", "bb", *command).returncode == status, what


def test_engine_errors_are_125(engine: Pyreg) -> None:
    for words in (
        ["--nosuchflag", "bb"],
        ["-v", "relative", "bb"],
        ["--network", "nope", "bb"],
        ["-m", "1k", "bb"],
    ):
        done = engine("run", *words)
        assert done.returncode == 125, words
        assert done.stderr.startswith("pyreg: "), done.stderr


def test_a_signal_is_passed_on_and_its_status_is_128_plus_n(engine: Pyreg) -> None:
    process = engine.begin(
        "run",
        "--rm",
        "bb",
        "sh",
        "-c",
        "trap 'exit 42' TERM; echo ready; while :; do sleep .1; done",
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 42
    process.stdout.close()
    done = engine("run", "--name", "killed", "-d", "bb", "sleep", "100")
    pid = _init_pid(engine, done.stdout.strip())
    os.kill(pid, signal.SIGKILL)
    _wait_exited(engine, "killed")
    assert "Exited (137)" in engine("ps", "-a", "--filter", "name=killed").stdout
    engine("rm", "killed")


def test_the_environment(engine: Pyreg) -> None:
    done = engine(
        "run",
        "--rm",
        "--hostname",
        "box",
        "-e",
        "A=1",
        "-e",
        "FROM_HOST",
        "-e",
        "ABSENT",
        "bb",
        "env",
        env={"FROM_HOST": "yes"},
    )
    assert sorted(lines(done)) == [
        "A=1",
        "FROM_HOST=yes",
        "HOME=/root",
        "HOSTNAME=box",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "0 0 0"),
        ("alice", "1000 1000 50 1000"),
        ("1000", "1000 1000 50 1000"),  # the passwd line *named* 1000 must not make it root
        ("1000:42", "1000 42 42"),
        ("alice:shadow", "1000 42 42"),
        ("4242", "4242 0 0"),
        ("0:0", "0 0 0"),
    ],
)
def test_users(engine: Pyreg, user: str, expected: str) -> None:
    words = ["-u", user] if user else []
    done = engine("run", "--rm", *words, "bb", "sh", "-c", "echo $(id -u) $(id -g) $(id -G)")
    uid, gid, *groups = lines(done)[0].split()
    wanted_uid, wanted_gid, *wanted_groups = expected.split()
    assert (uid, gid, sorted(groups)) == (wanted_uid, wanted_gid, sorted(wanted_groups))


@pytest.mark.parametrize(
    "user", ["nobody-here", "4294967296", "-1", "+1000", "0x0", " 0", "a:nope"]
)
def test_users_that_are_refused(engine: Pyreg, user: str) -> None:
    done = engine("run", "--rm", "-u", user, "bb", "id")
    assert done.returncode in (125, 126)
    assert done.stdout == ""


def test_working_directory_is_made(engine: Pyreg) -> None:
    assert lines(engine("run", "--rm", "-w", "/a/b/c", "bb", "pwd")) == ["/a/b/c"]


def test_entrypoint_and_command(engine: Pyreg) -> None:
    assert lines(engine("run", "--rm", "--entrypoint", "echo", "bb", "x", "y")) == ["x y"]


def test_stdin_is_only_there_when_asked_for(engine: Pyreg) -> None:
    assert lines(engine("run", "--rm", "-i", "bb", "wc", "-c", stdin=b"12345")) == ["5"]
    assert lines(engine("run", "--rm", "bb", "wc", "-c", stdin=b"12345")) == ["0"]


def test_large_input_and_output_pass_unchanged(engine: Pyreg, tmp_path) -> None:
    content = os.urandom(3 << 20)
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(content)
    with source.open("rb") as reading, target.open("wb") as writing:
        process = engine.begin("run", "--rm", "-i", "bb", "cat", stdin=reading, stdout=writing)
        assert process.wait(60) == 0
    assert target.read_bytes() == content


def test_sigpipe_ends_a_writer_in_the_container(engine: Pyreg) -> None:
    done = engine("run", "--rm", "bb", "sh", "-c", "yes | head -1", timeout_s=20)
    assert lines(done) == ["y"]


def test_our_reader_going_away_ends_a_writer_in_the_container(engine: Pyreg) -> None:
    script = " ".join(engine.command("run", "--rm", "bb", "yes")) + " | head -1"
    done = subprocess.run(
        ["sh", "-c", script], env=engine.environment, capture_output=True, timeout=20, check=False
    )
    assert done.stdout == b"y\n"


@pytest.mark.parametrize("closing", ["<&-", "<&- 2>&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("words", ["--rm", "--rm -i", "--rm -d"])
def test_standard_descriptors_closed_by_the_caller(engine: Pyreg, closing: str, words: str) -> None:
    command = " ".join(engine.command("run", words, "bb", "sh", "-c", "'echo seen; exit 5'"))
    done = subprocess.run(
        ["sh", "-c", f"{command} {closing}"],
        env=engine.environment,
        capture_output=True,
        timeout=20,
        check=False,
    )
    if "-d" not in words:
        assert done.returncode == 5, done.stderr
        assert done.stdout == (b"" if ">&-" in closing.split() else b"seen\n")
    else:
        assert done.returncode in (0, 1, 120), done.stderr


def test_read_only(engine: Pyreg) -> None:
    script = "touch /x 2>/dev/null && echo root; touch /dev/shm/x && echo shm; touch /t/x && echo t"
    done = engine("run", "--rm", "--read-only", "--tmpfs", "/t", "bb", "sh", "-c", script)
    assert lines(done) == ["shm", "t"]


def test_volumes(engine: Pyreg, tmp_path) -> None:
    (tmp_path / "file").write_text("from host\n")
    writing = "cat /data/file; echo back > /data/new; touch /ro/x 2>/dev/null || echo read-only"
    done = engine(
        "run",
        "--rm",
        "-v",
        f"{tmp_path}:/data",
        "-v",
        f"{tmp_path}:/ro:ro",
        "bb",
        "sh",
        "-c",
        writing,
    )
    assert lines(done) == ["from host", "read-only"]
    assert (tmp_path / "new").read_text() == "back\n"


def test_a_file_as_volume(engine: Pyreg, tmp_path) -> None:
    (tmp_path / "file").write_text("one\n")
    done = engine(
        "run", "--rm", "-v", f"{tmp_path}/file:/etc/conf/deep", "bb", "cat", "/etc/conf/deep"
    )
    assert lines(done) == ["one"]


def test_named_volumes_stay_and_take_what_the_image_has(engine: Pyreg) -> None:
    engine("run", "--rm", "-v", "kept:/etc", "bb", "sh", "-c", "echo more > /etc/more")
    done = engine("run", "--rm", "-v", "kept:/v", "bb", "sh", "-c", "ls /v; cat /v/more")
    assert {"passwd", "group", "more"} <= set(lines(done))


def test_network_none_has_loopback_only(engine: Pyreg) -> None:
    done = engine(
        "run", "--rm", "bb", "sh", "-c", "cat /proc/net/dev | grep -c : ; ls /sys/class/net"
    )
    assert lines(done) == ["1", "lo"]


def test_network_host_shares(engine: Pyreg) -> None:
    done = engine("run", "--rm", "--network", "host", "bb", "readlink", "/proc/self/ns/net")
    assert lines(done) == [os.readlink("/proc/self/ns/net")]


def test_names_are_unique_and_prefixes_find(engine: Pyreg) -> None:
    first = lines(engine("run", "-d", "--name", "twice", "bb", "sleep", "100"))[0]
    second = engine("run", "-d", "--name", "twice", "bb", "true")
    assert second.returncode == 125
    assert 'The container name "/twice" is already in use' in second.stderr
    refused = engine("rm", first[:6])
    assert refused.returncode == 1
    assert "container is running" in refused.stderr
    assert lines(engine("rm", "-f", first[:6])) == [first[:6]]
    assert engine("logs", "twice").returncode == 1


def test_detached_container_and_its_log(engine: Pyreg) -> None:
    script = "echo out; echo err >&2; printf unfinished"
    identity = lines(engine("run", "-d", "--name", "talks", "bb", "sh", "-c", script))[0]
    assert len(identity) == 64
    _wait_exited(engine, "talks")
    done = engine("logs", "talks")
    assert (done.stdout, done.stderr) == ("out\nunfinished", "err\n")
    assert engine("logs", "--tail", "1", "talks").stdout == "unfinished"
    stamped = engine("logs", "-t", "talks").stdout.splitlines()[0]
    assert stamped.endswith("Z out")
    assert "Exited (0)" in engine("ps", "-a").stdout
    engine("rm", "talks")


def test_following_a_log_ends_with_the_container(engine: Pyreg) -> None:
    engine(
        "run",
        "-d",
        "--name",
        "ticks",
        "bb",
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; sleep .3; done",
    )
    assert lines(engine("logs", "-f", "ticks", timeout_s=20)) == ["1", "2", "3"]
    engine("rm", "-f", "ticks")


def test_a_kept_foreground_container_has_a_log(engine: Pyreg) -> None:
    assert engine("run", "--name", "kept", "bb", "sh", "-c", "echo x; exit 3").returncode == 3
    assert engine("logs", "kept").stdout == "x\n"
    assert "Exited (3)" in engine("ps", "-l").stdout
    engine("rm", "kept")


def test_a_program_that_cannot_start_leaves_a_created_container(engine: Pyreg) -> None:
    assert engine("run", "--name", "never", "bb", "nosuch").returncode == 127
    assert "Created" in engine("ps", "-a", "--filter", "name=never").stdout
    assert engine("rm", "never").returncode == 0


def test_detached_start_failure_is_told(engine: Pyreg) -> None:
    done = engine("run", "--rm", "-d", "bb", "nosuch")
    assert done.returncode == 127
    assert "nosuch" in done.stderr


def test_rm_leaves_nothing(engine: Pyreg) -> None:
    before, cgroups = engine.leftovers(), set(_cgroups())
    engine("run", "--rm", "-v", "/anonymous", "bb", "true")
    engine("run", "--rm", "-d", "bb", "sleep", "0.2")
    engine("run", "--rm", "bb", "nosuch")
    engine("run", "--rm", "-u", "nosuch", "bb", "true")
    deadline = time.monotonic() + 10
    while engine.leftovers() != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine.leftovers() == before
    assert set(_cgroups()) - cgroups == set()


def test_twenty_at_once(engine: Pyreg) -> None:
    started = [
        engine.begin("run", "--rm", "bb", "sh", "-c", f"echo {n}", stdout=subprocess.PIPE)
        for n in range(20)
    ]
    results = [process.communicate(timeout=120)[0] for process in started]
    assert results == [f"{n}\n".encode() for n in range(20)]
    assert all(process.returncode == 0 for process in started)


def test_kill_of_the_monitor_ends_the_container_and_is_noticed(engine: Pyreg) -> None:
    identity = lines(engine("run", "-d", "--name", "orphan", "bb", "sleep", "100"))[0]
    init, monitor = _init_pid(engine, identity), _monitor_pid(engine, identity)
    os.kill(monitor, signal.SIGKILL)
    _wait_gone(init)
    assert "Exited (137)" in engine("ps", "-a", "--filter", "name=orphan").stdout
    assert not [path for path in _cgroups() if identity in path]
    assert engine("rm", "orphan").returncode == 0


def test_kill_of_a_foreground_run_leaves_nothing_after_the_next_command(engine: Pyreg) -> None:
    before, cgroups = engine.leftovers(), set(_cgroups())
    process = engine.begin(
        "run",
        "--rm",
        "--name",
        "gone",
        "bb",
        "sh",
        "-c",
        "echo ready; sleep 100",
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    assert "gone" not in engine("ps", "-a").stdout
    assert engine.leftovers() == before
    assert set(_cgroups()) - cgroups == set()


def test_memory_limit_kills_and_says_so(engine: Pyreg) -> None:
    script = "head -c 100000000 /dev/zero | sort | wc -c"
    done = engine(
        "run", "--rm", "-m", "16m", "bb", "sh", "-c", f"{script} >/dev/null || exit 9; exit 9"
    )
    assert done.returncode in (9, 137)


def test_cidfile(engine: Pyreg, tmp_path) -> None:
    path = tmp_path / "cid"
    engine("run", "--rm", "--cidfile", str(path), "bb", "true")
    assert len(path.read_text()) == 64
    assert engine("run", "--rm", "--cidfile", str(path), "bb", "true").returncode == 125


def test_hosts_and_resolver_files(engine: Pyreg) -> None:
    done = engine(
        "run",
        "--rm",
        "--hostname",
        "box",
        "--add-host",
        "db:10.1.2.3",
        "bb",
        "cat",
        "/etc/hostname",
        "/etc/hosts",
    )
    found = lines(done)
    assert found[0] == "box"
    assert "10.1.2.3\tdb" in found


def _state(engine: Pyreg, identity: str) -> dict:
    import json

    with open(f"{engine.root}/containers/{identity}/state.json", encoding="utf-8") as file:
        return json.load(file)


def _init_pid(engine: Pyreg, identity: str) -> int:
    return _state(engine, identity)["init"][0]


def _monitor_pid(engine: Pyreg, identity: str) -> int:
    return _state(engine, identity)["supervisor"][0]


def _wait_exited(engine: Pyreg, name: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (
            name
            in engine("ps", "-aq", "--filter", "status=exited", "--format", "{{.Names}}").stdout
        ):
            return
        if (
            engine("ps", "-a", "--filter", f"name={name}", "--format", "{{.State}}").stdout
            == "exited\n"
        ):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} did not end")


def _wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


def _cgroups() -> list[str]:
    found = []
    for hierarchy in os.listdir("/sys/fs/cgroup"):
        parent = f"/sys/fs/cgroup/{hierarchy}/pyreg"
        if os.path.isdir(parent):
            found += [f"{parent}/{name}" for name in os.listdir(parent) if len(name) == 64]
    return found


def test_any_user_may_take_low_ports_and_ping(engine: Pyreg) -> None:
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    found = lines(engine("run", "--rm", "bb", "sh", "-c", script))
    assert [line.split() for line in found] == [["0"], ["0", "2147483647"]]


def test_output_that_cannot_be_written_is_an_error(engine: Pyreg) -> None:
    with open("/dev/full", "w") as full:
        process = engine.begin("run", "--rm", "bb", "echo", "x", stdout=full, stderr=-1)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 125
    assert error == b"pyreg: cannot write stdout: No space left on device\n"
