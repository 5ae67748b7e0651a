"""`/v2/<name>/blobs/uploads/`: every way to push a blob.

POST                       an empty upload                     docker, podman, containerd, …
POST ?mount=&from=         hold what another repository holds
POST ?digest= + body       the whole blob at once
PATCH + body               append, chunked or with a length    docker, podman, crane
PUT ?digest= [+ body]      the last piece, if any, and the end
GET, HEAD                  how far it is
DELETE                     give up
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocispec.digest import SIZES, Digest
from ocispec.distribution.name import RepositoryName
from ocispec.distribution.ranges import parse_content_range
from ocispec.distribution.scope import PULL, REPOSITORY, Scope
from ocispec.errors import InvalidHeader, InvalidName
from registry.api.exchange import Header
from registry.api.params import parse_digest
from registry.api.problems import Refusal
from registry.errors import BlobUnknown, RangeMismatch
from registry.metadata.base import Access, BlobRecord
from registry.server.extensions import Sink, receive_into
from registry.storage.errors import OffsetMismatch

if TYPE_CHECKING:
    from registry.api.exchange import Exchange


async def begin_upload(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-4a, 4b, 4c and 11."""
    query = exchange.query
    if (mounted := query.first("mount")) is not None:
        blob = await _mount(exchange, access, parse_digest(mounted))
        if blob is not None:
            return await _created(exchange, access, blob.digest)
    elif (text := query.first("digest")) is not None:
        digest = parse_digest(text)
        await exchange.services.uploads.store(
            access, digest, _body(exchange), size=exchange.content_length()
        )
        return await _created(exchange, access, digest)
    algorithm = query.first("digest-algorithm") or "sha256"
    if algorithm not in SIZES:
        known = ", ".join(SIZES)
        raise Refusal(400, "DIGEST_INVALID", f"the digest algorithm must be one of {known}")
    record = await exchange.services.uploads.begin(access, algorithm=algorithm)
    await exchange.reply(202, _progress(access, record.id, 0))


async def upload_status(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-13."""
    upload = exchange.target.reference
    size = await exchange.services.uploads.size(access, upload)
    await exchange.reply(204, _progress(access, upload, size))


async def append_to_upload(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-5; without Content-Range as docker does it."""
    upload = exchange.target.reference
    start, size = _piece(exchange)
    try:
        total = await exchange.services.uploads.append(
            access, upload, _body(exchange), start=start, size=size
        )
    except (OffsetMismatch, RangeMismatch) as error:
        raise _out_of_order(access, upload, error) from error
    await exchange.reply(202, _progress(access, upload, total))


async def finish_upload(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-6."""
    upload = exchange.target.reference
    text = exchange.query.first("digest")
    if text is None:
        raise Refusal(400, "DIGEST_INVALID", "the digest parameter is missing")
    digest = parse_digest(text)
    start, size = _piece(exchange)
    try:
        await exchange.services.uploads.finish(
            access,
            upload,
            digest,
            _body(exchange) if exchange.has_body() else None,
            start=start,
            size=size,
        )
    except (OffsetMismatch, RangeMismatch) as error:
        raise _out_of_order(access, upload, error) from error
    await _created(exchange, access, digest)


async def cancel_upload(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-14."""
    await exchange.services.uploads.cancel(access, exchange.target.reference)
    await exchange.reply(204)


def mount_scope(exchange: Exchange) -> tuple[Scope, ...]:
    """What a mount needs besides the right to push, for the challenge."""
    source = exchange.query.first("from")
    if not source:
        return ()
    try:
        return (Scope(REPOSITORY, RepositoryName.parse(source).text, frozenset({PULL})),)
    except InvalidName:
        return ()


async def _mount(exchange: Exchange, access: Access, digest: Digest) -> BlobRecord | None:
    """The mounted blob, or None where an ordinary upload must do: unknown, or not readable.

    Which of the two it is must not show: a digest would tell what other repositories hold.
    """
    guard, blobs = exchange.services.guard, exchange.services.blobs
    source = exchange.query.first("from")
    if not source:
        return await blobs.mount_from_any(access, digest, await guard.readable_by(exchange))
    try:
        name = RepositoryName.parse(source)
    except InvalidName:
        return None
    readable = await guard.source_of_mount(exchange, name)
    if readable is None:
        return None
    try:
        return await blobs.mount(access, digest, readable)
    except BlobUnknown:
        return None


def _body(exchange: Exchange):  # type: ignore[no-untyped-def]
    async def give(sink: Sink) -> int:
        return await receive_into(exchange.scope, exchange.receive, sink)

    return give


def _piece(exchange: Exchange) -> tuple[int | None, int | None]:
    """Where the body begins in the upload and how long it is, each None if nobody says."""
    length = exchange.content_length()
    header = exchange.header_text(b"content-range")
    if not header:
        return None, length
    try:
        start, end = parse_content_range(header)
    except InvalidHeader as error:
        raise Refusal(400, "BLOB_UPLOAD_INVALID", str(error)) from error
    size = end - start + 1
    if length is not None and length != size:
        if length == 0 and exchange.method == "PUT":
            return start, 0
        raise Refusal(
            400, "SIZE_INVALID", f"Content-Range names {size} bytes, Content-Length {length}"
        )
    return start, size


def _out_of_order(access: Access, upload: str, error: OffsetMismatch | RangeMismatch) -> Refusal:
    return Refusal(
        416,
        "BLOB_UPLOAD_INVALID",
        str(error),
        detail={"expected": error.expected, "found": error.found},
        headers=_progress(access, upload, error.expected),
    )


def _progress(access: Access, upload: str, size: int) -> list[Header]:
    return [
        (b"location", f"/v2/{access.name}/blobs/uploads/{upload}".encode()),
        (b"range", b"0-%d" % max(size - 1, 0)),
        (b"docker-upload-uuid", upload.encode()),
    ]


async def _created(exchange: Exchange, access: Access, digest: Digest) -> None:
    await exchange.reply(
        201,
        [
            (b"location", f"/v2/{access.name}/blobs/{digest}".encode()),
            (b"docker-content-digest", str(digest).encode()),
        ],
    )
