"""Credentials: where they are read, in which order, how they are written, who never gets them."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from client.credentials import Credential, FileKeychain
from client.errors import CredentialsError
from client.helper import Helper
from client.options import ClientOptions
from ocispec.value import replace

HELPER = """#!/bin/sh
# A credential helper as the protocol has it: one file a server, in its own directory.
dir=$(dirname "$0")/secrets
mkdir -p "$dir"
case "$1" in
get) read -r server
     file=$dir/$(echo "$server" | tr /: __)
     if [ -f "$file" ]; then cat "$file"; else
         echo "credentials not found in native keychain"; exit 1; fi ;;
store) json=$(cat)
     server=$(echo "$json" | sed 's/.*"ServerURL": *"\\([^"]*\\)".*/\\1/')
     echo "$json" > "$dir/$(echo "$server" | tr /: __)" ;;
erase) read -r server; rm -f "$dir/$(echo "$server" | tr /: __)" ;;
*) exit 2 ;;
esac
"""


def encoded(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


@pytest.fixture
def config(options: ClientOptions) -> Callable[[object], Path]:
    def write(document: object) -> Path:
        path = Path(options.docker_config, "config.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


@pytest.fixture
def with_helper(options: ClientOptions, tmp_path: Path) -> Callable[[str, str], ClientOptions]:
    """Options under which a script is the helper of this name."""

    def install(name: str, script: str) -> ClientOptions:
        directory = tmp_path / "bin"
        directory.mkdir(exist_ok=True)
        program = directory / f"docker-credential-{name}"
        program.write_text(script)
        program.chmod(0o755)
        path = f"{directory}:{os.environ['PATH']}"
        return replace(options, helper_environment={"PATH": path})

    return install


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("reg.example", "reg.example"),
        ("reg.example:5000", "reg.example:5000"),
        ("https://reg.example", "reg.example"),
        ("https://reg.example/v2/", "reg.example"),
        ("http://localhost:5000/v1/", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ],
)
def test_a_key_in_any_of_dockers_forms_is_found(
    options: ClientOptions, config: Callable[[object], Path], key: str, registry: str
) -> None:
    config({"auths": {key: {"auth": encoded("alice", "pass:word")}}})
    assert FileKeychain(options).find(registry, "any/repo") == Credential("alice", "pass:word")


@pytest.mark.parametrize("registry", ["reg.example:5001", "example", "a.reg.example", "evil"])
def test_cve_2021_41092_another_registrys_credentials_are_never_used(
    options: ClientOptions, config: Callable[[object], Path], registry: str
) -> None:
    config({"auths": {"reg.example": {"auth": encoded("alice", "secret")}}})
    assert FileKeychain(options).find(registry) is None


def test_nothing_configured_is_anonymous(options: ClientOptions) -> None:
    assert FileKeychain(options).find("reg.example") is None


def test_an_identity_token_is_told_from_a_password(
    options: ClientOptions, config: Callable[[object], Path]
) -> None:
    config({"auths": {"r.example": {"auth": encoded("alice", ""), "identitytoken": "T"}}})
    found = FileKeychain(options).find("r.example")
    assert found == Credential("alice", "", identity_token="T")


def test_environment_text_comes_before_the_file(
    options: ClientOptions, config: Callable[[object], Path]
) -> None:
    config({"auths": {"r.example": {"auth": encoded("file", "x")}}})
    text = json.dumps({"auths": {"r.example": {"auth": encoded("environment", "x")}}})
    found = FileKeychain(replace(options, docker_auth_config=text)).find("r.example")
    assert found is not None and found.username == "environment"


def test_podmans_file_has_credentials_by_path_the_longest_wins(
    options: ClientOptions, tmp_path: Path
) -> None:
    auths = {
        "r.example": {"auth": encoded("host", "x")},
        "r.example/team": {"auth": encoded("team", "x")},
        "r.example/team/app": {"auth": encoded("app", "x")},
    }
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": auths}))
    keychain = FileKeychain(replace(options, auth_files=(str(tmp_path / "no"), str(path))))
    for repository, user in [
        ("team/app", "app"),
        ("team/app/sub", "app"),
        ("team/application", "team"),
        ("other", "host"),
        ("", "host"),
    ]:
        found = keychain.find("r.example", repository)
        assert found is not None and found.username == user, repository


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"auths": [1]}', '{"auths": {"r.example": {"auth": "%%%"}}}']
)
def test_a_damaged_file_is_an_error_that_shows_no_secret(
    options: ClientOptions, config: Callable[[object], Path], text: str
) -> None:
    config(text)
    with pytest.raises(CredentialsError) as caught:
        FileKeychain(options).find("r.example")
    assert "config.json" in str(caught.value)


def test_storing_keeps_what_others_wrote_and_is_private(
    options: ClientOptions, config: Callable[[object], Path]
) -> None:
    path = config({"psFormat": "x", "auths": {"other": {"auth": encoded("o", "o")}}, "new": [1]})
    path.chmod(0o644)
    keychain = FileKeychain(options)
    keychain.store("r.example", Credential("alice", "secret"))
    document = json.loads(path.read_text())
    assert document["psFormat"] == "x" and document["new"] == [1]
    assert document["auths"]["r.example"] == {"auth": encoded("alice", "secret")}
    assert document["auths"]["other"] == {"auth": encoded("o", "o")}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    keychain.store("docker.io", Credential("hub", "secret"))
    assert "https://index.docker.io/v1/" in json.loads(path.read_text())["auths"]
    assert keychain.erase("r.example") and not keychain.erase("r.example")
    assert "other" in json.loads(path.read_text())["auths"]


def test_a_linked_config_stays_a_link(options: ClientOptions, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}")
    link = Path(options.docker_config, "config.json")
    link.parent.mkdir(parents=True)
    link.symlink_to(real)
    FileKeychain(options).store("r.example", Credential("alice", "secret"))
    assert link.is_symlink() and "r.example" in real.read_text()


def test_a_helper_stores_finds_and_forgets(
    with_helper: Callable[[str, str], ClientOptions], config: Callable[[object], Path]
) -> None:
    options = with_helper("test", HELPER)
    path = config({"credsStore": "test"})
    keychain = FileKeychain(options)
    assert keychain.find("r.example") is None
    where = keychain.store("r.example", Credential("alice", "secret"))
    assert where == "the credential helper docker-credential-test"
    assert keychain.find("r.example") == Credential("alice", "secret")
    assert json.loads(path.read_text())["auths"] == {"r.example": {}}  # no secret in the file
    assert keychain.erase("r.example") and keychain.find("r.example") is None


def test_a_helper_of_one_registry_comes_before_the_general_one(
    with_helper: Callable[[str, str], ClientOptions], config: Callable[[object], Path]
) -> None:
    answer = '#!/bin/sh\necho \'{"ServerURL": "x", "Username": "<token>", "Secret": "T"}\'\n'
    options = with_helper("special", answer)
    config({"credsStore": "missing", "credHelpers": {"r.example": "special"}})
    assert FileKeychain(options).find("r.example") == Credential(identity_token="T")
    with pytest.raises(CredentialsError, match="docker-credential-missing is not in PATH"):
        FileKeychain(options).find("other.example")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 1", "failed"),
        ("echo 'locked'; exit 1", "failed: locked"),
        ("echo nonsense", "unusable"),
        ("echo '[]'", "unusable"),
        ("yes", "more than 65536 bytes"),
    ],
)
def test_cve_2021_41092_a_failing_helper_is_an_error_and_no_other_place_is_asked(
    with_helper: Callable[[str, str], ClientOptions],
    config: Callable[[object], Path],
    script: str,
    message: str,
) -> None:
    options = with_helper("bad", f"#!/bin/sh\n{script}\n")
    config({"credsStore": "bad", "auths": {"r.example": {"auth": encoded("alice", "secret")}}})
    with pytest.raises(CredentialsError, match=message):
        FileKeychain(options).find("r.example")


@pytest.mark.parametrize("name", ["", "../evil", "a/b", "-x", "a b", "x\0"])
def test_a_helpers_name_cannot_lead_elsewhere(name: str) -> None:
    with pytest.raises(CredentialsError):
        Helper(name, {"PATH": "/bin"})


def test_a_credential_never_shows_its_secret() -> None:
    assert "secret" not in repr(Credential("alice", "secret", "secret", "secret"))
