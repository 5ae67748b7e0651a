"""Signing keys of access tokens: which there are, and another one to sign with."""

from __future__ import annotations

from dataclasses import dataclass

from registry.api.v1.access_tokens import refuse_tokens
from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.table import Endpoint, Listing, Who


@dataclass(frozen=True, slots=True)
class Key:
    """A key by its `kid`. The private half is never shown."""

    kid: str
    #: "current" signs; "previous" verifies what it signed.
    state: str
    created_at: int
    retired_at: int | None
    #: When the last token that it signed has ended; None for the current one.
    verifies_until: int | None


@dataclass(frozen=True, slots=True)
class Rotation:
    """`drop` ends every access token at once, for when a key may have been stolen."""

    drop: bool = False


async def list_keys(call: Call) -> Listing:
    await call.services.tokens.reload()
    return sliced(call, sorted(_shown(call), key=lambda key: key.kid), lambda key: key.kid)


async def rotate_keys(call: Call) -> Key:
    refuse_tokens(call)
    await call.services.tokens.rotate(drop=call.body(Rotation).drop)
    return _shown(call)[0]


def _shown(call: Call) -> list[Key]:
    tokens = call.services.tokens
    return [
        Key(
            kid=key.kid,
            state="current" if key.current else "previous",
            created_at=key.created_at,
            retired_at=key.retired_at,
            verifies_until=tokens.verifies_until(key),
        )
        for key in tokens.keys
    ]


ENDPOINTS = (
    Endpoint("GET", "/keys", list_keys, Who.ADMIN, "List the signing keys", Key, paged=True),
    Endpoint(
        "POST", "/keys/rotate", rotate_keys, Who.ADMIN,
        "Sign with a new key; tokens of those before stay valid unless they are dropped",
        Key, body=Rotation,
    ),
)  # fmt: skip
