"""docker, podman and skopeo as a user, as a robot and with personal access tokens.

What the policy says is what the clients meet: each refusal comes with the client's own exit status,
and what was taken away is gone with the client's next command although it is still logged in.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.builders.administration import (
    ADMIN,
    ADMIN_PASSWORD,
    SECOND_PASSWORD,
    Administrator,
)
from tests.builders.servers import Server, add_user, dockerd, start_pyreg
from tests.builders.tools import require_root, require_tool
from tests.interop.clients import Docker, Podman, Skopeo, run
from tests.interop.test_go_clients import Tool

pytestmark = [pytest.mark.interop, pytest.mark.root]

Client = Docker | Podman | Skopeo
REFUSED = ("denied", "unauthorized", "authentication required", "authorization failed")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry of this module's own: its policy changes all the time."""
    root = tmp_path_factory.mktemp("accounts")
    add_user(root, ADMIN, ADMIN_PASSWORD, role="admin")
    server = start_pyreg(root, environment={"PYREG_LOGIN_FAILURES": "0"})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def admin(registry: Server) -> Administrator:
    return Administrator(registry.port)


@pytest.fixture(scope="module", params=["docker", "podman", "skopeo"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    require_root()
    root = tmp_path_factory.mktemp(request.param)
    program = require_tool(request.param)
    if request.param == "docker":
        with dockerd(root) as words:
            yield Docker(words)
    elif request.param == "podman":
        yield Podman(program, root)
    else:
        yield Skopeo(program, root)


@pytest.fixture
def at(client: Client, registry: Server) -> str:
    """Where names of this client begin."""
    return f"{registry.host}/{client.name}"


def is_done(answer: str) -> bool:
    return answer.split(" ", 1)[0] == "0"


def is_refused(answer: str) -> bool:
    """Refused for a lack of rights, and not for something else."""
    status, _, text = answer.partition(" ")
    return status != "0" and any(word in text.lower() for word in REFUSED)


def test_a_user_of_the_policy(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    """A plain user may what rules say: create but not overwrite, there and nowhere else."""
    name = f"{client.name}-plain"
    admin.user(name)
    rule = admin.rule(f"{client.name}/team/*", f"user:{name}", "pull", "create")
    status, _, text = client.login(registry, "wrong", name=name, check=False).partition(" ")
    assert status != "0"
    assert "unauthorized" in text.lower() or "invalid username/password" in text.lower()
    client.login(registry, SECOND_PASSWORD, name=name)

    client.make(rootfs, f"{at}/team/app:one")
    assert is_done(client.try_push(f"{at}/team/app:one"))
    # the same again is no change of the tag
    assert is_done(client.try_push(f"{at}/team/app:one"))
    digest = client.pull(f"{at}/team/app:one")
    # another image under the same tag: made by a writer's hand, so that only the tag differs
    other = rootfs.with_name(f"{client.name}-other.tar")
    run(["tar", "-C", str(rootfs.parent), "-cf", str(other), rootfs.name])
    client.make(other, f"{at}/team/app:one")
    answer = client.try_push(f"{at}/team/app:one")
    assert is_refused(answer), answer
    assert "overwrite" in answer or "exists" in answer, answer
    client.make(other, f"{at}/elsewhere:one")
    assert is_refused(client.try_push(f"{at}/elsewhere:one"))
    assert client.pull(f"{at}/team/app:one") == digest

    admin.remove_rule(rule)
    assert is_refused(client.try_pull(f"{at}/team/app:one"))
    client.logout(registry)


def test_an_immutable_tag(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    """Even an administrator's client does not move it."""
    admin.immutable(f"{client.name}/fixed/*", "v*")
    client.login(registry, ADMIN_PASSWORD, name=ADMIN)
    client.make(rootfs, f"{at}/fixed/app:v1")
    assert is_done(client.try_push(f"{at}/fixed/app:v1"))
    other = rootfs.with_name(f"{client.name}-v2.tar")
    run(["tar", "-C", str(rootfs.parent), "-cf", str(other), rootfs.name])
    client.make(other, f"{at}/fixed/app:v1")
    answer = client.try_push(f"{at}/fixed/app:v1")
    assert not is_done(answer) and "immutable" in answer, answer
    client.logout(registry)


def test_a_robot_of_a_team(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    """Pushes and pulls below team/*, and is nobody elsewhere; another secret ends the login."""
    name = f"{client.name}-robot"
    secret = admin.robot(name)
    admin.rule(f"{client.name}/ours/*", f"robot:{name}", "pull", "create", "overwrite")
    assert not is_done(client.login(registry, "wrong", name=name, check=False))
    client.login(registry, secret, name=name)
    client.make(rootfs, f"{at}/ours/app:v1")
    assert is_done(client.try_push(f"{at}/ours/app:v1"))
    client.pull(f"{at}/ours/app:v1")
    client.make(rootfs, f"{at}/theirs/app:v1")
    assert is_refused(client.try_push(f"{at}/theirs/app:v1"))
    assert is_refused(client.try_pull(f"{at}/theirs/app:v1"))
    admin("POST", f"/robots/{name}/rotate", {})
    assert is_refused(client.try_pull(f"{at}/ours/app:v1"))
    client.logout(registry)


def test_access_tokens(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    """In place of the password, for pulls only, for some names only, and over at once."""
    owner = f"{client.name}-owner"
    admin.user(owner, "writer")
    everything, first = admin.token(owner)
    pulls, _ = admin.token(owner, actions=["pull"])
    narrow, _ = admin.token(owner, repositories=[f"{client.name}/pat/*"])

    client.login(registry, everything, name=owner)
    client.make(rootfs, f"{at}/pat/app:v1")
    assert is_done(client.try_push(f"{at}/pat/app:v1"))
    admin.revoke(owner, first)  # logged in, and the next command is refused
    assert is_refused(client.try_pull(f"{at}/pat/app:v1"))
    assert not is_done(client.login(registry, everything, name=owner, check=False))

    client.login(registry, pulls, name=owner)
    client.pull(f"{at}/pat/app:v1")
    client.make(rootfs, f"{at}/pat/app:v2")
    assert is_refused(client.try_push(f"{at}/pat/app:v2"))

    client.login(registry, narrow, name=owner)
    assert is_done(client.try_push(f"{at}/pat/app:v2"))
    client.make(rootfs, f"{at}/beside:v1")
    assert is_refused(client.try_push(f"{at}/beside:v1"))
    client.logout(registry)
    assert is_refused(client.try_pull(f"{at}/pat/app:v2"))


def test_an_access_token_that_ended(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    """Its time is over while the client is logged in with it."""
    owner = f"{client.name}-brief"
    admin.user(owner, "writer")
    secret, token = admin.token(owner)
    client.login(registry, secret, name=owner)
    client.make(rootfs, f"{at}/brief:v1")
    assert is_done(client.try_push(f"{at}/brief:v1"))
    _let_end(registry, token)
    assert is_refused(client.try_pull(f"{at}/brief:v1"))
    answer = client.login(registry, secret, name=owner, check=False)
    assert not is_done(answer)


def test_an_account_disabled_while_it_is_logged_in(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    name = f"{client.name}-leaver"
    admin.user(name, "writer")
    client.login(registry, SECOND_PASSWORD, name=name)
    client.make(rootfs, f"{at}/leaver:v1")
    assert is_done(client.try_push(f"{at}/leaver:v1"))
    admin.disable(name)
    assert is_refused(client.try_pull(f"{at}/leaver:v1"))
    assert is_refused(client.try_push(f"{at}/leaver:v1"))
    admin.disable(name, False)
    # docker keeps a refresh token in place of the password, and that ended for good
    client.login(registry, SECOND_PASSWORD, name=name)
    client.pull(f"{at}/leaver:v1")


@pytest.mark.parametrize("client", ["docker", "podman"], indirect=True)
def test_search_shows_a_user_what_it_may_pull(
    client: Client, registry: Server, admin: Administrator, rootfs: Path, at: str
) -> None:
    name = f"{client.name}-seeker"
    secret = admin.robot(name)
    admin.rule(f"{client.name}/shown/*", f"robot:{name}", "pull", "create")
    client.login(registry, ADMIN_PASSWORD, name=ADMIN)
    for place in ("shown", "hidden"):
        client.make(rootfs, f"{at}/{place}/needle:v1")
        assert is_done(client.try_push(f"{at}/{place}/needle:v1"))
    assert isinstance(client, Docker | Podman)
    tls = client.tls if isinstance(client, Podman) else []
    words = [*client.client, "search", *tls, f"{registry.host}/needle"]
    found = run(words)
    assert f"{client.name}/shown/needle" in found and f"{client.name}/hidden/needle" in found
    client.login(registry, secret, name=name)
    found = run(words)
    assert f"{client.name}/shown/needle" in found and f"{client.name}/hidden/needle" not in found


GO_LOGINS = {
    "crane": ("auth", "login", "{host}", "-u", "{name}", "--password-stdin"),
    "oras": ("login", "--plain-http", "{host}", "-u", "{name}", "--password-stdin"),
    "helm": ("registry", "login", "--plain-http", "{host}", "-u", "{name}", "--password-stdin"),
    "regctl": ("registry", "login", "{host}", "-u", "{name}", "--pass-stdin"),
}


@pytest.mark.parametrize("program", list(GO_LOGINS))
def test_go_clients_as_robot_and_with_a_token(
    program: str, registry: Server, admin: Administrator, rootfs: Path, tmp_path: Path
) -> None:
    """Each logs in as a robot and pushes where it may; with a token for pulls it does not."""
    tool = Tool(program, tmp_path / program)
    robot, owner = f"{program}-robot", f"{program}-owner"
    secret = admin.robot(robot)
    admin.rule(f"{program}/**", f"robot:{robot}", "pull", "create", "overwrite")
    admin.user(owner, "writer")
    pulls, _ = admin.token(owner, actions=["pull"])
    if program == "regctl":
        tool("registry", "set", registry.host, "--tls", "disabled")

    def login(name: str, password: str) -> None:
        words = [each.format(host=registry.host, name=name) for each in GO_LOGINS[program]]
        tool(*words, stdin=password.encode())

    login(robot, secret)
    assert is_done(_push(program, tool, registry, f"{program}/mine", rootfs))
    assert is_refused(_push(program, tool, registry, "elsewhere/mine", rootfs))
    login(owner, pulls)
    assert is_refused(_push(program, tool, registry, f"{program}/more", rootfs))


def _push(program: str, tool: Tool, registry: Server, name: str, rootfs: Path) -> str:
    reference = f"{registry.host}/{name}:1.0.0"
    match program:
        case "crane":
            return tool("append", "--oci-empty-base", "-f", str(rootfs), "-t", reference,
                        check=False)  # fmt: skip
        case "oras":
            return tool("push", "--plain-http", "--disable-path-validation", reference,
                        f"{rootfs}:application/x-tar", check=False)  # fmt: skip
        case "helm":
            chart = name.rpartition("/")[2]
            tool("create", chart, check=False)
            tool("package", chart, "--version", "1.0.0")
            place = f"oci://{registry.host}/{name.rpartition('/')[0]}"
            return tool("push", "--plain-http", f"{chart}-1.0.0.tgz", place, check=False)
        case _:
            return tool("image", "create", reference, check=False)


def _let_end(registry: Server, token: int) -> None:
    """Move the end of an access token into the past, as time would."""
    path = registry.log.parent / "registry" / "metadata.db"
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        database.execute("UPDATE access_token SET expires_at = 1 WHERE id = ?", (token,))
