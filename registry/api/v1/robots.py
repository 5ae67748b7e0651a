"""Robots: accounts of machines. They have no password; they log in with a secret that is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from registry.api.v1.access_tokens import DEFAULT_DAYS, Days, make
from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.parameters import ACCOUNT_NAME
from registry.api.v1.shapes import Text
from registry.api.v1.table import Endpoint, Listing, Who
from registry.auth.rules import Limit
from registry.errors import AccountUnknown
from registry.metadata.base import Account

ROBOT = "robot"
SECRET = "robot secret"


@dataclass(frozen=True, slots=True)
class Robot:
    name: str
    role: str
    disabled: bool
    created_at: int
    #: When the secret ends, if it does.
    expires_at: int | None
    last_used_at: int | None


@dataclass(frozen=True, slots=True)
class NewRobot:
    """A robot to be; by itself it may nothing, the policy says what it may."""

    name: Annotated[str, Text(1, 64, ACCOUNT_NAME)]
    role: Literal["writer", "reader", "user"] = "user"
    expires_days: Days = DEFAULT_DAYS


@dataclass(frozen=True, slots=True)
class RobotMade:
    name: str
    role: str
    expires_at: int | None
    #: Shown this once; the password of `docker login -u NAME`.
    secret: str


@dataclass(frozen=True, slots=True)
class RobotChange:
    """What is to be different; what is not given stays."""

    role: Literal["writer", "reader", "user"] | None = None
    disabled: bool | None = None


@dataclass(frozen=True, slots=True)
class NewSecret:
    expires_days: Days = DEFAULT_DAYS


async def list_robots(call: Call) -> Listing:
    accounts = await call.services.metadata.accounts.all()
    robots = [account for account in accounts if account.kind == ROBOT]
    page = sliced(call, robots, lambda robot: robot.name)
    return Listing(tuple([await _shown(call, robot) for robot in page.items]), page.last)


async def add_robot(call: Call) -> RobotMade:
    new = call.body(NewRobot)
    metadata = call.services.metadata
    robot = await metadata.accounts.add(new.name, "", new.role, kind=ROBOT)
    made = await make(call, robot.name, SECRET, Limit(), new.expires_days)
    return RobotMade(robot.name, robot.role, made.expires_at, made.secret)


async def show_robot(call: Call) -> Robot:
    return await _shown(call, await _find(call))


async def change_robot(call: Call) -> Robot:
    robot, change = await _find(call), call.body(RobotChange)
    accounts = call.services.metadata.accounts
    if change.role is not None:
        await accounts.set_role(robot.name, change.role)
    if change.disabled is not None:
        await accounts.set_disabled(robot.name, change.disabled)
    return await _shown(call, await _find(call))


async def rotate_robot(call: Call) -> RobotMade:
    """The new secret is there before the old one ends, so that a failure between leaves one."""
    robot = await _find(call)
    tokens = call.services.metadata.access_tokens
    old = await tokens.of(robot.name)
    made = await make(call, robot.name, SECRET, Limit(), call.body(NewSecret).expires_days)
    for token in old:
        if token.label == SECRET:
            await tokens.revoke(robot.name, token.id)
    return RobotMade(robot.name, robot.role, made.expires_at, made.secret)


async def remove_robot(call: Call) -> None:
    robot = await _find(call)
    await call.services.metadata.accounts.remove(robot.name)


async def _find(call: Call) -> Account:
    name = call.parameters["robot"]
    found = await call.services.metadata.accounts.find(name)
    if found is None or found.kind != ROBOT:
        raise AccountUnknown(name)
    return found


async def _shown(call: Call, robot: Account) -> Robot:
    tokens = await call.services.metadata.access_tokens.of(robot.name)
    secrets = [token for token in tokens if token.label == SECRET]
    used = [token.last_used_at for token in tokens if token.last_used_at is not None]
    return Robot(
        name=robot.name,
        role=robot.role,
        disabled=robot.disabled,
        created_at=robot.created_at,
        expires_at=secrets[-1].expires_at if secrets else None,
        last_used_at=max(used, default=None),
    )


ENDPOINTS = (
    Endpoint("GET", "/robots", list_robots, Who.ADMIN, "List the robots", Robot, paged=True),
    Endpoint(
        "POST", "/robots", add_robot, Who.ADMIN,
        "Add a robot; its secret is in this answer only", RobotMade, 201, NewRobot,
    ),
    Endpoint("GET", "/robots/{robot}", show_robot, Who.ADMIN, "Show a robot", Robot),
    Endpoint(
        "PATCH", "/robots/{robot}", change_robot, Who.ADMIN,
        "Change a robot's role, disable or enable a robot", Robot, body=RobotChange,
    ),
    Endpoint(
        "POST", "/robots/{robot}/rotate", rotate_robot, Who.ADMIN,
        "Give a robot another secret; the old one ends at once", RobotMade, body=NewSecret,
    ),
    Endpoint(
        "DELETE", "/robots/{robot}", remove_robot, Who.ADMIN,
        "Remove a robot with everything to log in with",
    ),
)  # fmt: skip
