"""Sessions: the devices that an account is logged in on, each with its refresh token."""

from __future__ import annotations

from dataclasses import dataclass

from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.table import Endpoint, Listing, Who
from registry.errors import AccountUnknown


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    account: str
    #: What the program called itself when it logged in, and the device; either may be empty.
    client_id: str
    user_agent: str
    created_at: int
    #: To some ten minutes.
    last_used_at: int | None
    expires_at: int
    #: Whether it is the one that asks.
    current: bool


async def list_sessions(call: Call) -> Listing:
    """The ones that have not ended."""
    found = await call.services.metadata.credentials.sessions(await _account(call))
    caller = call.caller.account
    here = caller.session if caller is not None else ""
    shown = [
        Session(
            id=each.id,
            account=each.account,
            client_id=each.client_id,
            user_agent=each.user_agent,
            created_at=each.created_at,
            last_used_at=each.last_used_at,
            expires_at=each.expires_at,
            current=each.id == here,
        )
        for each in found
    ]
    return sliced(call, sorted(shown, key=lambda each: each.id), lambda each: each.id)


async def revoke_session(call: Call) -> None:
    """It ends at once, and the access tokens that came of it."""
    account, id = call.parameters["account"], call.parameters["session"]
    await call.services.metadata.credentials.revoke_session(account, id)


async def revoke_sessions(call: Call) -> None:
    """All of them: somebody who lost a device, and does not know which."""
    await call.services.metadata.credentials.revoke_refresh_tokens(await _account(call))


async def _account(call: Call) -> str:
    name = call.parameters["account"]
    if await call.services.metadata.accounts.find(name) is None:
        raise AccountUnknown(name)
    return name


ENDPOINTS = (
    Endpoint(
        "GET", "/accounts/{account}/sessions", list_sessions, Who.OWN,
        "List where an account is logged in", Session, paged=True,
    ),
    Endpoint(
        "DELETE", "/accounts/{account}/sessions/{session}", revoke_session, Who.OWN,
        "End a session at once",
    ),
    Endpoint(
        "DELETE", "/accounts/{account}/sessions", revoke_sessions, Who.OWN,
        "End every session of an account",
    ),
)  # fmt: skip
