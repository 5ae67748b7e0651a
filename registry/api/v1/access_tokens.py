"""Personal access tokens: in place of a password, good for less, and for some time.

The secret is in the answer to the POST that made it, and nowhere else ever. A token makes no other
tokens: it would outlive its own end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from registry.api.problems import Refusal
from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.shapes import Items, Text, Whole
from registry.api.v1.table import Endpoint, Listing, Who
from registry.auth.access_tokens import create
from registry.auth.rules import Limit
from registry.errors import AccountUnknown
from registry.metadata.base import AccessToken

MAX_DAYS = 3650
DEFAULT_DAYS = 90

Action = Literal["pull", "create", "overwrite", "delete", "admin"]
Glob = Annotated[
    str, Text(1, 255, r"[a-z0-9._/?*:-]+", "a repository, or a pattern like team/* or team/**")
]
Days = Annotated[int, Whole(0, MAX_DAYS, "days until it ends; 0 for never")]


@dataclass(frozen=True, slots=True)
class NewToken:
    """Good for what the account may do, as far as actions and repositories say; empty: all."""

    name: Annotated[str, Text(1, 128)]
    actions: Annotated[tuple[Action, ...], Items(0, 5)] = ()
    repositories: Annotated[tuple[Glob, ...], Items(0, 32)] = ()
    expires_days: Days = DEFAULT_DAYS


@dataclass(frozen=True, slots=True)
class TokenShown:
    id: int
    name: str
    account: str
    actions: tuple[str, ...]
    repositories: tuple[str, ...]
    created_at: int
    expires_at: int | None
    #: To some ten minutes.
    last_used_at: int | None


@dataclass(frozen=True, slots=True)
class TokenMade:
    id: int
    name: str
    account: str
    expires_at: int | None
    #: Shown this once.
    secret: str


async def list_tokens(call: Call) -> Listing:
    found = await call.services.metadata.access_tokens.of(await _account(call))
    return sliced(call, map(shown, found), lambda token: f"{token.id:015d}")


async def make_token(call: Call) -> TokenMade:
    refuse_tokens(call)
    new = call.body(NewToken)
    limit = Limit(frozenset(new.actions), new.repositories)
    return await make(call, await _account(call), new.name, limit, new.expires_days)


async def revoke_token(call: Call) -> None:
    account, id = call.parameters["account"], int(call.parameters["number"])
    await call.services.metadata.access_tokens.revoke(account, id)


async def make(call: Call, account: str, name: str, limit: Limit, days: int) -> TokenMade:
    """A new token with its secret."""
    secret, token = await create(
        call.services.metadata.access_tokens,
        account,
        label=name,
        limit=limit,
        expires_in_s=days * 86_400 or None,
    )
    return TokenMade(token.id, name, account, token.expires_at, secret)


def refuse_tokens(call: Call) -> None:
    """For what only a password may do. Raises: Refusal."""
    account = call.caller.account
    if account is not None and account.token is not None:
        raise Refusal(403, "DENIED", "an access token cannot do this: log in with the password")


def shown(token: AccessToken) -> TokenShown:
    return TokenShown(
        id=token.id,
        name=token.label,
        account=token.account,
        actions=tuple(sorted(token.limit.actions)),
        repositories=token.limit.repositories,
        created_at=token.created_at,
        expires_at=token.expires_at,
        last_used_at=token.last_used_at,
    )


async def _account(call: Call) -> str:
    name = call.parameters["account"]
    if await call.services.metadata.accounts.find(name) is None:
        raise AccountUnknown(name)
    return name


ENDPOINTS = (
    Endpoint(
        "GET", "/accounts/{account}/tokens", list_tokens, Who.OWN,
        "List the access tokens of an account", TokenShown, paged=True,
    ),
    Endpoint(
        "POST", "/accounts/{account}/tokens", make_token, Who.OWN,
        "Make an access token; its secret is in this answer only", TokenMade, 201, NewToken,
    ),
    Endpoint(
        "DELETE", "/accounts/{account}/tokens/{number}", revoke_token, Who.OWN,
        "Take an access token back; it ends at once",
    ),
)  # fmt: skip
