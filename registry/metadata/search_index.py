"""The index of search: what is to be brought in, and bringing it in.

The outbox is read in the order of its ids. On SQLite that is the order of commits. On PostgreSQL an
id may become visible after a later one, so the position moves only past ids whose transactions are
known to have ended: all that began before a snapshot's xmax (`Fence`). Until then what was done is
remembered, and after a crash done again: every step says what is, not what changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import bindparam, delete, func, literal, select, text, tuple_, update

from registry.metadata.base import LIVE
from registry.metadata.tables import blob, event, manifest, manifest_blob, repository, tag
from registry.metadata.tables_search import (
    outbox_position,
    search_manifest,
    search_repository,
    search_term,
)
from registry.metadata.transaction import (
    Operations,
    Transaction,
    Upserting,
    batches,
    bound,
    insert,
    reads,
    writes,
    writes_unflushed,
)
from registry.search.query import TAG
from registry.search.terms import MAX_CONFIG_BYTES, Term, Terms, dump_terms, load_terms

CONSUMER = "search"

#: What a rebuild goes through, one after the other.
PHASES = ("manifests", "tags", "old manifests", "old tags", "old repositories")

# Made once: making a statement costs five times as much as running it.
_ADD_TERM = Upserting(
    search_term,
    lambda insert: insert.values(
        **bound(search_term, "kind", "value", "repository_id", "manifest_id")
    ).on_conflict_do_nothing(),
)
_DROP_TERM = delete(search_term).where(
    search_term.c.kind == bindparam("of"),
    search_term.c.value == bindparam("text"),
    search_term.c.repository_id == bindparam("repository"),
    search_term.c.manifest_id == bindparam("manifest"),
)
_FIND_TAG = select(tag.c.name).where(
    tag.c.repository_id == bindparam("repository"), tag.c.name == bindparam("text")
)

TagKey = tuple[int, str]
ManifestKey = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Position:
    position: int
    holder: str
    held_until: int
    #: A phase of PHASES; empty if no rebuild is under way.
    rebuilding: str
    rebuilt: str
    #: The newest event's id.
    newest: int
    #: The database's time, in the transaction that read this.
    now: int


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest to be indexed."""

    repository_id: int
    manifest_id: int
    digest: str
    media_type: str
    artifact_type: str
    config_media_type: str
    annotations: str
    pushed_at: int
    #: An index's bytes.
    index: bytes | None
    #: Where the configuration is, if it is to be read.
    config_key: str
    config_size: int


@dataclass(slots=True)
class Batch:
    """What some events, or a piece of a rebuild, ask for."""

    documents: list[Document] = field(default_factory=list)
    #: Manifests that may have to be taken out.
    gone: set[ManifestKey] = field(default_factory=set)
    tags: set[TagKey] = field(default_factory=set)
    #: Repositories that may have to be taken out, by id.
    repositories: set[int] = field(default_factory=set)
    #: Ids of the events.
    events: list[int] = field(default_factory=list)
    #: When the newest of them happened.
    at: int = 0
    #: Of the snapshot that was read; 0 where ids are in the order of commits.
    xmin: int = 0
    xmax: int = 0
    #: For a rebuild: the phase and place after this piece.
    rebuilding: str = ""
    rebuilt: str = ""


class SqlSearchIndex(Operations):
    @reads
    def look(self, tx: Transaction) -> Position:
        p = outbox_position.c
        row = tx.connection.execute(
            select(p.position, p.holder, p.held_until, p.rebuilding, p.rebuilt).where(
                p.consumer == CONSUMER
            )
        ).one()
        newest = tx.connection.execute(select(func.coalesce(func.max(event.c.id), 0))).scalar_one()
        return Position(*row, newest, tx.now)

    @writes
    def hold(self, tx: Transaction, holder: str, seconds: int) -> bool:
        """Become or stay the one who reads the outbox; False if another is."""
        p = outbox_position.c
        changed = tx.connection.execute(
            update(outbox_position)
            .where(p.consumer == CONSUMER, (p.holder == holder) | (p.held_until <= tx.now))
            .values(holder=holder, held_until=tx.now + seconds)
        )
        return changed.rowcount == 1

    @writes
    def release(self, tx: Transaction, holder: str) -> None:
        p = outbox_position.c
        tx.connection.execute(
            update(outbox_position)
            .where(p.consumer == CONSUMER, p.holder == holder)
            .values(holder="", held_until=0)
        )

    @writes
    def rebuild(self, tx: Transaction) -> None:
        """Have everything indexed again; what is there is found meanwhile."""
        tx.connection.execute(
            update(outbox_position)
            .where(outbox_position.c.consumer == CONSUMER)
            .values(rebuilding=PHASES[0], rebuilt="")
        )

    @reads
    def changed(self, tx: Transaction, position: int, done: frozenset[int], *, n: int) -> Batch:
        """What events after `position` that are not among `done` ask for: `n` of them at most."""
        batch = Batch()
        if tx.connection.dialect.name == "postgresql":
            row = tx.connection.execute(
                text(
                    "SELECT pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text"
                    " FROM pg_current_snapshot() AS s"
                )
            ).one()
            batch.xmin, batch.xmax = int(row[0]), int(row[1])
        e = event.c
        rows = tx.connection.execute(
            select(e.id, e.repository, e.digest, e.tag, e.kind, e.at)
            .where(e.id > position)
            .order_by(e.id)
            .limit(n + len(done))
        ).all()
        rows = [row for row in rows if row.id not in done][:n]
        names = sorted({row.repository for row in rows})
        ids = _ids(tx, names)
        digests: set[ManifestKey] = set()
        for row in rows:
            batch.events.append(row.id)
            batch.at = max(batch.at, row.at)
            repository_id = ids.get(row.repository)
            if repository_id is None:
                continue
            if row.tag:
                batch.tags.add((repository_id, row.tag))
            # Whatever happened to a manifest, what is there now is looked at.
            if row.digest and not row.kind.startswith("blob."):
                digests.add((repository_id, row.digest))
        lost = [name for name in names if name not in ids]
        for names_batch in batches(lost):
            batch.repositories.update(
                tx.connection.execute(
                    select(search_repository.c.repository_id).where(
                        search_repository.c.name.in_(names_batch)
                    )
                ).scalars()
            )
        _read_documents(tx, batch, digests)
        return batch

    @reads
    def piece(self, tx: Transaction, phase: str, after: str, *, n: int) -> Batch:
        """The next piece of a rebuild."""
        batch = Batch()
        last = after
        if phase == "manifests":
            query = select(manifest.c.id).where(manifest.c.id > int(after or 0))
            ids = tx.connection.execute(query.order_by(manifest.c.id).limit(n)).scalars().all()
            batch.documents = _documents(tx, ids)
            full, last = len(ids) == n, str(ids[-1]) if ids else after
        elif phase == "old repositories":
            s = search_repository.c.repository_id
            query = select(s).where(s > int(after or 0)).order_by(s).limit(n)
            ids = tx.connection.execute(query).scalars().all()
            batch.repositories = set(ids)
            full, last = len(ids) == n, str(ids[-1]) if ids else after
        else:
            first, name = {
                "tags": (tag.c.repository_id, tag.c.name),
                "old manifests": (search_manifest.c.repository_id, search_manifest.c.digest),
                "old tags": (search_term.c.repository_id, search_term.c.value),
            }[phase]
            id, _, rest = (after or "0/").partition("/")
            pairs = select(first, name)
            if phase == "old tags":
                first, name = name, first
                value, _, number = after.rpartition("/")
                place = tuple_(literal(value), literal(int(number or 0)))
                pairs = pairs.where(search_term.c.kind == TAG)
            else:
                place = tuple_(literal(int(id)), literal(rest))
            pairs = pairs.where(tuple_(first, name) > place).order_by(first, name).limit(n)
            keys = [(int(row[0]), str(row[1])) for row in tx.connection.execute(pairs)]
            if phase == "old manifests":
                batch.gone = set(keys)
            else:
                batch.tags = set(keys)
            full = len(keys) == n
            if keys:
                number_, text_ = keys[-1]
                last = f"{text_}/{number_}" if phase == "old tags" else f"{number_}/{text_}"
        if full:
            batch.rebuilding, batch.rebuilt = phase, last
        else:
            later = PHASES[PHASES.index(phase) + 1 :]
            batch.rebuilding, batch.rebuilt = (later[0] if later else ""), ""
        return batch

    @writes_unflushed
    def store(
        self,
        tx: Transaction,
        holder: str,
        batch: Batch,
        terms: dict[int, Terms],
        *,
        position: int | None = None,
        piece_of: tuple[str, str] | None = None,
    ) -> bool:
        """Bring a batch in, if `holder` still is who reads; False if not.

        `terms` by manifest id. `position`: how far events need not be read again. `piece_of`: the
        phase and place that a rebuild was at, which goes on unless it was asked for anew.

        Not flushed: a power cut takes the position back together with what was brought in.
        """
        p = outbox_position.c
        held = tx.connection.execute(
            select(p.position, p.rebuilding, p.rebuilt)
            .where(p.consumer == CONSUMER, p.holder == holder, p.held_until > tx.now)
            .with_for_update()
        ).one_or_none()
        if held is None:
            return False
        _meet_repositories(tx)
        there = _there(tx, [d.manifest_id for d in batch.documents])
        for document in batch.documents:
            if document.manifest_id in there:
                _add(tx, document, terms.get(document.manifest_id, Terms()))
            else:
                batch.gone.add((document.repository_id, document.digest))
        for key in sorted(batch.gone):
            _take_out(tx, key)
        for tag_key in sorted(batch.tags):
            _set_tag(tx, tag_key)
        for repository_id in sorted(batch.repositories):
            _forget_repository(tx, repository_id)
        values: dict[str, object] = {}
        if position is not None and position > held.position:
            values["position"] = position
        if piece_of is not None and piece_of == (held.rebuilding, held.rebuilt):
            values |= {"rebuilding": batch.rebuilding, "rebuilt": batch.rebuilt}
        if values:
            tx.connection.execute(
                update(outbox_position).where(p.consumer == CONSUMER).values(**values)
            )
        return True


def _ids(tx: Transaction, names: list[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for batch in batches(names):
        query = select(repository.c.name, repository.c.id).where(repository.c.name.in_(batch))
        ids.update((row.name, row.id) for row in tx.connection.execute(query))
    return ids


def _read_documents(tx: Transaction, batch: Batch, keys: set[ManifestKey]) -> None:
    wanted: list[int] = []
    for repository_id, digest in sorted(keys):
        id = tx.connection.execute(
            select(manifest.c.id).where(
                manifest.c.repository_id == repository_id, manifest.c.digest == digest
            )
        ).scalar()
        indexed = tx.connection.execute(
            select(search_manifest.c.manifest_id).where(
                search_manifest.c.repository_id == repository_id,
                search_manifest.c.digest == digest,
            )
        ).scalar()
        if id is None:
            batch.gone.add((repository_id, digest))
        elif id != indexed:
            wanted.append(id)
    batch.documents = _documents(tx, wanted)


def _documents(tx: Transaction, ids: Sequence[int]) -> list[Document]:
    found = []
    m = manifest.c
    for batch in batches(list(ids)):
        rows = tx.connection.execute(
            select(
                m.id, m.repository_id, m.digest, m.media_type, m.artifact_type,
                m.config_media_type, m.annotations, m.pushed_at,
            ).where(m.id.in_(batch))
        ).all()  # fmt: skip
        configs = {
            row.manifest_id: (row.store_key, row.size)
            for row in tx.connection.execute(
                select(manifest_blob.c.manifest_id, blob.c.store_key, blob.c.size)
                .join(blob, blob.c.digest == manifest_blob.c.digest)
                .where(
                    manifest_blob.c.manifest_id.in_(batch),
                    manifest_blob.c.role == "config",
                    blob.c.state == LIVE,
                    blob.c.size <= MAX_CONFIG_BYTES,
                )
            )
        }
        indexes = [row.id for row in rows if not row.config_media_type]
        raws = {
            row.id: row.raw
            for row in tx.connection.execute(select(m.id, m.raw).where(m.id.in_(indexes)))
        }
        for row in rows:
            key, size = configs.get(row.id, ("", 0))
            # Only the configuration of an image says what labels and platform are.
            if "image" not in row.config_media_type:
                key = ""
            found.append(
                Document(
                    row.repository_id, row.id, row.digest, row.media_type, row.artifact_type,
                    row.config_media_type, row.annotations, row.pushed_at, raws.get(row.id),
                    key, size,
                )
            )  # fmt: skip
    return found


def _there(tx: Transaction, ids: list[int]) -> set[int]:
    found: set[int] = set()
    for batch in batches(ids):
        query = select(manifest.c.id).where(manifest.c.id.in_(batch))
        found.update(tx.connection.execute(query).scalars())
    return found


def _text(name: str, description: str) -> str:
    return f"/{name}\n{description.lower()}"


def _meet_repositories(tx: Transaction) -> None:
    """Let every repository that there is have its row, so that its name is found."""
    r, s = repository.c, search_repository.c
    newest = select(func.coalesce(func.max(s.repository_id), 0)).scalar_subquery()
    rows = tx.connection.execute(
        select(r.id, r.name, r.created_at).where(r.id > newest).order_by(r.id).limit(1000)
    ).all()
    if rows:
        tx.connection.execute(
            insert(tx, search_repository).on_conflict_do_nothing(),
            [_row(row.id, row.name, row.created_at) for row in rows],
        )


def _row(id: int, name: str, at: int) -> dict[str, object]:
    return {
        "repository_id": id,
        "name": name,
        "text": _text(name, ""),
        "description": "",
        "described_by": 0,
        "updated_at": at,
    }


def _add(tx: Transaction, document: Document, terms: Terms) -> None:
    key = document.repository_id, document.digest
    s = search_manifest.c
    indexed = tx.connection.execute(
        select(s.manifest_id).where(s.repository_id == key[0], s.digest == key[1])
    ).scalar()
    is_other = indexed != document.manifest_id
    _drop_terms(tx, key, kept=frozenset(terms.terms) if not is_other else frozenset())
    name = tx.connection.execute(
        select(repository.c.name).where(repository.c.id == document.repository_id)
    ).scalar()
    if name is None:
        return
    tx.connection.execute(
        insert(tx, search_repository).on_conflict_do_nothing(),
        [_row(document.repository_id, name, document.pushed_at)],
    )
    tx.connection.execute(
        insert(tx, search_manifest).values(
            repository_id=document.repository_id,
            digest=document.digest,
            manifest_id=document.manifest_id,
            terms=dump_terms(terms.terms),
            description=terms.description,
        )
    )
    rows = [
        {
            "kind": kind,
            "value": value,
            "repository_id": document.repository_id,
            "manifest_id": document.manifest_id,
        }
        for kind, value in terms.terms
    ]
    if rows:
        tx.connection.execute(_ADD_TERM(tx), rows)
    tx.connection.execute(
        update(search_repository)
        .where(
            search_repository.c.repository_id == document.repository_id,
            search_repository.c.updated_at < document.pushed_at,
        )
        .values(updated_at=document.pushed_at)
    )
    if terms.description:
        _describe(tx, document.repository_id)


def _drop_terms(tx: Transaction, key: ManifestKey, *, kept: frozenset[Term] = frozenset()) -> None:
    """Take a manifest out, with its terms but those that are `kept`."""
    s = search_manifest.c
    where = (s.repository_id == key[0], s.digest == key[1])
    row = tx.connection.execute(select(s.manifest_id, s.terms).where(*where)).one_or_none()
    if row is None:
        return
    rows = [
        {"of": kind, "text": value, "repository": key[0], "manifest": row.manifest_id}
        for kind, value in load_terms(row.terms)
        if (kind, value) not in kept
    ]
    if rows:
        tx.connection.execute(_DROP_TERM, rows)
    tx.connection.execute(delete(search_manifest).where(*where))


def _take_out(tx: Transaction, key: ManifestKey) -> None:
    present = tx.connection.execute(
        select(manifest.c.id).where(manifest.c.repository_id == key[0], manifest.c.digest == key[1])
    ).scalar()
    s = search_manifest.c
    indexed = tx.connection.execute(
        select(s.manifest_id).where(s.repository_id == key[0], s.digest == key[1])
    ).scalar()
    if indexed is not None and indexed != present:
        _drop_terms(tx, key)
        _describe(tx, key[0])


def _describe(tx: Transaction, repository_id: int) -> None:
    """The description is that of the newest manifest that has one."""
    s, m = search_repository.c, search_manifest.c
    name = tx.connection.execute(select(s.name).where(s.repository_id == repository_id)).scalar()
    if name is None:
        return
    newest = tx.connection.execute(
        select(m.manifest_id, m.description)
        .where(m.repository_id == repository_id, m.description != "")
        .order_by(m.manifest_id.desc())
        .limit(1)
    ).one_or_none()
    id, description = (0, "") if newest is None else newest
    tx.connection.execute(
        update(search_repository)
        .where(s.repository_id == repository_id, s.described_by != id)
        .values(text=_text(name, description), description=description, described_by=id)
    )


def _set_tag(tx: Transaction, key: TagKey) -> None:
    found = tx.connection.execute(_FIND_TAG, {"repository": key[0], "text": key[1]}).first()
    if found is not None:
        row = {"kind": TAG, "value": key[1], "repository_id": key[0], "manifest_id": 0}
        tx.connection.execute(_ADD_TERM(tx), [row])
        return
    gone = {"of": TAG, "text": key[1], "repository": key[0], "manifest": 0}
    tx.connection.execute(_DROP_TERM, [gone])


def _forget_repository(tx: Transaction, id: int) -> None:
    query = select(repository.c.id).where(repository.c.id == id)
    if tx.connection.execute(query).first() is None:
        for table in (search_term, search_manifest, search_repository):
            tx.connection.execute(delete(table).where(table.c.repository_id == id))
