"""Groups: names for several accounts, to write policy rules about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.parameters import ACCOUNT_NAME
from registry.api.v1.shapes import Text
from registry.api.v1.table import Endpoint, Listing, Who
from registry.errors import GroupUnknown
from registry.metadata.base import Group


@dataclass(frozen=True, slots=True)
class NewGroup:
    name: Annotated[str, Text(1, 64, ACCOUNT_NAME)]


async def list_groups(call: Call) -> Listing:
    return sliced(call, await call.services.metadata.groups.all(), lambda group: group.name)


async def add_group(call: Call) -> Group:
    return await call.services.metadata.groups.add(call.body(NewGroup).name)


async def show_group(call: Call) -> Group:
    name = call.parameters["group"]
    found = await call.services.metadata.groups.find(name)
    if found is None:
        raise GroupUnknown(name)
    return found


async def remove_group(call: Call) -> None:
    await call.services.metadata.groups.remove(call.parameters["group"])


async def add_group_member(call: Call) -> None:
    group, member = call.parameters["group"], call.parameters["member"]
    await call.services.metadata.groups.join(group, member)


async def remove_group_member(call: Call) -> None:
    group, member = call.parameters["group"], call.parameters["member"]
    await call.services.metadata.groups.leave(group, member)


ENDPOINTS = (
    Endpoint("GET", "/groups", list_groups, Who.ADMIN, "List the groups", Group, paged=True),
    Endpoint("POST", "/groups", add_group, Who.ADMIN, "Add a group", Group, 201, NewGroup),
    Endpoint("GET", "/groups/{group}", show_group, Who.ADMIN, "Show a group", Group),
    Endpoint(
        "DELETE", "/groups/{group}", remove_group, Who.ADMIN,
        "Remove a group, and the policy rules about it",
    ),
    Endpoint(
        "PUT", "/groups/{group}/members/{member}", add_group_member, Who.ADMIN,
        "Put an account into a group",
    ),
    Endpoint(
        "DELETE", "/groups/{group}/members/{member}", remove_group_member, Who.ADMIN,
        "Take an account out of a group",
    ),
)  # fmt: skip
