"""What history is good for: undo, restore, as of a time, and many tags moved as one.

Everything here changes tags through `point_tags` and `drop_tags` and brings manifests back through
`put_manifest`, so the locks, checks and records of ordinary pushes hold for it as well. Each act is
one transaction and one change set: all of it happens, or nothing, and `undo` takes back all of it.

Tags are locked in the order of (repository, tag), behind the blobs of what comes back and behind
the manifests that tags will point at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import select

from ocispec.distribution.name import RepositoryName, Tag
from registry.errors import (
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    NothingToUndo,
    NotRestorable,
    TagMoved,
)
from registry.metadata.base import DELETE, PULL, PUSH, Access
from registry.metadata.blobs import link_again
from registry.metadata.collection import lock_blobs, review_manifests
from registry.metadata.manifests import put_manifest, remove_manifest
from registry.metadata.repositories import find_repository, repository_id
from registry.metadata.tables import manifest, manifest_blob, repository, tag, tag_history
from registry.metadata.tables_history import change_set, trash
from registry.metadata.tags import drop_tags, lock_tag, point_tags
from registry.metadata.transaction import Operations, Transaction, reads, settled, writes
from registry.metadata.trash import Buried, dig_up, holds, leave, record_change

# What the caller may do to a repository of this name, by the policy as it is now.
Rights = Callable[[str], Access]

# A tag that must not exist yet; see `Move.expected`.
ABSENT = ""


@dataclass(frozen=True, slots=True)
class Move:
    """One tag of a release. `to` is a digest or another tag of the same repository.

    expected: the digest that the tag must have before, ABSENT for none; None is whatever it has.
    """

    repository: str
    tag: str
    to: str
    expected: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A tag that was changed, or would be. Digests; None is a tag that does not exist."""

    repository: str
    tag: str
    old: str | None
    new: str | None


@dataclass(frozen=True, slots=True)
class Act:
    """What one act did. `change` is its change set, 0 if it was only tried."""

    change: int
    kind: str
    note: str
    steps: tuple[Step, ...]
    #: (repository, digest) of manifests that came back from the trash.
    restored: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of history."""

    id: int
    tag: str
    old: str | None
    new: str | None
    actor: str
    at: int
    change: int | None
    #: Of the change set, empty without one.
    kind: str
    note: str


@dataclass(frozen=True, slots=True)
class AsOf:
    """What a tag was at a time. `place` says where that manifest is now."""

    digest: str
    since: int
    actor: str
    #: "here", "trash" or "gone".
    place: str


class _Tried(Exception):
    """Carries the result of a dry run out of a transaction that must not happen."""

    def __init__(self, act: Act) -> None:
        super().__init__()
        self.act = act


class SqlHistory(Operations):
    """Reading history, and acts upon it."""

    @reads
    def log(
        self, tx: Transaction, access: Access, *, tag: str = "", n: int = 100, before: int = 0
    ) -> tuple[Entry, ...]:
        """Changes of a tag, or of all tags of the repository, newest first."""
        access.require(PULL)
        query = (
            select(tag_history, change_set.c.kind, change_set.c.note)
            .outerjoin(change_set, change_set.c.id == tag_history.c.change_id)
            .where(tag_history.c.repository_id == find_repository(tx, access))
            .order_by(tag_history.c.id.desc())
            .limit(n)
        )
        if tag:
            query = query.where(tag_history.c.name == tag)
        if before:
            query = query.where(tag_history.c.id < before)
        return tuple(
            Entry(
                row.id, row.name, row.old_digest, row.new_digest, row.actor, row.at,
                row.change_id, row.kind or "", row.note or "",
            )
            for row in tx.connection.execute(query)
        )  # fmt: skip

    @reads
    def as_of(self, tx: Transaction, access: Access, name: Tag, at: int) -> AsOf:
        """Raises: ManifestUnknown if the tag did not exist at that time."""
        access.require(PULL)
        id = repository_id(tx, access)
        row = tx.connection.execute(
            select(tag_history)
            .where(
                tag_history.c.repository_id == id,
                tag_history.c.name == name.text,
                tag_history.c.at <= at,
            )
            .order_by(tag_history.c.id.desc())
            .limit(1)
        ).first()
        if row is None or row.new_digest is None:
            raise ManifestUnknown(access.name, f"{name} at that time")
        if _has(tx, id, row.new_digest):
            place = "here"
        else:
            place = "trash" if holds(tx, id, row.new_digest) else "gone"
        return AsOf(row.new_digest, row.at, row.actor, place)

    async def release(
        self, rights: Rights, moves: tuple[Move, ...], *, note: str = "", dry_run: bool = False
    ) -> Act:
        """Move many tags in many repositories; all or none.

        Raises: NameUnknown; ManifestUnknown; TagMoved where `expected` is not what is found; Denied
        where the caller may not.
        """
        return await self._act(lambda tx: _release(tx, rights, moves, note), dry_run)

    async def undo(
        self,
        rights: Rights,
        *,
        name: RepositoryName | None = None,
        tag: str = "",
        change: int = 0,
        actor: str = "",
        dry_run: bool = False,
    ) -> Act:
        """Take back the last change of a tag, or of a repository, or the change set `change`; the
        whole set that the last change belongs to.

        Undoing again takes back the undo. Raises: NothingToUndo; TagMoved if a tag has changed
        since; NotRestorable if a manifest is gone for good; Denied.
        """
        return await self._act(lambda tx: _undo(tx, rights, name, tag, change, actor), dry_run)

    async def restore(self, access: Access, reference: str = "", *, dry_run: bool = False) -> Act:
        """Bring back a deleted tag, a deleted manifest with the tags it lost then, or with no
        reference everything that the repository's last deletion took.

        Raises: NotRestorable.
        """
        return await self._act(lambda tx: _restore(tx, access, reference), dry_run)

    @writes
    def remove_repository(self, tx: Transaction, access: Access) -> Act:
        """Delete all tags and manifests of a repository, so that `restore` brings all back.

        Raises: NameUnknown if there is nothing in it.
        """
        access.require(DELETE)
        id = repository_id(tx, access)
        blobs = tx.connection.execute(
            select(manifest_blob.c.digest).where(manifest_blob.c.repository_id == id).distinct()
        )
        lock_blobs(tx, blobs.scalars().all())
        digests = (
            tx.connection.execute(
                select(manifest.c.digest)
                .where(manifest.c.repository_id == id)
                .order_by(manifest.c.digest)
                .with_for_update()
            )
            .scalars()
            .all()
        )
        if not digests:
            raise NameUnknown(access.name)
        change = record_change(tx, "delete", access.subject, f"repository {access.name}")
        steps: list[Step] = []
        for digest in digests:
            names = remove_manifest(tx, access, id, digest, change_id=change)
            steps += [Step(access.name.text, name, digest, None) for name in names]
        return Act(change, "delete", f"repository {access.name}", tuple(sorted(steps, key=_place)))

    async def _act(self, act: Callable[[Transaction], Act], dry_run: bool) -> Act:
        def step(tx: Transaction) -> Act:
            done = act(tx)
            if dry_run:
                raise _Tried(done)
            return done

        try:
            return await self.transactions.write(settled(step))
        except _Tried as tried:
            found = tried.act
            return Act(0, found.kind, found.note, found.steps, found.restored)


@dataclass(frozen=True, slots=True)
class _Change:
    """A tag that shall change from `old`, unless that is `_ANY`, to `new`."""

    access: Access
    repository_id: int
    tag: str
    old: str | None
    new: str | None


_ANY = "any"


def _release(tx: Transaction, rights: Rights, moves: tuple[Move, ...], note: str) -> Act:
    changes: list[_Change] = []
    seen: set[tuple[str, str]] = set()
    for move in moves:
        access = rights(move.repository)
        access.require(PULL)
        access.require(PUSH)
        id = repository_id(tx, access)
        if (move.repository, move.tag) in seen:
            raise TagMoved(access.name, move.tag, "is named twice in one release")
        seen.add((move.repository, move.tag))
        new = move.to
        if ":" not in new:
            found = _digest_of_tag(tx, id, new)
            if found is None:
                raise ManifestUnknown(access.name, new)
            new = found
        expected = _ANY if move.expected is None else move.expected or None
        changes.append(_Change(access, id, move.tag, expected, new))
    actor = changes[0].access.subject if changes else ""
    change = record_change(tx, "release", actor, note)
    return _carry_out(tx, changes, change, "release", note, may_restore=False)


def _undo(
    tx: Transaction,
    rights: Rights,
    name: RepositoryName | None,
    tag_name: str,
    change: int,
    actor: str,
) -> Act:
    rows: list[tuple[str, int, str, str | None, str | None]]
    what = f"change {change}"
    if not change:
        assert name is not None
        access = rights(name.text)
        access.require(PUSH)
        id = repository_id(tx, access)
        query = (
            select(tag_history)
            .where(tag_history.c.repository_id == id)
            .order_by(tag_history.c.id.desc())
            .limit(1)
        )
        if tag_name:
            query = query.where(tag_history.c.name == tag_name)
        last = tx.connection.execute(query).first()
        change = (last.change_id or 0) if last is not None else 0
        if not tag_name:
            buried = tx.connection.execute(
                select(trash.c.change_id, trash.c.deleted_at)
                .where(trash.c.repository_id == id)
                .order_by(trash.c.id.desc())
                .limit(1)
            ).first()
            if buried is not None and (last is None or buried.deleted_at > last.at):
                last, change = buried, buried.change_id
        what = f"the last change of {name}" + (f":{tag_name}" if tag_name else "")
        if last is None:
            raise NothingToUndo(what)
        if not change:
            rows = [(name.text, id, last.name, last.old_digest, last.new_digest)]
    manifests: list[tuple[str, int, str]] = []
    if change:
        found = tx.connection.execute(
            select(repository.c.name, tag_history)
            .join(repository, repository.c.id == tag_history.c.repository_id)
            .where(tag_history.c.change_id == change)
            .order_by(tag_history.c.id)
        ).all()
        rows = [
            (row[0], row.repository_id, row._mapping[tag_history.c.name], row.old_digest,
             row.new_digest)
            for row in found
        ]  # fmt: skip
        manifests = [
            (row.name, row.repository_id, row.digest)
            for row in tx.connection.execute(
                select(repository.c.name, trash.c.repository_id, trash.c.digest)
                .join(repository, repository.c.id == trash.c.repository_id)
                .where(trash.c.change_id == change, trash.c.expires_at > tx.now)
            )
        ]
        if not rows and not manifests:
            raise NothingToUndo(what)
    names = {row[0] for row in rows} | {row[0] for row in manifests}
    granted = {each: rights(each) for each in sorted(names)}
    for access in granted.values():
        access.require(PUSH)
    changes = [
        _Change(granted[repo], id, tag, old=new, new=old) for repo, id, tag, old, new in rows
    ]
    note = f"of change {change}" if change else f"of {rows[0][0]}:{rows[0][2]}"
    undone = record_change(tx, "undo", actor, note)
    wanted = [(granted[repo], id, digest) for repo, id, digest in manifests]
    return _carry_out(tx, changes, undone, "undo", note, may_restore=True, also=wanted)


def _restore(tx: Transaction, access: Access, reference: str) -> Act:
    access.require(PUSH)
    id = repository_id(tx, access)
    changes: list[_Change] = []
    wanted: list[tuple[Access, int, str]] = []
    if reference and ":" not in reference:
        last = tx.connection.execute(
            select(tag_history)
            .where(tag_history.c.repository_id == id, tag_history.c.name == reference)
            .order_by(tag_history.c.id.desc())
            .limit(1)
        ).first()
        if last is None or last.new_digest is not None:
            why = "is not deleted" if last is not None else "never existed"
            raise NotRestorable(access.name, reference, why)
        changes.append(_Change(access, id, reference, None, last.old_digest))
    else:
        kept = select(trash.c.digest, trash.c.change_id).where(
            trash.c.repository_id == id, trash.c.expires_at > tx.now
        )
        if reference:
            kept = kept.where(trash.c.digest == reference)
        else:
            newest = (
                select(trash.c.change_id)
                .where(trash.c.repository_id == id, trash.c.expires_at > tx.now)
                .order_by(trash.c.id.desc())
                .limit(1)
            )
            kept = kept.where(trash.c.change_id == newest.scalar_subquery())
        found = tx.connection.execute(kept).all()
        if not found:
            raise NotRestorable(access.name, reference or "anything", "is not in the trash")
        wanted = [(access, id, row.digest) for row in found]
        query = select(tag_history.c.name, tag_history.c.old_digest).where(
            tag_history.c.repository_id == id,
            tag_history.c.new_digest.is_(None),
            tag_history.c.change_id == found[0].change_id,
        )
        if reference:
            query = query.where(tag_history.c.old_digest == reference)
        lost = tx.connection.execute(query).all()
        # A tag that somebody has made again meanwhile is theirs.
        changes = [
            _Change(access, id, row.name, None, row.old_digest)
            for row in lost
            if _digest_of_tag(tx, id, row.name) is None
        ]
    note = f"{access.name}" + (f" {reference}" if reference else "")
    change = record_change(tx, "restore", access.subject, note)
    return _carry_out(tx, changes, change, "restore", note, may_restore=True, also=wanted)


def _carry_out(
    tx: Transaction,
    changes: list[_Change],
    change_id: int,
    kind: str,
    note: str,
    *,
    may_restore: bool,
    also: Iterable[tuple[Access, int, str]] = (),
) -> Act:
    """Manifests first, then tags, each in one order for everybody."""
    needed = {(c.repository_id, c.new): c.access for c in changes if c.new is not None}
    if may_restore:
        needed |= {(id, digest): access for access, id, digest in also}
    restored = _bring_back(tx, needed) if may_restore else ()
    manifests: dict[tuple[int, str], int] = {}
    for id, digest in sorted(needed):
        found = tx.connection.execute(
            select(manifest.c.id)
            .where(manifest.c.repository_id == id, manifest.c.digest == digest)
            .with_for_update(read=True)
        ).scalar()
        if found is None:
            raise ManifestUnknown(needed[id, digest].name, digest)
        manifests[id, digest] = found
    steps: list[Step] = []
    for each in sorted(changes, key=lambda c: (c.access.name.text, c.tag)):
        target = None if each.new is None else manifests[each.repository_id, each.new]
        steps += _change_tag(tx, each, target, change_id)
    return Act(change_id, kind, note, tuple(steps), restored)


def _change_tag(tx: Transaction, change: _Change, target: int | None, change_id: int) -> list[Step]:
    access, id, name = change.access, change.repository_id, change.tag
    now = lock_tag(tx, id, name)
    if now is None:
        # A row that does not exist cannot be locked: its making is, as it needs the repository's.
        tx.connection.execute(
            select(repository.c.id).where(repository.c.id == id).with_for_update()
        )
        now = lock_tag(tx, id, name)
    if change.old not in (_ANY, now):
        is_now = f"is {now} now" if now else "does not exist now"
        raise TagMoved(access.name, name, f"{is_now}, not {change.old or 'absent'}")
    if now == change.new:
        return []
    if change.new is None:
        assert now is not None
        access.require(DELETE)
        drop_tags(tx, access, id, [name], now, change_id=change_id)
        review_manifests(tx, id, [now], event="tag removed")
    else:
        assert target is not None
        point_tags(tx, access, id, [name], target, change.new, change_id=change_id)
    return [Step(access.name.text, name, now, change.new)]


def _bring_back(
    tx: Transaction, wanted: dict[tuple[int, str], Access]
) -> tuple[tuple[str, str], ...]:
    """Restore what of these manifests is in the trash, with children: blobs are locked first."""
    found: dict[tuple[int, str], Buried] = {}
    order: list[tuple[int, str]] = []
    access_of = dict(wanted)

    def visit(key: tuple[int, str], access: Access) -> None:
        if key in found or _has(tx, *key):
            return
        if not holds(tx, *key):
            raise NotRestorable(access.name, key[1], "is gone for good")
        access_of[key] = access
        found[key] = buried = dig_up(tx, access, *key)
        for child in buried.children:
            visit((key[0], child), access)
        order.append(key)

    for key, access in sorted(wanted.items(), key=lambda item: item[0]):
        visit(key, access)
    lock_blobs(tx, sorted({str(b.digest) for each in found.values() for b in each.new.blobs}))
    for key in order:
        access, buried = access_of[key], found[key]
        for reference in buried.new.blobs:
            link_again(tx, access, key[0], str(reference.digest))
        # Children that were there are back by now; others were never asked for.
        try:
            put_manifest(tx, access, buried.new, allow_sparse=True)
        except ManifestBlobUnknown as error:
            why = f"needs {', '.join(error.digests)}, whose bytes are gone: push it again"
            raise NotRestorable(access.name, key[1], why) from error
        leave(tx, *key)
    return tuple((access_of[key].name.text, key[1]) for key in order)


def _place(step: Step) -> tuple[str, str]:
    return step.repository, step.tag


def _has(tx: Transaction, repository_id: int, digest: str) -> bool:
    found = select(manifest.c.id).where(
        manifest.c.repository_id == repository_id, manifest.c.digest == digest
    )
    return tx.connection.execute(found).first() is not None


def _digest_of_tag(tx: Transaction, repository_id: int, name: str) -> str | None:
    query = (
        select(manifest.c.digest)
        .join(tag, tag.c.manifest_id == manifest.c.id)
        .where(tag.c.repository_id == repository_id, tag.c.name == name)
    )
    found: str | None = tx.connection.execute(query).scalar()
    return found
