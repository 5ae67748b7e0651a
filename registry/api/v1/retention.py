"""Retention rules: seen before they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from registry.api.problems import Refusal
from registry.api.v1.call import Call
from registry.api.v1.shapes import Items, Text, Whole
from registry.api.v1.table import Endpoint, Who
from registry.metadata.retention import Going
from registry.metadata.retention_rules import Rule

_GLOB = r"[A-Za-z0-9._/*?\[\]!-]+"
_YEARS = 100 * 366 * 24 * 3600
_MOST = 1000


@dataclass(frozen=True, slots=True)
class NewRule:
    """Times in seconds; 0 keeps nothing by that measure. At least one must keep something."""

    repositories: Annotated[str, Text(1, 255, _GLOB)]
    tags: Annotated[tuple[Annotated[str, Text(1, 128, _GLOB)], ...], Items(1, 20)] = ("*",)
    keep_last: Annotated[int, Whole(0, 100_000)] = 0
    younger_s: Annotated[int, Whole(0, _YEARS)] = 0
    pulled_s: Annotated[int, Whole(0, _YEARS)] = 0


@dataclass(frozen=True, slots=True)
class RetentionRule:
    id: int
    repositories: str
    tags: tuple[str, ...]
    keep_last: int
    younger_s: int
    pulled_s: int


@dataclass(frozen=True, slots=True)
class RetentionRules:
    """All rules. They run once the set called `name` is acknowledged."""

    name: str
    acknowledged: bool
    acknowledged_by: str
    ran_at: int
    deleted: int
    rules: tuple[RetentionRule, ...]


@dataclass(frozen=True, slots=True)
class RetentionPreview:
    """What a run would delete now. `last`: the preview goes on after this repository."""

    name: str
    going: tuple[Going, ...]
    last: str


@dataclass(frozen=True, slots=True)
class PreviewPlace:
    last: Annotated[str, Text(0, 255)] = ""


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The name that the preview showed."""

    name: Annotated[str, Text(16, 16, "[0-9a-f]+")]


@dataclass(frozen=True, slots=True)
class RetentionRun:
    deleted: int


async def show_retention_rules(call: Call) -> RetentionRules:
    found = await call.services.metadata.retention.rules()
    return RetentionRules(
        found.name,
        bool(found.rules) and found.name == found.acknowledged,
        found.acknowledged_by,
        found.ran_at,
        found.deleted,
        tuple(
            RetentionRule(
                each.id,
                each.rule.repositories,
                each.rule.tags,
                each.rule.keep_last,
                each.rule.younger_s,
                each.rule.pulled_s,
            )
            for each in found.rules
        ),
    )


async def add_retention_rule(call: Call) -> RetentionRules:
    new = call.body(NewRule)
    if not (new.keep_last or new.younger_s or new.pulled_s):
        raise Refusal(400, "UNSUPPORTED", "the rule keeps nothing: say what it shall keep")
    await call.services.metadata.retention.add(
        Rule(new.repositories, new.tags, new.keep_last, new.younger_s, new.pulled_s)
    )
    return await show_retention_rules(call)


async def remove_retention_rule(call: Call) -> None:
    text = call.parameters["id"]
    known = text.isdigit() and len(text) < 16
    if not known or not await call.services.metadata.retention.remove(int(text)):
        raise Refusal(404, "UNSUPPORTED", f"there is no rule {text}")


async def preview_retention(call: Call) -> RetentionPreview:
    last = call.query(PreviewPlace).last
    going: list[Going] = []
    while True:
        name, found, last = await call.services.metadata.retention.preview(after=last)
        going += found
        if not last or len(going) >= _MOST:
            return RetentionPreview(name, tuple(going), last)


async def acknowledge_retention(call: Call) -> RetentionRules:
    await call.services.metadata.retention.acknowledge(
        call.body(Acknowledgement).name, actor=call.actor
    )
    return await show_retention_rules(call)


async def run_retention_rules(call: Call) -> RetentionRun:
    retention = call.services.metadata.retention
    name, after, deleted = (await retention.rules()).name, "", 0
    while True:
        count, after = await retention.run(name, after=after)
        deleted += count
        if not after:
            return RetentionRun(deleted)


ENDPOINTS = (
    Endpoint(
        "GET", "/retention", show_retention_rules, Who.ADMIN, "Show the retention rules",
        RetentionRules,
    ),
    Endpoint(
        "POST", "/retention/rules", add_retention_rule, Who.ADMIN, "Add a retention rule",
        RetentionRules, 201, body=NewRule,
    ),
    Endpoint(
        "DELETE", "/retention/rules/{id}", remove_retention_rule, Who.ADMIN,
        "Remove a retention rule",
    ),
    Endpoint(
        "GET", "/retention/preview", preview_retention, Who.ADMIN,
        "Show which tags the rules would delete now", RetentionPreview, query=PreviewPlace,
    ),
    Endpoint(
        "POST", "/retention/acknowledge", acknowledge_retention, Who.ADMIN,
        "Let the rules run that a preview has shown", RetentionRules, body=Acknowledgement,
    ),
    Endpoint(
        "POST", "/retention/run", run_retention_rules, Who.ADMIN,
        "Run the acknowledged rules now", RetentionRun,
    ),
)  # fmt: skip
