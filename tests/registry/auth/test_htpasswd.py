"""Users of other registries come over with bcrypt, and with nothing weaker."""

from __future__ import annotations

import bcrypt
import pytest

from registry.auth.htpasswd import parse_htpasswd
from registry.auth.login import log_in
from registry.auth.passwords import Passwords
from registry.metadata.base import Metadata


def _hash(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")


async def test_the_next_login_makes_it_argon2id(metadata: Metadata) -> None:
    passwords = Passwords(memory_kib=64, rounds=1)
    (ann,), left = parse_htpasswd(f"# users\n\nann:{_hash('the old one')}\n")
    assert left == ()
    await metadata.accounts.add(ann.name, ann.password_hash, "writer")
    assert await log_in(metadata.accounts, passwords, "ann", "wrong one") is None
    found = await log_in(metadata.accounts, passwords, "ann", "the old one")
    assert found is not None and found.password_hash.startswith("$argon2id$")
    assert await log_in(metadata.accounts, passwords, "ann", "the old one") == found
    passwords.close()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("a:$apr1$x$y", "MD5 (apr1)"),
        ("a:{SHA}x", "SHA-1"),
        ("a:$6$x$y", "SHA-512"),
        ("a:secret", "not bcrypt"),
        ("a:$2y$99$" + "x" * 53, "cost 99"),
        ("a:$2y$05$x", "damaged"),
        ("nothing", "no colon"),
        ("Ann:" + "$2y$05$" + "x" * 53, "not possible"),
    ],
)
def test_what_cannot_come_says_why(line: str, reason: str) -> None:
    found, (left,) = parse_htpasswd(line)
    assert found == () and reason in left.reason
    assert "secret" not in left.reason
