"""The main job, word for word: an image is made, pushed, removed, pulled and run."""

from __future__ import annotations

import json
import re

import pytest

from tests.builders.machine import Machine
from tests.builders.servers import PASSWORD, Server
from tests.integration.conftest import MakeMachine

pytestmark = pytest.mark.root
AGO = r"(Less than a second|\d+ seconds?|About a minute) ago"


def test_an_image_from_import_to_container(new_machine: MakeMachine, registry: Server) -> None:
    machine = new_machine(login=False)
    image_id = machine.load("wget", 'CMD ["sh", "-c", "echo out; echo err >&2; exit 3"]')
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image_id)
    short = image_id[7:19]
    assert machine("tag", "wget", "omrisiri/wget").out == ""

    words = ("login", "-u", "tester", "--password-stdin")
    done = machine(*words, given=PASSWORD.encode() + b"\n")
    assert done.out == "Login Succeeded\n"

    pushed = machine("push", "omrisiri/wget")
    layer = pushed.err.splitlines()[2][:12]
    assert pushed.err.splitlines() == [
        "Using default tag: latest",
        f"The push refers to repository [{registry.host}/omrisiri/wget]",
        f"{layer}: Preparing",
        f"{layer}: Pushed",
    ]
    assert re.fullmatch(r"latest: digest: sha256:[0-9a-f]{64} size: \d+\n", pushed.out)
    digest = pushed.out.split()[2]
    again = machine("push", "omrisiri/wget:latest")
    assert again.out == pushed.out
    assert again.err.splitlines()[-1] == f"{layer}: Layer already exists"

    header, *rows = machine("images").lines
    assert header.split("  ")[0] == "REPOSITORY"
    assert [row.split()[:3] for row in rows] == [
        ["omrisiri/wget", "latest", short],
        ["wget", "latest", short],
    ]
    assert machine("rmi", "wget").out == "Untagged: wget:latest\n"
    removed = machine("rmi", "omrisiri/wget").lines
    assert removed[:3] == [
        "Untagged: omrisiri/wget:latest",
        f"Untagged: omrisiri/wget@{digest}",
        f"Deleted: {image_id}",
    ]
    assert all(re.fullmatch(r"Deleted: sha256:[0-9a-f]{64}", line) for line in removed[2:])
    assert machine.names() == [] and machine.unpacked() == []
    assert list((machine.root / "images/blobs/sha256").iterdir()) == []

    pulled = machine("pull", "omrisiri/wget")
    assert pulled.out.splitlines() == [
        f"Digest: {digest}",
        "Status: Downloaded newer image for omrisiri/wget:latest",
        f"{registry.host}/omrisiri/wget:latest",
    ]
    assert pulled.err.splitlines() == [
        "Using default tag: latest",
        "latest: Pulling from omrisiri/wget",
        f"{layer}: Pulling fs layer",
        f"{layer}: Verifying Checksum",
        f"{layer}: Download complete",
        f"{layer}: Pull complete",
    ]
    assert machine.inspect("omrisiri/wget")["Id"] == image_id
    same = machine("pull", "omrisiri/wget")
    assert same.lines[1] == "Status: Image is up to date for omrisiri/wget:latest"

    ran = machine("run", "--name", "job", "omrisiri/wget", status=3)
    assert (ran.out, ran.err) == ("out\n", "err\n")
    logs = machine("logs", "job")
    assert (logs.out, logs.err) == ("out\n", "err\n")
    assert machine("ps").lines[1:] == []
    header, row = machine("ps", "-a").lines
    assert re.split(r" {2,}", header) == [
        *("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES")
    ]
    columns = re.split(r" {2,}", row)
    assert columns[1:3] == ["omrisiri/wget", '"sh -c \'echo out; ec…"']
    assert re.fullmatch(AGO, columns[3]), columns
    assert re.fullmatch(rf"Exited \(3\) {AGO}", columns[4]), columns
    assert columns[5] == "job"
    in_use = machine("rmi", "omrisiri/wget", status=1)
    assert re.fullmatch(
        rf"stopped container [0-9a-f]{{12}} \(job\) is using image {short}", in_use.error
    )
    assert machine("rm", "job").out == "job\n"
    assert machine("logs", "job", status=1).error == "No such container: job"
    assert machine("rm", "job", status=1).error == "No such container: job"
    assert machine("ps", "-aq").out == ""
    assert "Deleted: " + image_id in machine("rmi", "omrisiri/wget").lines
    assert machine("logout").out == f"Removing login credentials for {registry.host}\n"


def test_quiet_prints_only_what_a_script_needs(machine: Machine, registry: Server) -> None:
    image_id = machine.load("quiet/app")
    full = f"{registry.host}/quiet/app:latest"
    for words, said in [
        (("push", "-q", "quiet/app"), full),
        (("images", "-q"), image_id[7:19]),
        (("images", "-q", "--no-trunc"), image_id),
        (("pull", "-q", "quiet/app"), full),
        (("pull", "--quiet", "quiet/app:latest"), full),
    ]:
        done = machine(*words)
        assert (done.out, done.err) == (said + "\n", ""), words
    machine("rmi", "quiet/app")
    done = machine("run", "--rm", "-q", "quiet/app", "echo", "it runs")
    assert (done.out, done.err) == ("it runs\n", "")
    container = machine("run", "-d", "quiet/app", "sleep", "1000").out.strip()
    assert re.fullmatch(r"[0-9a-f]{64}", container)
    assert machine("ps", "-q").out == container[:12] + "\n"
    assert machine("ps", "-q", "--no-trunc").out == container + "\n"
    running = machine("rm", container, status=1)
    assert "running" in running.error and "force" in running.hint.lower() + running.error
    assert "is using image" in machine("rmi", "-f", "quiet/app", status=1).error
    assert machine("rm", "-f", container[:12]).out == container[:12] + "\n"


def test_json_for_programs(machine: Machine) -> None:
    image_id = machine.load("json/app", "LABEL kind=test", 'ENV A="b c"', "WORKDIR /tmp")
    machine("push", "json/app")
    (row,) = map(json.loads, machine("images", "--format", "json").lines)
    assert (row["Repository"], row["Tag"], row["ID"]) == ("json/app", "latest", image_id[7:19])
    machine("run", "--name", "one", "json/app", "true")
    (row,) = map(json.loads, machine("ps", "-a", "--format", "json").lines)
    assert (row["Names"], row["State"], row["Image"]) == ("one", "exited", "json/app")
    assert row["Command"] == '"true"' and row["Status"].startswith("Exited (0)")
    template = "{{.Names}}={{.State}}"
    assert machine("ps", "-a", "--format", template).out == "one=exited\n"
    document = machine.inspect("json/app")
    assert document["Id"] == image_id and document["RepoTags"] == ["json/app:latest"]
    assert document["Config"]["WorkingDir"] == "/tmp"
    assert machine("inspect", "-f", "{{json .Config.Labels}}", "json/app").out == (
        '{"kind":"test"}\n'
    )
    done = machine("run", "--rm", "json/app", "sh", "-c", 'echo "$A" $PWD')
    assert done.out == "b c /tmp\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("app", "true"), 0),
        (("app", "sh", "-c", "exit 42"), 42),
        (("app", "no-such-program"), 127),
        (("app", "/etc"), 126),
        (("app", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137),
        (("--no-such-flag", "app"), 125),
        (("no/such/image",), 125),
    ],
)
def test_exit_status_of_run(new_machine: MakeMachine, words: tuple[str, ...], status: int) -> None:
    machine = new_machine()
    machine.load("app")
    done = machine("run", "--rm", *words, status=status)
    assert done.out == ""
    if 125 <= status < 128:
        assert done.error
    else:
        assert done.err in ("", "Killed\n")  # the shell says the second


def test_run_pulls_what_is_not_here(new_machine: MakeMachine) -> None:
    maker, machine = new_machine(), new_machine()
    maker.load("fetched/app")
    digest = maker("push", "fetched/app").out.split()[2]
    done = machine("run", "--rm", "fetched/app", "echo", "hello")
    assert done.out == "hello\n"
    assert done.err.splitlines()[0] == "Unable to find image 'fetched/app:latest' locally"
    assert done.err.splitlines()[-2:] == [
        f"Digest: {digest}",
        "Status: Downloaded newer image for fetched/app:latest",
    ]
    by_digest = machine("run", "--rm", f"fetched/app@{digest}", "echo", "the same")
    assert (by_digest.out, by_digest.err) == ("the same\n", "")


def test_a_copy_on_another_machine_is_the_same_to_the_byte(new_machine: MakeMachine) -> None:
    maker, other = new_machine(), new_machine()
    image_id = maker.load("same/app", files={"etc/marker": "deep in it"})
    digest = maker("push", "same/app").out.split()[2]
    assert other("pull", f"same/app@{digest}").lines[0] == f"Digest: {digest}"
    assert other.inspect(f"same/app@{digest}")["Id"] == image_id

    def blobs(machine: Machine) -> dict[str, bytes]:
        files = (machine.root / "images/blobs/sha256").iterdir()
        return {file.name: file.read_bytes() for file in files}

    assert blobs(maker) == blobs(other)
    # Pushed on from there under another name, its digest stays.
    other("tag", image_id[7:19], "same/again:v2")
    assert other("push", "same/again:v2").out.split()[2] == digest
    assert other("tags", "same/again").out == "v2\n"
    assert "same/again" in other("search", "same/a").out
