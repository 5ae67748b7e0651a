"""The policy: who may do what to which repositories, and which tags never change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from registry.api.v1.access_tokens import Action, Glob
from registry.api.v1.call import Call
from registry.api.v1.parameters import ACCOUNT_NAME
from registry.api.v1.shapes import Items, Text
from registry.api.v1.table import Answer, Endpoint, Who
from registry.auth.policy import ANONYMOUS, Policy, Subject, subject_of
from registry.auth.rules import ImmutableRule, Rule, WantedImmutable, WantedRule
from registry.errors import AccountUnknown
from registry.metadata.base import PolicyRows

TagGlob = Annotated[str, Text(1, 255, r"[A-Za-z0-9._?*-]+", "a tag, or a pattern like v*")]
SubjectText = Annotated[
    str,
    Text(1, 80, rf"anonymous|authenticated|(?:user|group|robot):{ACCOUNT_NAME}",
         "user:NAME, group:NAME, robot:NAME, anonymous or authenticated"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class NewPolicyRule:
    """`effect` for what the actions say; deny wins over allow."""

    repositories: Glob
    subject: SubjectText
    actions: Annotated[tuple[Action, ...], Items(1, 5)]
    effect: Literal["allow", "deny"] = "allow"


@dataclass(frozen=True, slots=True)
class PolicyRule:
    id: int
    repositories: str
    subject: str
    actions: tuple[str, ...]
    effect: str


@dataclass(frozen=True, slots=True)
class NewImmutableTags:
    """Tags like this are neither overwritten nor deleted."""

    repositories: Glob
    tags: TagGlob
    may_expire: bool = False


@dataclass(frozen=True, slots=True)
class ImmutableTags:
    id: int
    repositories: str
    tags: str
    may_expire: bool


@dataclass(frozen=True, slots=True)
class WholePolicy:
    rules: tuple[PolicyRule, ...]
    immutable: tuple[ImmutableTags, ...]


@dataclass(frozen=True, slots=True)
class NewPolicy:
    """All of it."""

    rules: Annotated[tuple[NewPolicyRule, ...], Items(0, 1000)] = ()
    immutable: Annotated[tuple[NewImmutableTags, ...], Items(0, 1000)] = ()


@dataclass(frozen=True, slots=True)
class Question:
    repository: Annotated[str, Text(1, 255)]
    action: Action
    account: Annotated[str, Text(0, 64, rf"(?:{ACCOUNT_NAME})?", "empty: nobody logged in")] = ""


@dataclass(frozen=True, slots=True)
class PolicyExplanation:
    allowed: bool
    #: Which rule decides, in words.
    reason: str


async def show_policy(call: Call) -> Answer:
    return _shown(await call.services.metadata.policy.load())


async def replace_policy(call: Call) -> Answer:
    """All rules at once; with If-Match only if nobody changed anything meanwhile."""
    new = call.body(NewPolicy)
    rules = [
        WantedRule(each.repositories, each.subject, frozenset(each.actions), each.effect)
        for each in new.rules
    ]
    immutable = [
        WantedImmutable(each.repositories, each.tags, each.may_expire) for each in new.immutable
    ]
    policy = call.services.metadata.policy
    return _shown(await policy.replace(rules, immutable, versions=call.if_match()))


async def add_policy_rule(call: Call) -> PolicyRule:
    new = call.body(NewPolicyRule)
    rule = await call.services.metadata.policy.add_rule(
        new.repositories, new.subject, frozenset(new.actions), new.effect
    )
    return _rule(rule)


async def remove_policy_rule(call: Call) -> None:
    await call.services.metadata.policy.remove_rule(int(call.parameters["number"]))


async def add_immutable_tags(call: Call) -> ImmutableTags:
    new = call.body(NewImmutableTags)
    rule = await call.services.metadata.policy.add_immutable(
        new.repositories, new.tags, may_expire=new.may_expire
    )
    return _immutable(rule)


async def remove_immutable_tags(call: Call) -> None:
    await call.services.metadata.policy.remove_immutable(int(call.parameters["number"]))


async def explain_policy(call: Call) -> PolicyExplanation:
    """What would be decided now, and by what."""
    asked = call.query(Question)
    subject: Subject = ANONYMOUS
    if asked.account:
        account = await call.services.metadata.accounts.find(asked.account)
        if account is None:
            raise AccountUnknown(asked.account)
        if account.disabled:
            return PolicyExplanation(False, "the account is disabled")
        subject = subject_of(account)
    rows = await call.services.metadata.policy.load()
    policy = Policy(
        anonymous_pull=call.services.settings.anonymous_pull,
        rules=rows.rules,
        immutable=rows.immutable,
        groups=rows.groups,
        version=rows.version,
    )
    decision = policy.decide(subject, asked.action, asked.repository)
    return PolicyExplanation(decision.allowed, decision.reason)


def _shown(rows: PolicyRows) -> Answer:
    shown = WholePolicy(tuple(map(_rule, rows.rules)), tuple(map(_immutable, rows.immutable)))
    return Answer(shown, etag=str(rows.version))


def _rule(rule: Rule) -> PolicyRule:
    actions = tuple(sorted(rule.actions))
    return PolicyRule(rule.id, rule.repositories, rule.subject, actions, rule.effect)


def _immutable(rule: ImmutableRule) -> ImmutableTags:
    return ImmutableTags(rule.id, rule.repositories, rule.tags, rule.may_expire)


ENDPOINTS = (
    Endpoint(
        "GET", "/policy", show_policy, Who.ADMIN, "Show the whole policy", WholePolicy,
        matches=True,
    ),
    Endpoint(
        "PUT", "/policy", replace_policy, Who.ADMIN, "Put a policy in place of the present one",
        WholePolicy, body=NewPolicy, matches=True, limit=1024 * 1024,
    ),
    Endpoint(
        "POST", "/policy/rules", add_policy_rule, Who.ADMIN, "Add a rule", PolicyRule, 201,
        NewPolicyRule,
    ),
    Endpoint(
        "DELETE", "/policy/rules/{number}", remove_policy_rule, Who.ADMIN, "Remove a rule",
    ),
    Endpoint(
        "POST", "/policy/immutable", add_immutable_tags, Who.ADMIN,
        "Say which tags are never overwritten or deleted", ImmutableTags, 201, NewImmutableTags,
    ),
    Endpoint(
        "DELETE", "/policy/immutable/{number}", remove_immutable_tags, Who.ADMIN,
        "Let tags change again",
    ),
    Endpoint(
        "GET", "/policy/explain", explain_policy, Who.ADMIN,
        "Say whether somebody may do something, and which rule decides", PolicyExplanation,
        query=Question,
    ),
)  # fmt: skip
