"""Users of another registry, taken over from its htpasswd file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from registry.api.v1.call import Call
from registry.api.v1.shapes import Text
from registry.api.v1.table import Endpoint, Who
from registry.api.v1.users import Role
from registry.auth.htpasswd import Left, parse_htpasswd
from registry.errors import AccountExists

_MAX_CHARACTERS = 1 << 20


@dataclass(frozen=True, slots=True)
class Htpasswd:
    """A whole file: lines of name:hash, of which only bcrypt (`htpasswd -B`) can be taken over."""

    text: Annotated[str, Text(0, _MAX_CHARACTERS)]
    #: What the new users may do.
    role: Role = "reader"


@dataclass(frozen=True, slots=True)
class TakenOver:
    #: Names of the new users, as they stood in the file.
    added: tuple[str, ...]
    #: Lines that were left out, and why. A hash is never repeated.
    left: tuple[Left, ...]


async def import_htpasswd(call: Call) -> TakenOver:
    """Each user is added by itself: after an interruption the same file can be given again."""
    file = call.body(Htpasswd)
    users, left = parse_htpasswd(file.text)
    added: list[str] = []
    present: list[Left] = []
    for user in users:
        try:
            await call.services.metadata.accounts.add(user.name, user.password_hash, file.role)
            added.append(user.name)
        except AccountExists as error:
            present.append(Left(user.line, user.name, str(error)))
    return TakenOver(
        tuple(added), tuple(sorted((*left, *present), key=lambda one: (one.line, one.name)))
    )


ENDPOINTS = (
    Endpoint(
        "POST", "/htpasswd", import_htpasswd, Who.ADMIN,
        "Add the users of a htpasswd file; existing ones stay as they are",
        TakenOver, body=Htpasswd, limit=2 * 1024 * 1024,
    ),
)  # fmt: skip
