"""Trust rules of robots: which tokens of other issuers they log in with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from registry.api.v1.call import Call
from registry.api.v1.listings import sliced
from registry.api.v1.shapes import NO_NUL, Items, Text
from registry.api.v1.table import Endpoint, Listing, Who
from registry.auth.issuers import require_httpx
from registry.auth.trust import check_rule
from registry.errors import AccountUnknown, InvalidSettings, PolicyInvalid
from registry.metadata.accounts import ROBOT


@dataclass(frozen=True, slots=True)
class TrustRule:
    id: int
    robot: str
    issuer: str
    audience: str
    #: Patterns that claims must fit: `*` within a part between / and :, `**` for anything.
    claims: dict[str, str]
    created_at: int


@dataclass(frozen=True, slots=True)
class NewTrustRule:
    issuer: Annotated[str, Text(1, 500, NO_NUL)]
    audience: Annotated[str, Text(1, 255, NO_NUL)]
    claims: Annotated[dict[str, str], Items(1, 20)]


async def list_trust_rules(call: Call) -> Listing:
    found = await call.services.metadata.trust.of(await _robot(call))
    rules = [
        TrustRule(each.id, each.robot, each.issuer, each.audience, dict(each.claims),
                  each.created_at)
        for each in found
    ]  # fmt: skip
    return sliced(call, rules, lambda rule: f"{rule.id:015}")


async def add_trust_rule(call: Call) -> TrustRule:
    robot, new = await _robot(call), call.body(NewTrustRule)
    check_rule(new.issuer, new.audience, new.claims)
    try:
        require_httpx()
    except InvalidSettings as error:
        raise PolicyInvalid(str(error), hint=error.hint) from None
    made = await call.services.metadata.trust.add(robot, new.issuer, new.audience, new.claims)
    return TrustRule(
        made.id, made.robot, made.issuer, made.audience, dict(made.claims), made.created_at
    )


async def remove_trust_rule(call: Call) -> None:
    """What came of it ends at once."""
    robot = await _robot(call)
    await call.services.metadata.trust.remove(robot, int(call.parameters["number"]))


async def _robot(call: Call) -> str:
    name = call.parameters["robot"]
    found = await call.services.metadata.accounts.find(name)
    if found is None or found.kind != ROBOT:
        raise AccountUnknown(name)
    return name


ENDPOINTS = (
    Endpoint(
        "GET", "/robots/{robot}/trust", list_trust_rules, Who.ADMIN,
        "List which tokens of other issuers a robot logs in with", TrustRule, paged=True,
    ),
    Endpoint(
        "POST", "/robots/{robot}/trust", add_trust_rule, Who.ADMIN,
        "Let a robot log in with tokens of another issuer", TrustRule, 201, NewTrustRule,
    ),
    Endpoint(
        "DELETE", "/robots/{robot}/trust/{number}", remove_trust_rule, Who.ADMIN,
        "Trust such tokens no more, at once",
    ),
)  # fmt: skip
