"""Robots that log in with the token of another issuer: CI workload identity.

A rule names the issuer, the audience, and patterns that claims of the token must fit. Spec: RFC
8693 for the exchange; the patterns are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from registry.auth.issuers import Issuers, check_issuer, issuer_of
from registry.errors import PolicyInvalid, Unauthenticated
from registry.metadata.base import Account, Trusted
from registry.metadata.trust import SqlTrust

MAX_PATTERN = 255
MAX_VALUE = 1024


def is_external(text: str) -> bool:
    """Whether a password can be a signed token: no password made here looks so."""
    return text.startswith("eyJ") and text.count(".") == 2


class TrustedIssuers:
    def __init__(self, rules: SqlTrust, issuers: Issuers) -> None:
        self._rules = rules
        self._issuers = issuers

    async def log_in(self, name: str, text: str) -> Account | None:
        """The robot that a rule gives for this token. Raises: Unavailable."""
        try:
            issuer = issuer_of(text)
            rules = await self._rules.of_issuer(issuer)
            rules = tuple(rule for rule in rules if name in ("", rule.robot))
            if not rules:
                return None
            claims = await self._issuers.verify(text, issuer, {rule.audience for rule in rules})
        except Unauthenticated:
            return None
        audience = claims["aud"]
        named = audience if isinstance(audience, list) else [audience]
        fitting = [each for each in rules if each.audience in named and fits(each.claims, claims)]
        if len({rule.robot for rule in fitting}) != 1:
            return None  # whoever does not say which of several robots they are gets none
        robot = await self._rules.holder(fitting[0].id)
        if robot is None:
            return None
        made = Trusted(fitting[0].id, fitting[0].created_at, int(claims["exp"]))
        return replace(robot, trusted=made)

    async def holder(self, rule: int) -> Account | None:
        return await self._rules.holder(rule)


def check_rule(issuer: str, audience: str, claims: Mapping[str, str]) -> None:
    """Raises: PolicyInvalid if a rule like this would trust nobody, or everybody."""
    try:
        check_issuer(issuer)
    except ValueError as error:
        raise PolicyInvalid(str(error)) from None
    if not audience or not audience.isprintable():
        raise PolicyInvalid("a trust rule needs the audience that tokens are made for")
    for claim, pattern in claims.items():
        if not pattern or len(pattern) > MAX_PATTERN or not (claim + pattern).isprintable():
            raise PolicyInvalid(f"the pattern of {claim[:80]!r} has 1 to {MAX_PATTERN} characters")
    if not any(pattern.strip("*") for pattern in claims.values()):
        raise PolicyInvalid(
            "a trust rule must say something about the token, or it trusts all of the issuer's",
            hint="for example sub=repo:team/app:ref:refs/heads/main",
        )


def fits(patterns: Mapping[str, str], claims: Mapping[str, Any]) -> bool:
    """Whether every pattern fits its claim. Of a list, one item is enough."""
    return all(
        any(matches(pattern, value) for value in _texts(claims.get(claim)))
        for claim, pattern in patterns.items()
    )


def _texts(value: Any) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, str | int):
        return [str(value)]
    return (
        [each for each in value[:100] if isinstance(each, str)] if isinstance(value, list) else []
    )


def matches(pattern: str, value: str) -> bool:
    """`*` stands for characters other than `/` and `:`, `**` for any; the rest for itself.

    Never longer than the product of the two lengths: positions in the pattern move on together.
    """
    if len(value) > MAX_VALUE:
        return False
    tokens = pattern.replace("**", "\0")
    at = _skip(tokens, {0})
    for character in value:
        moved = set()
        for place in at:
            token = tokens[place] if place < len(tokens) else ""
            if token == "\0" or (token == "*" and character not in "/:"):
                moved.add(place)
            elif token == character and token != "*":
                moved.add(place + 1)
        at = _skip(tokens, moved)
        if not at:
            return False
    return len(tokens) in at


def _skip(tokens: str, places: set[int]) -> set[int]:
    reached = set()
    for place in places:
        reached.add(place)
        while place < len(tokens) and tokens[place] in "\0*":
            place += 1
            reached.add(place)
    return reached
