"""The image commands as a person types them, against a real registry."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.builders.servers import (
    Server,
    pyreg_command,
    pyreg_environment,
    start_docker_registry,
)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = start_docker_registry(tmp_path_factory.mktemp("registry"))
    yield server
    server.stop()


@pytest.fixture
def pyreg(tmp_path: Path, registry: Server) -> Run:
    """Run one command; its standard output and error, and its status."""

    def run(*words: str, given: bytes | None = None, status: int = 0) -> object:
        done = subprocess.run(
            [*pyreg_command(), "--root", str(tmp_path / "data"), *words],
            input=given,
            capture_output=True,
            timeout=60,
            env=pyreg_environment(
                HOME=str(tmp_path),
                DOCKER_CONFIG=str(tmp_path / "docker"),
                PYREG_DEFAULT_REGISTRY=registry.host,
                SOURCE_DATE_EPOCH="1767225600",
            ),
        )
        assert done.returncode == status, done.stderr.decode()
        return subprocess.CompletedProcess(
            words, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return run  # type: ignore[return-value]


@pytest.fixture
def rootfs() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("etc/hello")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"hello"))
    return out.getvalue()


def test_the_life_of_an_image(pyreg: Run, rootfs: bytes, registry: Server) -> None:
    image_id = pyreg("import", "-c", 'CMD ["true"]', "-", "life/wget", given=rootfs).stdout.strip()
    assert image_id.startswith("sha256:")
    short = image_id[7:19]

    listed = pyreg("images").stdout.splitlines()
    assert listed[0].split("   ")[0] == "REPOSITORY"
    assert listed[1].split()[:3] == ["life/wget", "latest", short]
    assert listed[1].endswith("10.2kB")
    assert pyreg("images", "-q").stdout.split() == [short]
    assert pyreg("images", "-q", "--no-trunc").stdout.split() == [image_id]
    assert pyreg("images", "--format", "{{.Repository}}:{{.Tag}}").stdout == "life/wget:latest\n"
    assert json.loads(pyreg("images", "--format", "json").stdout)["ID"] == short

    pushed = pyreg("push", "life/wget")
    assert f"The push refers to repository [{registry.host}/life/wget]" in pushed.stderr
    assert ": Pushed" in pushed.stderr
    digest = pushed.stdout.split()[2]
    size = pushed.stdout.split()[4]
    assert pushed.stdout == f"latest: digest: {digest} size: {size}\n"
    assert pyreg("images", "--digests").stdout.splitlines()[1].split()[2] == digest
    assert pyreg("tags", "life/wget").stdout == "latest\n"
    assert pyreg("tags", "--digests", "life/wget").stdout == f"latest {digest}\n"
    assert pyreg("search", "life").stdout.splitlines()[1].strip().startswith("life/wget")
    headings = ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    kept = pyreg("search", "--filter", "is-official=false", "life").stdout.splitlines()
    assert kept[0].split() == headings and len(kept) == 2
    assert pyreg("search", "--filter", "stars=1", "life").stdout.split() == headings

    removed = pyreg("rmi", "life/wget").stdout.splitlines()
    assert removed[:2] == ["Untagged: life/wget:latest", f"Untagged: life/wget@{digest}"]
    assert f"Deleted: {image_id}" in removed
    assert pyreg("images").stdout.splitlines()[1:] == []

    pulled = pyreg("pull", "life/wget")
    assert pulled.stdout.splitlines() == [
        f"Digest: {digest}",
        "Status: Downloaded newer image for life/wget:latest",
        f"{registry.host}/life/wget:latest",
    ]
    assert "Using default tag: latest" in pulled.stderr and "Pull complete" in pulled.stderr
    again = pyreg("pull", "life/wget:latest").stdout
    assert "Status: Image is up to date for life/wget:latest" in again
    assert pyreg("pull", "-q", f"life/wget@{digest}").stdout == (
        f"{registry.host}/life/wget@{digest}\n"
    )

    (document,) = json.loads(pyreg("inspect", "life/wget").stdout)
    assert document["Id"] == image_id and document["RepoTags"] == ["life/wget:latest"]
    assert document["RepoDigests"] == [f"life/wget@{digest}"]
    assert document["Config"]["Cmd"] == ["true"]
    shown = pyreg("inspect", "-f", "{{.Id}} {{json .Config.Cmd}}", short).stdout
    assert shown == f'{image_id} ["true"]\n'


def test_tag_and_filters(pyreg: Run, rootfs: bytes) -> None:
    pyreg("import", "-c", "LABEL kind=test", "-", "one:1", given=rootfs)
    pyreg("tag", "one:1", "docker.io/two")
    listed = pyreg("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    assert sorted(listed) == ["docker.io/two:latest", "one:1"]
    for words, expected in [
        (["one"], ["one:1"]),
        (["one:2"], []),
        (["-f", "reference=o*"], ["one:1"]),
        (["-f", "label=kind=test"], ["docker.io/two:latest", "one:1"]),
        (["-f", "label=kind=other"], []),
        (["-f", "dangling=true"], []),
    ]:
        out = pyreg("images", "--format", "{{.Repository}}:{{.Tag}}", *words).stdout
        assert sorted(out.split()) == expected, words
    assert "invalid filter" in pyreg("images", "-f", "nonsense=1", status=1).stderr
    # By id, an image with two names stays without -f.
    image_id = pyreg("images", "-q").stdout.split()[0]
    assert "several names" in pyreg("rmi", image_id, status=1).stderr
    assert "Deleted" in pyreg("rmi", "-f", image_id).stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pull", "no/such"], "not found"),
        (["push", "-a", "no/such"], "No such image"),
        (["push", "no/such"], "No such image"),
        (["rmi", "no/such"], "No such image"),
        (["tag", "no/such", "x"], "No such image"),
        (["inspect", "no/such"], "No such object"),
        (["pull", "Bad Name"], "pyreg: "),
        (["pull", "127.0.0.1:1/x"], "Connection refused"),
        (["import", "/no/such/file"], "No such file"),
        (["import", "http://x/y"], "URL"),
        (["images", "--format", "{{.Nope}}"], ""),
        (["search", "--limit", "1000", "x"], "outside the range"),
        (["search", "--filter", "colour=red", "x"], "invalid filter 'colour=red'"),
        (["search"], "say what to look for"),
        (["login", "-u", "x", "--password-stdin", "-p", "y"], "mutually exclusive"),
    ],
)
def test_errors_are_one_clear_line(pyreg: Run, words: list[str], said: str) -> None:
    done = pyreg(*words, given=b"x", status=0 if not said else 1)
    assert said in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_rmi_force_forgives_what_is_not_there(pyreg: Run) -> None:
    assert "No such image" in pyreg("rmi", "-f", "no/such").stderr


def test_login_and_logout(pyreg: Run, registry: Server, tmp_path: Path) -> None:
    words = ["login", "-u", "anyone", "--password-stdin", registry.host]
    assert pyreg(*words, given=b"secret\n").stdout == "Login Succeeded\n"
    config = json.loads((tmp_path / "docker" / "config.json").read_text())
    assert registry.host in config["auths"]
    said = pyreg("logout", registry.host).stdout
    assert said == f"Removing login credentials for {registry.host}\n"
    assert pyreg("logout", registry.host).stdout == f"Not logged in to {registry.host}\n"


def test_pull_of_all_tags(pyreg: Run, rootfs: bytes) -> None:
    for tag in ("1", "2"):
        pyreg("import", "-m", tag, "-", f"all:{tag}", given=rootfs)
    pyreg("push", "-a", "all")
    pyreg("rmi", "all:1", "all:2")
    pyreg("pull", "-a", "-q", "all")
    assert sorted(pyreg("images", "all", "--format", "{{.Tag}}").stdout.split()) == ["1", "2"]


def test_an_image_of_another_platform_is_pulled_with_a_warning(pyreg: Run, rootfs: bytes) -> None:
    pyreg("import", "--platform", "linux/arm64", "-", "arm", given=rootfs)
    pyreg("push", "arm")
    assert "WARNING" not in pyreg("pull", "--platform", "linux/arm64/v8", "arm").stderr
    said = pyreg("pull", "--platform", "linux/s390x", "arm").stderr
    assert "WARNING: arm:latest exists for linux/arm64 only, not for linux/s390x" in said


@pytest.mark.parametrize(
    ("words", "status", "called"),
    [
        (["images", "--nope"], 125, "pyreg images"),
        (["images", "a", "b"], 1, "pyreg images"),
        (["nope"], 1, "pyreg"),
        (["--nope"], 125, "pyreg"),
        (["image", "ls", "-z"], 125, "pyreg images"),
    ],
)
def test_words_that_do_not_fit_say_where_to_read(
    pyreg: Run, words: list[str], status: int, called: str
) -> None:
    assert pyreg(*words, status=status).stderr.splitlines()[1].strip() == f"See '{called} --help'."
