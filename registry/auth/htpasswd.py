"""htpasswd files of other registries: which of their users can come over.

Only bcrypt (`htpasswd -B`, what docker's registry wants) can: its hashes are slow, so they are safe
to keep until the next login replaces them with argon2id.
"""

from __future__ import annotations

from dataclasses import dataclass

from registry.auth.passwords import is_bcrypt
from registry.errors import AccountInvalid
from registry.metadata.accounts import check_name

MAX_BYTES = 4 << 20
# 2^cost rounds: more than 14 is over a second for each login, which others would wait for.
_COSTS = range(4, 15)

_KINDS = (
    ("$apr1$", "MD5 (apr1)"),
    ("$1$", "MD5 (crypt)"),
    ("{SHA}", "SHA-1"),
    ("$5$", "SHA-256 (crypt)"),
    ("$6$", "SHA-512 (crypt)"),
)


@dataclass(frozen=True, slots=True)
class Imported:
    line: int
    name: str
    #: To be stored as it is.
    password_hash: str


@dataclass(frozen=True, slots=True)
class Left:
    """A line that cannot be imported, and why."""

    line: int
    name: str
    reason: str


def parse_htpasswd(text: str) -> tuple[tuple[Imported, ...], tuple[Left, ...]]:
    """Users that can be imported, and those that cannot. Raises: AccountInvalid if too long."""
    if len(text) > MAX_BYTES:
        raise AccountInvalid(f"the file is longer than {MAX_BYTES} bytes")
    found: dict[str, Imported] = {}
    left: list[Left] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, stored = line.partition(":")
        reason = "no colon" if not colon else _reason(stored)
        if not reason:
            try:
                check_name(name)
            except AccountInvalid as error:
                reason = str(error)
        if not reason and name in found:
            reason = "the same name again"
        if reason:
            left.append(Left(number, name[:80] if colon else "", reason))
        else:
            found[name] = Imported(number, name, stored)
    return tuple(found.values()), tuple(left)


def _reason(stored: str) -> str:
    """Why a hash cannot be imported; empty if it can. Never repeats it."""
    for prefix, kind in _KINDS:
        if stored.startswith(prefix):
            return f"{kind} is too weak to keep: make it anew with htpasswd -B"
    if not is_bcrypt(stored):
        return "not bcrypt (an old crypt() hash, or a password in clear): use htpasswd -B"
    cost, dollar, rest = stored[4:].partition("$")
    if (
        len(stored) != 60
        or not dollar
        or len(rest) != 53
        or not (cost.isascii() and cost.isdigit())
    ):
        return "the bcrypt hash is damaged"
    if int(cost) not in _COSTS:
        return f"bcrypt cost {int(cost)}: possible are {_COSTS[0]} to {_COSTS[-1]}"
    return ""
