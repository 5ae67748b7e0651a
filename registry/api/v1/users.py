"""Users: people who log in with a password."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from registry.api.problems import Refusal
from registry.api.v1.access_tokens import refuse_tokens
from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.parameters import ACCOUNT_NAME
from registry.api.v1.shapes import Text
from registry.api.v1.table import Endpoint, Listing, Who
from registry.auth.passwords import MAX_CHARACTERS, MIN_CHARACTERS
from registry.auth.policy import ADMIN
from registry.auth.rules import USER
from registry.errors import AccountUnknown
from registry.metadata.base import Account

Role = Literal["admin", "writer", "reader", "user"]
Password = Annotated[str, Text(MIN_CHARACTERS, MAX_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class User:
    """An account that logs in with a password."""

    name: str
    role: str
    disabled: bool
    created_at: int


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user to be."""

    name: Annotated[str, Text(1, 64, ACCOUNT_NAME)]
    password: Password
    #: "user" may nothing but what the policy allows.
    role: Role = "writer"


@dataclass(frozen=True, slots=True)
class UserChange:
    """What is to be different; what is not given stays."""

    role: Role | None = None
    disabled: bool | None = None


@dataclass(frozen=True, slots=True)
class NewPassword:
    """`current` is asked of whoever changes their own."""

    password: Password
    current: Annotated[str, Text(0, MAX_CHARACTERS)] = ""


async def list_users(call: Call) -> Listing:
    found = await call.services.metadata.accounts.all()
    users = [_shown(account) for account in found if account.kind == USER]
    return sliced(call, users, lambda user: user.name)


async def add_user(call: Call) -> User:
    new = call.body(NewUser)
    if new.role == ADMIN:
        refuse_tokens(call)  # one that was stolen would go on as another administrator
    hashed = await call.services.passwords.hash(new.password)
    return _shown(await call.services.metadata.accounts.add(new.name, hashed, new.role))


async def show_user(call: Call) -> User:
    return _shown(await _find(call))


async def change_user(call: Call) -> User:
    name, change = call.parameters["account"], call.body(UserChange)
    accounts = call.services.metadata.accounts
    await _find(call)
    if change.role == ADMIN:
        refuse_tokens(call)
    if change.role is not None:
        await accounts.set_role(name, change.role)
    if change.disabled is not None:
        await accounts.set_disabled(name, change.disabled)
    return _shown(await _find(call))


async def set_password(call: Call) -> None:
    """Ends the account's tokens, as every new password does."""
    name, new = call.parameters["account"], call.body(NewPassword)
    refuse_tokens(call)  # one that was stolen would become the account, or any other
    if name == call.actor:
        address = call.exchange.client_address()
        found = await call.services.logins.log_in(name, new.current, address)
        if found is None or found.token is not None:
            raise Refusal(403, "DENIED", "the current password is wrong")
    await _find(call)
    hashed = await call.services.passwords.hash(new.password)
    await call.services.metadata.accounts.set_password(name, hashed)


async def remove_user(call: Call) -> None:
    await _find(call)
    await call.services.metadata.accounts.remove(call.parameters["account"])


async def _find(call: Call) -> Account:
    name = call.parameters["account"]
    found = await call.services.metadata.accounts.find(name)
    if found is None or found.kind != USER:
        raise AccountUnknown(name)
    return found


def _shown(account: Account) -> User:
    return User(account.name, account.role, account.disabled, account.created_at)


ENDPOINTS = (
    Endpoint("GET", "/users", list_users, Who.ADMIN, "List the users", User, paged=True),
    Endpoint("POST", "/users", add_user, Who.ADMIN, "Add a user", User, 201, body=NewUser),
    Endpoint("GET", "/users/{account}", show_user, Who.OWN, "Show a user", User),
    Endpoint(
        "PATCH", "/users/{account}", change_user, Who.ADMIN,
        "Change a user's role, disable or enable a user", User, body=UserChange,
    ),
    Endpoint(
        "PUT", "/users/{account}/password", set_password, Who.OWN, "Change a user's password",
        body=NewPassword,
    ),
    Endpoint(
        "DELETE", "/users/{account}", remove_user, Who.ADMIN,
        "Remove a user with everything to log in with",
    ),
)  # fmt: skip
