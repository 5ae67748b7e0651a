"""Pulls answered at once: manifests (GET, HEAD) and blobs (HEAD), from the parser's callback.

A blob that is not there as well: a push asks so about each of its blobs.

The same as the handlers in `manifests` and `blobs` do, for requests that have nothing unusual
and whose answer is in a local database: the guard remembers the caller, the account is still what
it was. For all else, every other refusal too, None: then the ordinary way answers.
What is remembered here is only how texts are read and written, never that something exists.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

from ocispec.digest import Digest
from ocispec.distribution.name import RepositoryName, Tag
from ocispec.errors import InvalidDigest, InvalidName
from registry.api import routes
from registry.api.blobs import blob_headers
from registry.api.exchange import Header
from registry.api.manifests import manifest_headers
from registry.api.params import etag_matches
from registry.api.problems import PROBLEM, problem_body, refuse
from registry.api.services import Services
from registry.content.blobs import is_lease_due
from registry.errors import BlobUnknown
from registry.metadata.base import Access
from registry.observe.requests import REQUEST_ID, About
from registry.server.immediate import Answer, Client

# Nothing to decode, no query, nothing that two readers could read in two ways.
_PLAIN = re.compile(rb"/v2/[A-Za-z0-9._:/-]+")
# Texts in the database came from clients.
_VALUE = re.compile(rb"[\x20-\x7e]*")

# A proxy's words about the client and what it saw; a part of a body.
_UNUSUAL = frozenset({b"range", b"if-range"})

_TEXTS = 2048


class Immediate:
    """The registry's responder; `address` says who is behind a proxy."""

    def __init__(
        self,
        services: Services,
        *,
        address: Callable[[Client, Mapping[bytes, bytes]], str] | None = None,
    ) -> None:
        self._reads = services.metadata.immediate
        self._authorise = services.guard.authorise_at_once
        self._observer = services.observer
        self._pulls = services.pulls
        self._always = _lines(services.always)
        self._address = address or direct_address

    def __call__(
        self, method: bytes, path: bytes, fields: Mapping[bytes, bytes], client: Client
    ) -> Answer | None:
        reads = self._reads
        if reads is None or len(path) > routes.MAX_PATH or not _UNUSUAL.isdisjoint(fields):
            return None
        target = _read(path)
        if target is None:
            return None
        name, reference, is_blob = target
        if is_blob and method != b"HEAD":
            return None
        began = time.perf_counter()
        access = self._authorise(
            fields.get(b"authorization"), name, routes.PULL, reads.account, reads.policy_version
        )
        if access is None:
            return None
        condition = fields.get(b"if-none-match")
        if is_blob:
            found = self._blob(access, reference, condition)
        else:
            found = self._manifest(access, reference, condition, method)
        if found is None:
            return None
        status, lines, body = found
        observer = self._observer
        request_id = observer.request_id(fields.get(REQUEST_ID))
        kind = routes.BLOB if is_blob else routes.MANIFEST
        about = None
        if observer.wants_about:
            about = About(
                kind=kind,
                request_id=request_id,
                client=self._address(client, fields),
                path=path,
                subject=access.subject,
                repository=name.text,
                user_agent=fields.get(b"user-agent", b""),
                traceparent=fields.get(b"traceparent", b""),
            )
        seconds = time.perf_counter() - began
        observer.ended(kind, method.decode(), status, seconds, 0, len(body), about)
        return Answer(status, b"%bx-request-id: %b\r\n" % (lines, request_id.encode()), body)

    def _manifest(
        self, access: Access, reference: Tag | Digest, condition: bytes | None, method: bytes
    ) -> Answer | None:
        reads = self._reads
        assert reads is not None
        by_digest = isinstance(reference, Digest)
        if isinstance(reference, Digest):
            found = reads.manifest_by_digest(access, reference)
        else:
            found = reads.manifest_by_tag(access, reference)
        if found is None:
            return None
        digest = str(found.digest)
        if condition is not None and etag_matches(condition, digest):
            status, size, body = 304, None, b""
        else:
            status, size = 200, len(found.raw)
            body = b"" if method == b"HEAD" else found.raw
            if body:
                self._pulls[access.name.text, digest] = None
        fields = _manifest_fields(digest, found.media_type, by_digest, size)
        return None if fields is None else Answer(status, self._always + fields, body)

    def _blob(
        self, access: Access, reference: Tag | Digest, condition: bytes | None
    ) -> Answer | None:
        reads = self._reads
        assert reads is not None and isinstance(reference, Digest)
        record = reads.blob(access, reference)
        if record is None:
            return self._no_blob(access.name, reference)
        if is_lease_due(record):
            return None
        if etag_matches(condition, str(reference)):
            return Answer(304, self._always + _blob_fields(reference, None), b"")
        return Answer(200, self._always + _blob_fields(reference, record.size), b"")

    def _no_blob(self, name: RepositoryName, digest: Digest) -> Answer:
        refusal = refuse(BlobUnknown(name, digest))
        headers = [PROBLEM, *refusal.headers]
        return Answer(
            refusal.status, self._always + _lines(headers, len(problem_body(refusal))), b""
        )


def direct_address(client: Client, fields: Mapping[bytes, bytes]) -> str:
    """Of a client without a proxy."""
    return client[0] if client else ""


@lru_cache(_TEXTS)
def _read(path: bytes) -> tuple[RepositoryName, Tag | Digest, bool] | None:
    """The repository, what is asked for, and whether that is a blob; None for any other path."""
    if _PLAIN.fullmatch(path) is None:
        return None
    target = routes.parse_path(path.decode())
    if target is None or target.kind not in (routes.MANIFEST, routes.BLOB):
        return None
    try:
        name = RepositoryName.parse(target.name)
        if target.kind == routes.BLOB or ":" in target.reference:
            return name, Digest.parse(target.reference), target.kind == routes.BLOB
        return name, Tag.parse(target.reference), False
    except (InvalidName, InvalidDigest):
        return None


@lru_cache(_TEXTS)
def _manifest_fields(
    digest: str, media_type: str, by_digest: bool, size: int | None
) -> bytes | None:
    """The header lines; None if the media type is nothing for a header."""
    if not _VALUE.fullmatch(media_type.encode()):
        return None
    return _lines(manifest_headers(digest, media_type, by_digest=by_digest), size)


@lru_cache(_TEXTS)
def _blob_fields(digest: Digest, size: int | None) -> bytes:
    return _lines(blob_headers(digest), size)


def _lines(headers: list[Header], size: int | None = None) -> bytes:
    fields = headers if size is None else [*headers, (b"content-length", b"%d" % size)]
    return b"".join(name + b": " + value + b"\r\n" for name, value in fields)
