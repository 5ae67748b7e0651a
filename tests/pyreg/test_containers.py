"""What `run`, `ps` and `logs` make of their words, without starting anything."""

from __future__ import annotations

import io
import os

import pytest

from pyreg import cli
from pyreg.__main__ import Context
from pyreg.commands import logs, ps, run
from pyreg.console import Console
from pyreg.environment import read
from pyreg.unsupported import RUN
from runtime.container.state import ContainerRecord, ContainerState
from runtime.errors import EngineError

MOMENT = 1_700_000_000.0


def options(*words: str, **variables: str):
    parsed = cli.parse(run.COMMAND, words)
    assert parsed is not None
    context = Context(Console(io.StringIO(), io.StringIO()), read(variables, root="/nowhere"))
    return run.run_options(parsed, context)


def test_the_words_after_the_image_belong_to_the_command() -> None:
    found = options("-d", "--rm", "debian", "ls", "-l", "--all")
    assert found.command == ("ls", "-l", "--all")
    assert (found.detach, found.auto_remove, found.network) == (True, True, "none")


def test_environment_of_flags_files_and_caller(tmp_path) -> None:
    file = tmp_path / "env"
    file.write_text("A=file\nB\n")
    found = options("--env-file", str(file), "-e", "C=flag", "-e", "D", "x", B="caller", D="d")
    assert found.env == ("A=file", "B=caller", "C=flag", "D=d")


def test_relative_volumes_begin_at_the_callers_directory() -> None:
    assert options("-v", "./x:/c", "y").volumes[0].source == os.path.join(os.getcwd(), "x")


def test_entrypoint_can_be_taken_away() -> None:
    assert options("--entrypoint", "", "x").entrypoint == ""
    assert options("x").entrypoint is None


def test_limits() -> None:
    found = options("-m", "64m", "--cpus", "1.5", "--pids-limit", "9", "x").limits
    assert (found.memory, found.cpu_quota, found.pids) == (64 << 20, 150_000, 9)


@pytest.mark.parametrize(
    "words",
    [
        ["--security-opt", "apparmor=x", "i"],
        ["--cpus", "many", "i"],
        ["-m", "1k", "i"],
        ["--env-file", "/nonexistent", "i"],
        ["--network", "bridge", "i"],
        ["--stop-signal", "FOO", "i"],
        ["--stop-signal", "99999", "i"],
        ["-v", "relative", "i"],
        ["--publish", "80:80", "i"],
        [],
    ],
    ids=" ".join,
)
def test_refused(words: list[str]) -> None:
    with pytest.raises((cli.UsageError, EngineError)):
        options(*words)


# The whole list of `docker run --help`, but for `help`.
DOCKER_FLAGS = """
add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent
cgroupns cidfile cpu-count cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime
cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device device-cgroup-rule
device-read-bps device-read-iops device-write-bps device-write-iops dns dns-option dns-search
domainname entrypoint env env-file expose gpus group-add health-cmd health-interval
health-retries health-start-interval health-start-period health-timeout hostname init
interactive io-maxbandwidth io-maxiops ip ip6 ipc isolation label label-file link link-local-ip
log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness mount
name network network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform
privileged publish publish-all pull quiet read-only restart rm runtime security-opt shm-size
sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket user
userns uts volume volume-driver volumes-from workdir
"""


def test_every_flag_of_docker_is_there_or_refused_by_name() -> None:
    ours = {flag.name for flag in run.COMMAND.flags}
    assert [name for name in DOCKER_FLAGS.split() if name not in ours | set(RUN)] == []
    assert ours & set(RUN) == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--restart", "always", "i"], "--restart is not supported"),
        (["--restart=always", "i"], "--restart is not supported"),
        (["-dp", "80:80", "i"], "--publish is not supported: there is no network"),
        (["-P", "i"], "--publish-all is not supported"),
        (["--isolation", "hyperv", "i"], "--isolation is not supported: it is for .* Windows"),
        (["--init", "i"], "^--init is not supported$"),
        (["--frobnicate", "i"], "unknown flag: --frobnicate"),
        (["-Z", "i"], "unknown shorthand flag: 'Z' in -Z"),
    ],
)
def test_a_flag_that_is_missing_on_purpose_is_named(words: list[str], message: str) -> None:
    with pytest.raises(cli.FlagError, match=message) as caught:
        options(*words)
    assert caught.value.exit_status == 125


RECORD = ContainerRecord(
    id="ab" * 32,
    name="web",
    image="debian:12",
    image_id="sha256:" + "cd" * 32,
    created_ns=int((MOMENT - 300) * 1e9),
    command=("sh", "-c", "a long command line"),
    network="none",
    labels=(("tier", "front"),),
)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (ContainerState("running", started_ns=int((MOMENT - 299) * 1e9)), "Up 4 minutes"),
        (ContainerState("exited", exit_code=3, finished_ns=int((MOMENT - 2) * 1e9)),
         "Exited (3) 2 seconds ago"),
        (ContainerState("created"), "Created"),
    ],
)  # fmt: skip
def test_status_in_dockers_words(state: ContainerState, words: str) -> None:
    assert ps.status(state, MOMENT) == words


def test_a_row() -> None:
    found = ps.row((RECORD, ContainerState("created")), MOMENT, whole=False)
    assert found["ID"] == "ab" * 6
    assert found["Command"] == '"sh -c \'a long comma…"'
    assert found["RunningFor"] == "5 minutes ago"
    whole = ps.row((RECORD, ContainerState("created")), MOMENT, whole=True)
    assert (whole["ID"], whole["Command"]) == ("ab" * 32, "\"sh -c 'a long command line'\"")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("echo", "a b", "c'd", 'e"f'), r'''"echo 'a b' c'd e\"f"'''),
        (("sh", "-c", "sleep 1000"), "\"sh -c 'sleep 1000'\""),
        (("my program", "x"), '"my program x"'),
        (("printf", "a\\n\tb\x1b[1m"), r'''"printf a\\n\tb\x1b[1m"'''),
    ],
)
def test_a_command_is_quoted_as_docker_does(words: tuple[str, ...], shown: str) -> None:
    assert ps.quoted(words, 0) == shown


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("id=abab", True),
        ("id=cd", False),
        ("name=we", True),
        ("status=exited", True),
        ("status=running", False),
        ("exited=3", True),
        ("exited=0", False),
        ("ancestor=debian", True),
        ("ancestor=debian:12", True),
        ("ancestor=cdcd", True),
        ("label=tier", True),
        ("label=tier=back", False),
    ],
)
def test_filters(text: str, fits: bool) -> None:
    assert ps._filter(text)((RECORD, ContainerState("exited", exit_code=3))) is fits


@pytest.mark.parametrize("text", ["name", "status=odd", "exited=x", "what=1"])
def test_refused_filters(text: str) -> None:
    with pytest.raises(cli.UsageError):
        ps._filter(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000000Z"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05.000000000Z"),
        ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05.000000000Z"),
        ("2026-01-02", "2026-01-02T00:00:00.000000000Z"),
        ("0.5", "1970-01-01T00:00:00.500000000Z"),
        ("", ""),
    ],
)
def test_points_in_time(text: str, expected: str) -> None:
    assert logs._moment(text) == expected


def test_spans() -> None:
    assert logs._span("1h30m") == 5400
    assert logs._span("1.5s") == 1.5
    assert logs._span("soon") is None
    with pytest.raises(cli.UsageError):
        logs._moment("soon")
