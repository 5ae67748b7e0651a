"""`/v2/<name>/blobs/<digest>`: GET, HEAD and DELETE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocispec.digest import Digest
from ocispec.distribution.ranges import ByteRange, RangeNotSatisfiable, parse_range
from ocispec.errors import InvalidHeader
from registry.api.exchange import Header
from registry.api.params import etag_matches, parse_digest
from registry.api.problems import Refusal
from registry.metadata.base import Access
from registry.server.extensions import send_blob

if TYPE_CHECKING:
    from registry.api.exchange import Exchange

# The bytes of a digest never change. Private: who may read them is decided anew each time.
CACHE_FOR_A_YEAR = (b"cache-control", b"private, max-age=31536000, immutable")

# A blob is what its pusher wanted; shown in a browser it must not run in our origin.
_OPAQUE = [
    (b"content-type", b"application/octet-stream"),
    (b"accept-ranges", b"bytes"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    CACHE_FOR_A_YEAR,
]


async def read_blob(exchange: Exchange, access: Access) -> None:
    """GET and HEAD. Spec: distribution-spec, end-2; ranges as in RFC 9110, 14."""
    digest = parse_digest(exchange.target.reference)
    headers = blob_headers(digest)
    if exchange.method == "HEAD":
        record = await exchange.services.blobs.find(access, digest)
        if etag_matches(exchange.header(b"if-none-match"), str(digest)):
            return await exchange.reply(304, headers)
        return await exchange.reply_head(200, headers, record.size)
    blobs = exchange.services.blobs
    if blobs.redirects and (url := await blobs.url(access, digest)) is not None:
        if etag_matches(exchange.header(b"if-none-match"), str(digest)):
            return await exchange.reply(304, headers)
        return await exchange.reply(307, _elsewhere(url, digest))
    with await blobs.open(access, digest) as blob:
        if etag_matches(exchange.header(b"if-none-match"), str(digest)):
            return await exchange.reply(304, headers)
        wanted = _wanted_range(exchange, digest, blob.size)
        offset, count, status = 0, blob.size, 200
        if wanted is not None:
            offset, count, status = wanted.start, wanted.stop - wanted.start, 206
            headers.append(
                (
                    b"content-range",
                    b"bytes %d-%d/%d" % (wanted.start, wanted.stop - 1, blob.size),
                )
            )
        await blobs.prepare(access, digest, blob, offset, count)
        exchange.started = True
        await send_blob(
            exchange.scope,
            exchange.receive,
            exchange.send,
            blob=blob,
            offset=offset,
            count=count,
            status=status,
            headers=exchange.with_always(headers),
        )


async def delete_blob(exchange: Exchange, access: Access) -> None:
    """Spec: distribution-spec, end-10."""
    await exchange.services.blobs.remove(access, parse_digest(exchange.target.reference))
    await exchange.reply(202)


def _elsewhere(url: str, digest: Digest) -> list[Header]:
    """The address is a key to the bytes for some minutes: nobody may keep it."""
    return [
        (b"location", url.encode("ascii")),
        (b"docker-content-digest", str(digest).encode()),
        (b"cache-control", b"no-store"),
    ]


def blob_headers(digest: Digest) -> list[Header]:
    """Of every answer with a blob or about one, apart from its size."""
    text = str(digest).encode()
    return [*_OPAQUE, (b"docker-content-digest", text), (b"etag", b'"' + text + b'"')]


def _wanted_range(exchange: Exchange, digest: Digest, size: int) -> ByteRange | None:
    """The part asked for, None for all of it. A stale If-Range asks for all."""
    header = exchange.header(b"range")
    if header is None:
        return None
    if_range = exchange.header(b"if-range")
    if if_range is not None and if_range.strip() != b'"' + str(digest).encode() + b'"':
        return None
    try:
        return parse_range(header.decode("latin-1"), size)
    except RangeNotSatisfiable as error:
        raise Refusal(
            416,
            "SIZE_INVALID",
            str(error),
            headers=[(b"content-range", b"bytes */%d" % size)],
        ) from error
    except InvalidHeader as error:
        raise Refusal(400, "SIZE_INVALID", str(error)) from error
