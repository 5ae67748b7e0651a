"""Groups, robots, tokens and the policy from the command line, on the registry's machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.builders.pyreg import Pyreg
from tests.builders.servers import start_pyreg

pytest.importorskip("sqlalchemy", reason="the server's dependencies are not installed")


def ok(pyreg: Pyreg, *words: str, stdin: str = "") -> str:
    done = pyreg(*words, stdin=stdin.encode())
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def pyreg(tmp_path: Path) -> Pyreg:
    pyreg = Pyreg(str(tmp_path))
    ok(pyreg, "user", "add", "ann", "--role", "user", "--password-stdin", stdin="long enough\n")
    return pyreg


def test_groups(pyreg: Pyreg) -> None:
    assert "ann is in dev" in ok(pyreg, "group", "add", "dev", "ann")
    assert ok(pyreg, "group", "ls").splitlines()[1].split()[:2] == ["dev", "ann"]
    ok(pyreg, "group", "rm", "dev", "ann")
    [shown] = json.loads(ok(pyreg, "group", "inspect", "dev"))
    assert shown["members"] == []
    done = pyreg("group", "rm", "dev")
    assert done.returncode != 0 and "use --yes" in done.stderr
    ok(pyreg, "group", "rm", "--yes", "dev")
    assert ok(pyreg, "group", "ls", "-q") == ""


def test_the_policy_and_why(pyreg: Pyreg, tmp_path: Path) -> None:
    ok(pyreg, "group", "add", "dev", "ann")
    assert pyreg("policy", "test", "ann", "team/app", "pull").returncode == 1
    id = ok(pyreg, "policy", "add", "team/*", "group:dev", "pull,create").strip()
    assert pyreg("policy", "test", "ann", "team/app", "pull").returncode == 0
    why = ok(pyreg, "policy", "explain", "ann", "team/app", "pull")
    assert why.startswith(f"allowed: rule {id}:") and "group:dev" in why
    assert ok(pyreg, "policy", "explain", "ann", "team/app", "delete").startswith("denied: ")
    ok(pyreg, "policy", "add", "--deny", "team/secret", "user:ann", "pull")
    assert ok(pyreg, "policy", "explain", "ann", "team/secret", "pull").startswith("denied: rule")
    file = tmp_path / "policy.json"
    file.write_text(ok(pyreg, "policy", "show"))
    ok(pyreg, "policy", "rm", id)
    assert ok(pyreg, "policy", "ls", "-q").count("\n") == 1
    assert ok(pyreg, "policy", "set", "--yes", str(file)) == "The policy has 2 rules\n"
    assert "team/*" in ok(pyreg, "policy", "ls")
    file.write_text('{"rules": [{"repositories": "team/*", "subject": "ann", "actions": []}]}')
    done = pyreg("policy", "set", "--yes", str(file))
    assert done.returncode == 1 and "rules[0].subject" in done.stderr


def test_a_robot_logs_in_until_its_secret_is_rotated(tmp_path: Path) -> None:
    server = start_pyreg(tmp_path)
    pyreg = Pyreg(str(tmp_path))
    try:
        first = ok(pyreg, "robot", "add", "ci", "-q").strip()
        login = ("login", "-u", "ci", "--password-stdin", server.host)
        ok(pyreg, *login, stdin=first)
        second = ok(pyreg, "robot", "rotate", "ci", "-q").strip()
        assert first != second
        assert pyreg(*login, stdin=first.encode()).returncode != 0
        ok(pyreg, *login, stdin=second)
        assert ok(pyreg, "robot", "ls", "--format", "{{.Name}} {{.Status}}") == "ci active\n"
        ok(pyreg, "robot", "disable", "ci")
        assert pyreg(*login, stdin=second.encode()).returncode != 0
        assert second not in ok(pyreg, "robot", "inspect", "ci")
    finally:
        server.stop()


def test_a_token_in_place_of_a_password(tmp_path: Path) -> None:
    server = start_pyreg(tmp_path)
    pyreg = Pyreg(str(tmp_path))
    try:
        secret = ok(pyreg, "token", "add", "laptop", "-u", server.username, "-q").strip()
        login = ("login", "-u", server.username, "--password-stdin", server.host)
        ok(pyreg, *login, stdin=secret)
        [id] = ok(pyreg, "token", "ls", "-u", server.username, "-q").split()
        assert secret not in ok(pyreg, "token", "ls", "-u", server.username)
        ok(pyreg, "token", "rm", "-u", server.username, id)
        assert pyreg(*login, stdin=secret.encode()).returncode != 0
        done = pyreg("token", "ls")
        assert done.returncode == 1 and "--user NAME" in done.stderr
    finally:
        server.stop()


def test_users_of_a_htpasswd_file(pyreg: Pyreg, tmp_path: Path) -> None:
    import bcrypt

    kept = bcrypt.hashpw(b"long enough", bcrypt.gensalt(4)).decode()
    file = tmp_path / "htpasswd"
    file.write_text(f"# ours\nbob:{kept}\nann:{kept}\nold:$apr1$salt$hash\n")
    done = pyreg("user", "import", str(file))
    assert done.returncode == 1
    assert done.stdout == "Added reader bob\n"
    assert "line 3: ann: user 'ann' exists already" in done.stderr
    assert "line 4: old: MD5 (apr1)" in done.stderr and "$salt" not in done.stderr
    shown = json.loads(ok(pyreg, "user", "inspect", "bob", "ann"))
    assert [user["role"] for user in shown] == ["reader", "user"]
    done = pyreg("user", "import", str(tmp_path / "none"))
    assert done.returncode != 0 and "cannot read" in done.stderr


def test_a_user_of_a_htpasswd_file_logs_in(pyreg: Pyreg, tmp_path: Path) -> None:
    import bcrypt

    kept = bcrypt.hashpw(b"from before", bcrypt.gensalt(4)).decode()
    ok(pyreg, "user", "import", "-", stdin=f"bob:{kept}\n")
    server = start_pyreg(tmp_path)
    login = ("login", "-u", "bob", "--password-stdin", server.host)
    try:
        ok(pyreg, *login, stdin="from before\n")
        assert pyreg(*login, stdin=b"another one\n").returncode == 1
    finally:
        server.stop()


def test_where_somebody_is_logged_in_and_keys(tmp_path: Path) -> None:
    server = start_pyreg(tmp_path)
    pyreg = Pyreg(str(tmp_path))
    login = ("login", "-u", server.username, "--password-stdin", server.host)
    at = ("--registry", server.host)
    try:
        ok(pyreg, *login, stdin=server.password)
        listed = ok(pyreg, "session", "ls", *at).splitlines()
        assert len(listed) == 2 and "pyreg (this one)" in listed[1]
        [id] = ok(pyreg, "session", "ls", "-q", *at).split()
        done = pyreg("session", "rm", *at)
        assert done.returncode == 1 and "--all" in done.stderr
        assert ok(pyreg, "session", "rm", id, *at) == f"Removed {id}\n"
        done = pyreg("session", "ls", *at)
        assert done.returncode != 0 and "pyreg login" in done.stderr

        ok(pyreg, *login, stdin=server.password)
        old = ok(pyreg, "key", "ls", "-q").strip()
        new = ok(pyreg, "key", "rotate", "-q").strip()
        assert ok(pyreg, "key", "ls", "-q").split() == [new, old]
        done = pyreg("key", "rotate", "--drop")
        assert done.returncode == 1 and "--yes" in done.stderr
        last = ok(pyreg, "key", "rotate", "--drop", "--yes").strip()
        assert ok(pyreg, "key", "ls", "-q").split() == [last]

        # Here on the registry's machine, without a login.
        name = ("--user", server.username)
        assert len(ok(pyreg, "session", "ls", "-q", *name).split()) == 1
        done = pyreg("logout", server.host)
        assert done.returncode == 0 and done.stderr == ""
        assert ok(pyreg, "session", "ls", "-q", *name) == ""
    finally:
        server.stop()


def test_a_logout_that_the_registry_does_not_hear_of(tmp_path: Path) -> None:
    server = start_pyreg(tmp_path)
    pyreg = Pyreg(str(tmp_path))
    try:
        login = ("login", "-u", server.username, "--password-stdin", server.host)
        ok(pyreg, *login, stdin=server.password)
    finally:
        server.stop()
    done = pyreg("logout", server.host)
    assert done.returncode == 0
    assert "Removing login credentials" in done.stdout and "was not told" in done.stderr
    assert ok(pyreg, "logout", server.host) == f"Not logged in to {server.host}\n"


def test_quotas(pyreg: Pyreg) -> None:
    assert "say --bytes" in pyreg("quota", "set", "team").stderr
    assert "no size" in pyreg("quota", "set", "team", "--bytes", "lots").stderr
    said = ok(pyreg, "quota", "set", "team/app", "--bytes", "1.5GB", "--tags", "20")
    assert said == "Limited team/app: 0 bytes and 0 tags in 0 repositories now\n"
    header, row = ok(pyreg, "quota", "ls").splitlines()
    assert header.split()[0] == "NAMESPACE"
    assert row.split() == ["team/app", "0B", "1.5GB", "0B", "0", "20", "0"]
    assert ok(pyreg, "quota", "ls", "-q") == "team/app\n"
    assert ok(pyreg, "quota", "recount", "team/app") == "team/app: 0 bytes, 0 tags\n"
    assert "use --yes" in pyreg("quota", "rm", "team/app").stderr
    ok(pyreg, "quota", "rm", "--yes", "team/app")
    gone = pyreg("quota", "rm", "--yes", "team/app")
    assert gone.returncode == 1 and "team/app has no quota" in gone.stderr
