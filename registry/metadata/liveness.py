"""Whether the collector may remove something: decided here from facts, without a database.

A manifest lives while it is tagged, a child of an index, or refers to a subject that is there; and
for `untagged_s` after the newest of its push, the end of its last use, and its last pull. The end
of a use is in the queue: each one moves the entry's due time. A blob lives while a manifest uses
it, while it is leased, and for `lease_s` after its last use ended.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    #: Whether it goes now.
    remove: bool
    #: When to look again if it stays; None: not before something happens to it.
    again_at: int | None
    #: What keeps it, or that nothing does.
    reason: str


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    tagged: bool
    #: An index in its repository names it.
    in_index: bool
    #: It refers to a manifest that is in its repository.
    has_subject: bool
    pushed_at: int
    pulled_at: int | None


@dataclass(frozen=True, slots=True)
class BlobFacts:
    live: bool
    #: A manifest, of any repository, uses it.
    used: bool
    unreferenced_since: int | None
    lease_until: int


def manifest_verdict(
    facts: ManifestFacts, *, now: int, untagged_s: int, for_ever_s: int
) -> Verdict:
    if facts.tagged:
        return Verdict(False, None, "tagged")
    if facts.in_index:
        return Verdict(False, None, "in an index")
    if facts.has_subject:
        return Verdict(False, None, "refers to a subject")
    if not untagged_s:
        return Verdict(False, now + for_ever_s, "untagged manifests are kept for ever")
    touched, why = facts.pushed_at, "pushed lately"
    if facts.pulled_at is not None and facts.pulled_at > touched:
        touched, why = facts.pulled_at, "pulled lately"
    if touched + untagged_s > now:
        return Verdict(False, touched + untagged_s, why)
    return Verdict(True, None, "untagged")


def blob_verdict(facts: BlobFacts, *, now: int, lease_s: int) -> Verdict:
    if facts.used:
        return Verdict(False, None, "used by a manifest")
    if not facts.live:
        return Verdict(False, None, "removed already")
    if facts.lease_until > now:
        return Verdict(False, facts.lease_until, "leased")
    since = now if facts.unreferenced_since is None else facts.unreferenced_since
    if since + lease_s > now:
        return Verdict(False, since + lease_s, "used lately")
    return Verdict(True, None, "unused")
