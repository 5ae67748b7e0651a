"""What a registry refuses, and what we refuse to do: one clear line, and nothing changed."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.machine import Machine
from tests.builders.raw import RawRegistry
from tests.builders.servers import (
    PASSWORD,
    USER,
    Server,
    add_user,
    free_port,
    pyreg_command,
    pyreg_environment,
    start,
)
from tests.builders.tools import require_tool
from tests.integration.conftest import READER, READER_PASSWORD, MakeMachine

pytestmark = pytest.mark.root


@pytest.mark.parametrize(
    ("user", "password", "what"),
    [
        (USER, "wrong", "wrong password"),
        ("nobody-known", PASSWORD, "unknown user"),
        (USER, PASSWORD + " ", "nearly right"),
        ("TESTER", PASSWORD, "names are case-sensitive"),
    ],
)
def test_login_refused(new_machine: MakeMachine, user: str, password: str, what: str) -> None:
    machine = new_machine(login=False)
    words = ("login", "-u", user, "--password-stdin")
    done = machine(*words, given=password.encode(), status=1)
    assert done.error == f"{machine.registry}: incorrect username or password", what
    assert done.out == ""
    assert password not in done.err
    assert not (machine.home / ".docker/config.json").exists()  # nothing is kept of it


def test_credentials_that_became_stale(tmp_path: Path, registry: Server, raw: RawRegistry) -> None:
    """The password was changed after the login: pull and push say so, and a new login helps."""
    root = registry.log.parent
    add_user(root, "sara", "first password")
    machine = Machine(tmp_path / "m", registry.host)
    machine.login("sara", "first password")
    machine.load("stale/app")
    machine("push", "stale/app")
    change_password(root, "sara", "second password")
    for words in (("push", "stale/app"), ("pull", "stale/app"), ("run", "stale/other", "true")):
        done = machine(*words, status=125 if words[0] == "run" else 1)
        assert "incorrect username or password" in done.error or ("authentication" in done.error), (
            done.err
        )
        assert f"pyreg login {registry.host}" in done.hint, done.err
        assert "password" not in done.err.replace("username or password", "")
    assert machine("run", "--rm", "stale/app", "echo", "local").out == "local\n"
    machine.login("sara", "second password")
    machine("push", "stale/app")


def change_password(root: Path, name: str, password: str) -> None:
    import subprocess

    words = [*pyreg_command(), "--root", str(root), "user", "passwd", name, "--password-stdin"]
    subprocess.run(
        words, input=password.encode(), env=pyreg_environment(), check=True, capture_output=True
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pull", "nobody/nothing"), "not found: repository nobody/nothing has no manifest latest"),
        (("pull", "known/app:none"), "not found: repository known/app has no manifest none"),
        (("pull", "known/app@sha256:" + "0" * 64), "not found"),
        (("tags", "nobody/nothing"), "not found"),
        (("push", "not/here"), "No such image"),
        (("pull", "UPPER/Case"), "UPPER/Case"),
        (("pull", "known/app:" + "t" * 200), "t" * 20),
        (("push", "known/app@sha256:" + "0" * 64), "tag"),
    ],
)
def test_names_that_lead_nowhere(
    machine: Machine, raw: RawRegistry, words: tuple[str, ...], said: str
) -> None:
    machine.load("known/app")
    machine("push", "-q", "known/app")
    machine("rmi", "known/app")
    done = machine(*words, status=1)
    assert said in done.error
    assert machine.names() == [] and machine.unpacked() == []


def test_a_reader_may_pull_but_not_push(new_machine: MakeMachine, raw: RawRegistry) -> None:
    writer, reader = new_machine(), new_machine(login=False)
    writer.load("read/app")
    writer("push", "read/app")
    reader.login(READER, READER_PASSWORD)
    reader("pull", "read/app")
    assert reader("run", "--rm", "read/app", "echo", "mine").out == "mine\n"
    reader("tag", "read/app", "read/app:v2")
    reader("tag", "read/app", "read/new")
    for name in ("read/app:v2", "read/app", "read/new"):
        done = reader("push", name, status=1)
        assert "denied" in done.error and "push" in done.error, done.err
    assert raw.tags("read/app") == ["latest"] and raw.tags("read/new") == []


def test_nobody_in_particular(new_machine: MakeMachine, raw: RawRegistry) -> None:
    writer, nobody = new_machine(), new_machine(login=False)
    writer.load("secret/app")
    writer("push", "secret/app")
    nobody.load("secret/app", files={"etc/mine": "x"})
    for words in (("push", "secret/app"), ("pull", "secret/app"), ("pull", "secret/none")):
        done = nobody(*words, status=1)
        assert "authentication required" in done.error
        assert done.hint == f"log in first: pyreg login {nobody.registry}"
    # It does not even tell what there is.
    answers = [nobody("pull", name, status=1).error for name in ("secret/app", "secret/none")]
    assert answers[0] == answers[1].replace("secret/none", "secret/app")


def test_registry_that_does_not_run(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m", f"localhost:{free_port()}")
    machine.load("some/app")
    for words, status in [
        (("pull", "some/other"), 1),
        (("push", "some/app"), 1),
        (("tags", "some/app"), 1),
        (("search", "app"), 1),
        (("login", "-u", "x", "--password-stdin"), 1),
        (("run", "some/other", "true"), 125),
    ]:
        done = machine(*words, given=b"secret", status=status)
        assert done.error == f"cannot reach http://{machine.registry}: Connection refused", words
        assert done.hint == "is it running, and is the name right?"
    assert machine.names() == ["some/app:latest"]


class Ear:
    """Somebody who should never be spoken to; counts who calls."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                peer.settimeout(2)
                self.heard.append(peer.recv(100))

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)


@pytest.fixture
def ear() -> Iterator[Ear]:
    made = Ear()
    yield made
    made.close()


def test_a_name_without_a_host_goes_to_the_configured_registry_alone(
    machine: Machine, ear: Ear
) -> None:
    """Every other host is behind a proxy that only listens: it must hear nothing."""
    proxy = f"http://127.0.0.1:{ear.port}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy")
    behind = dict.fromkeys(names, proxy)
    machine.load("only/ours")
    machine("push", "only/ours", env=behind)
    for name in ("debian", "library/debian", "omrisiri/absent", "nginx:1.27"):
        done = machine("pull", name, env=behind, status=1)
        assert f"{machine.registry}/{name.partition(':')[0]}" in done.error and (
            "not found" in done.error
        )
        machine("run", "--rm", name, "true", env=behind, status=125)
    machine("pull", "only/ours", env=behind)
    machine("search", "debian", env=behind)
    assert ear.heard == []
    # The proof that it would have heard: a name that is written out.
    machine("pull", "docker.io/library/debian", env=behind, status=1)
    assert ear.heard and all(b"docker.io" in words for words in ear.heard)


def test_a_registry_that_is_not_on_loopback_needs_tls_or_a_word_of_the_user(
    tmp_path: Path,
) -> None:
    """In a network namespace of its own, where 192.0.2.1 is a registry without TLS."""
    address, root = "192.0.2.1:5000", tmp_path / "serve"
    add_user(root)
    inside = (
        "ip link set lo up && ip address add 192.0.2.1/32 dev lo && "
        'exec "$@" --host 192.0.2.1 --port 5000'
    )
    require_tool("ip")
    words = [*pyreg_command(), "--root", str(root), "serve"]
    log = tmp_path / "serve.log"
    server = start(
        [require_tool("unshare"), "--net", "sh", "-c", inside, "-", *words],
        0,
        log,
        environment=pyreg_environment(),
        ready=lambda _: b"ready at" in log.read_bytes(),
    )
    try:
        enter = (require_tool("nsenter"), "--net", "--target", str(server.process.pid))
        machine = Machine(tmp_path / "m", address, prefix=enter)
        machine.load("plain/app")
        login = ("login", "-u", USER, "--password-stdin")
        for words_ in (("push", "plain/app"), ("pull", "plain/other"), login):
            done = machine(*words_, given=PASSWORD.encode(), status=1)
            assert f"https://{address}" in done.error and "insecure_registries" in done.hint
            assert "http://" not in done.error
        config = tmp_path / "pyreg.toml"
        config.write_text(f'insecure_registries = ["{address}"]\n')
        allowed = {"PYREG_CONFIG": str(config)}
        assert machine(*login, given=PASSWORD.encode(), env=allowed).out == "Login Succeeded\n"
        machine("push", "plain/app", env=allowed)
        machine("rmi", "plain/app")
        machine("pull", "plain/app", env=allowed)
        # The configuration allows this one host, not the next.
        config.write_text('insecure_registries = ["192.0.2.2:5000"]\n')
        assert "https://" in machine("pull", "plain/app", env=allowed, status=1).error
    finally:
        server.stop()
