"""History of tags: look, undo, restore, as of a time; releases; deletions that can be undone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from ocispec import grammar
from ocispec.distribution.name import RepositoryName
from registry.api.problems import Refusal
from registry.api.v1.call import Call
from registry.api.v1.shapes import Items, Text, Whole
from registry.api.v1.table import Endpoint, Listing, On, Who
from registry.errors import Unsupported
from registry.metadata.base import Access
from registry.metadata.history import Act, AsOf, Move
from registry.metadata.trash import Trashed

_DIGEST = r"sha(?:256:[0-9a-f]{64}|512:[0-9a-f]{128})"
_LATEST = (1 << 53) - 1

RepositoryText = Annotated[str, Text(1, grammar.NAME_MAX, grammar.NAME)]
TagText = Annotated[str, Text(1, 128, grammar.TAG)]


@dataclass(frozen=True, slots=True)
class TagEvent:
    """One change of one tag. `change` is the set it was part of, 0 for none."""

    id: int
    tag: str
    old: str
    new: str
    actor: str
    at: int
    change: int
    kind: str
    note: str


@dataclass(frozen=True, slots=True)
class HistoryFilter:
    tag: Annotated[str, Text(0, 128, f"(?:{grammar.TAG})?", "of this tag only")] = ""


@dataclass(frozen=True, slots=True)
class Moment:
    at: Annotated[int, Whole(0, _LATEST, "seconds since 1970")]


@dataclass(frozen=True, slots=True)
class UndoRequest:
    """With a tag: its last change, or the whole set that this belongs to; else the repository's."""

    tag: Annotated[str, Text(0, 128, f"(?:{grammar.TAG})?")] = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A tag, a digest, or nothing for all that the last deletion took."""

    reference: Annotated[str, Text(0, 135, f"(?:{grammar.TAG}|{_DIGEST})?")] = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ChangeOnly:
    """Whether only to say what would be done."""

    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ReleaseMove:
    """A tag to be moved. `to`: a digest, or a tag of the same repository.

    expected: the digest it must have before, "absent" for none, empty for whatever it has.
    """

    repository: RepositoryText
    tag: TagText
    to: Annotated[str, Text(1, 135, f"{grammar.TAG}|{_DIGEST}")]
    expected: Annotated[str, Text(0, 135, f"(?:absent|{_DIGEST})?")] = ""


@dataclass(frozen=True, slots=True)
class Release:
    moves: Annotated[tuple[ReleaseMove, ...], Items(1, 1000)]
    note: Annotated[str, Text(0, 200, r"[^\x00-\x1f\x7f]*")] = ""
    dry_run: bool = False


async def list_history(call: Call) -> Listing:
    last = call.paging.last
    if last and not (last.isdigit() and len(last) < 16):
        raise Refusal(400, "UNSUPPORTED", "last must be the id of an entry")
    found = await call.services.metadata.history.log(
        call.access,
        tag=call.query(HistoryFilter).tag,
        n=call.paging.n + 1,
        before=int(last or 0),
    )
    page = found[: call.paging.n]
    more = str(page[-1].id) if len(found) > len(page) else ""
    return Listing(
        tuple(
            TagEvent(
                e.id, e.tag, e.old or "", e.new or "", e.actor, e.at, e.change or 0, e.kind, e.note
            )
            for e in page
        ),
        more,
    )


async def show_tag_as_of(call: Call) -> AsOf:
    return await call.services.metadata.history.as_of(call.access, call.tag, call.query(Moment).at)


async def undo_last_change(call: Call) -> Act:
    asked = call.body(UndoRequest)
    return await call.services.metadata.history.undo(
        _rights(call),
        name=call.repository,
        tag=asked.tag,
        actor=call.actor,
        dry_run=asked.dry_run,
    )


async def undo_change(call: Call) -> Act:
    text = call.parameters["id"]
    if not (text.isdigit() and len(text) < 16):
        raise Refusal(400, "NAME_INVALID", "a change is a number, as the history shows it")
    return await call.services.metadata.history.undo(
        _rights(call),
        change=int(text) or -1,
        actor=call.actor,
        dry_run=call.body(ChangeOnly).dry_run,
    )


async def restore_deleted(call: Call) -> Act:
    asked = call.body(RestoreRequest)
    return await call.services.metadata.history.restore(
        call.access, asked.reference, dry_run=asked.dry_run
    )


async def list_trash(call: Call) -> Listing:
    page = await call.services.metadata.trash.page(
        call.access, n=call.paging.n, last=call.paging.last
    )
    return Listing(page.items, page.items[-1].digest if page.more else "")


async def delete_repository(call: Call) -> Act:
    _require_deletion(call)
    return await call.services.metadata.history.remove_repository(call.access)


async def delete_tag(call: Call) -> None:
    _require_deletion(call)
    await call.services.metadata.tags.remove(call.access, call.tag)


async def apply_release(call: Call) -> Act:
    release = call.body(Release)
    moves = tuple(
        Move(
            m.repository,
            m.tag,
            m.to,
            None if not m.expected else "" if m.expected == "absent" else m.expected,
        )
        for m in release.moves
    )
    return await call.services.metadata.history.release(
        _rights(call), moves, note=release.note, dry_run=release.dry_run
    )


def _rights(call: Call) -> Callable[[str], Access]:
    guard = call.services.guard

    def rights(name: str) -> Access:
        return guard.access_of(call.caller, RepositoryName.parse(name))

    return rights


def _require_deletion(call: Call) -> None:
    if not call.services.settings.delete_enabled:
        raise Unsupported("deleting is switched off: delete_enabled = false")


ENDPOINTS = (
    Endpoint(
        "GET", "/repositories/{repository}/_history", list_history, On("push"),
        "Show the changes of a repository's tags, newest first", TagEvent,
        query=HistoryFilter, paged=True,
    ),
    Endpoint(
        "GET", "/repositories/{repository}/_tags/{tag}/as-of", show_tag_as_of, On("pull"),
        "Show what a tag was at a time", AsOf, query=Moment,
    ),
    Endpoint(
        "POST", "/repositories/{repository}/_undo", undo_last_change, On("push"),
        "Take back the last change", Act, body=UndoRequest,
    ),
    Endpoint(
        "POST", "/changes/{id}/undo", undo_change, Who.ACCOUNT,
        "Take back a change set", Act, body=ChangeOnly,
    ),
    Endpoint(
        "POST", "/repositories/{repository}/_restore", restore_deleted, On("push"),
        "Bring back what was deleted", Act, body=RestoreRequest,
    ),
    Endpoint(
        "GET", "/repositories/{repository}/_trash", list_trash, On("push"),
        "List the deleted manifests that can be restored", Trashed, paged=True,
    ),
    Endpoint(
        "DELETE", "/repositories/{repository}", delete_repository, On("delete"),
        "Delete all of a repository; it can be restored", Act,
    ),
    Endpoint(
        "DELETE", "/repositories/{repository}/_tags/{tag}", delete_tag, On("delete"),
        "Delete a tag; it can be restored",
    ),
    Endpoint(
        "POST", "/releases", apply_release, Who.ACCOUNT,
        "Move many tags in many repositories, all or none", Act, body=Release,
    ),
)  # fmt: skip
