"""Where errors become HTTP: one table from what went wrong to status and code.

Handlers raise `Refusal` for what the protocol itself forbids; everything below raises its own
errors, and only this module knows what they look like to a client.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from ocispec.errors import DigestMismatch, InvalidDigest, InvalidDocument, InvalidName, SpecError
from registry import errors as domain
from registry.auth.guard import LoginRequired
from registry.observe.counts import FAILURES
from registry.server import errors as body
from registry.storage import errors as storage

log = logging.getLogger("pyreg.registry")

Header = tuple[bytes, bytes]

#: Of every error document.
PROBLEM: Header = (b"content-type", b"application/json")
RETRY_AFTER: tuple[Header, ...] = ((b"retry-after", b"1"),)
CLOSE: tuple[Header, ...] = ((b"connection", b"close"),)


class Refusal(Exception):
    """An answer that ends the request: status, a code of the spec, and words for a person."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: object = None,
        headers: Iterable[Header] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = tuple(headers)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    code: str
    headers: tuple[Header, ...] = ()


# The first class that fits decides, so the special stands before the general.
_TABLE: tuple[tuple[type[Exception], _Answer], ...] = (
    (domain.NameUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.ManifestUnknown, _Answer(404, "MANIFEST_UNKNOWN")),
    (domain.NotRestorable, _Answer(404, "MANIFEST_UNKNOWN")),
    (domain.NothingToUndo, _Answer(404, "MANIFEST_UNKNOWN")),
    (domain.TagMoved, _Answer(409, "DENIED")),
    (domain.NotAcknowledged, _Answer(409, "DENIED")),
    (domain.BlobUnknown, _Answer(404, "BLOB_UNKNOWN")),
    (domain.UploadUnknown, _Answer(404, "BLOB_UPLOAD_UNKNOWN")),
    (domain.ManifestBlobUnknown, _Answer(400, "MANIFEST_BLOB_UNKNOWN")),
    (domain.ManifestInvalid, _Answer(400, "MANIFEST_INVALID")),
    (domain.UploadContended, _Answer(409, "BLOB_UPLOAD_INVALID")),
    (domain.UploadInvalid, _Answer(400, "BLOB_UPLOAD_INVALID")),
    (domain.DigestMismatched, _Answer(400, "DIGEST_INVALID")),
    (domain.RangeMismatch, _Answer(416, "BLOB_UPLOAD_INVALID")),
    (domain.SizeMismatch, _Answer(400, "SIZE_INVALID")),
    (domain.TooLarge, _Answer(413, "SIZE_INVALID")),
    (domain.Unsupported, _Answer(405, "UNSUPPORTED")),
    (domain.Unauthenticated, _Answer(401, "UNAUTHORIZED")),
    (domain.TooManyRequests, _Answer(429, "TOOMANYREQUESTS")),
    # 405 as others answer it: the method is not possible on this blob as long as it is in use.
    (domain.BlobReferenced, _Answer(405, "DENIED")),
    (domain.Denied, _Answer(403, "DENIED")),
    (domain.DigestUnknown, _Answer(404, "MANIFEST_UNKNOWN")),
    (domain.AccountUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.GroupUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.TokenUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.SessionUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.QuotaUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.RuleUnknown, _Answer(404, "NAME_UNKNOWN")),
    (domain.PolicyChanged, _Answer(412, "DENIED")),
    (domain.AccountExists, _Answer(409, "DENIED")),
    (domain.GroupExists, _Answer(409, "DENIED")),
    (domain.LastAdministrator, _Answer(409, "DENIED")),
    (domain.AccountError, _Answer(400, "UNSUPPORTED")),
    (domain.StorageFull, _Answer(507, "UNAVAILABLE", CLOSE)),
    (domain.Unavailable, _Answer(503, "UNAVAILABLE", RETRY_AFTER)),
    (domain.DatabaseUnusable, _Answer(503, "UNAVAILABLE", RETRY_AFTER)),
    # Something that the data ask for is not installed, or not set.
    (domain.InvalidSettings, _Answer(503, "UNAVAILABLE")),
    (storage.BlobMissing, _Answer(404, "BLOB_UNKNOWN")),
    (storage.UploadUnknown, _Answer(404, "BLOB_UPLOAD_UNKNOWN")),
    (storage.UploadBusy, _Answer(409, "BLOB_UPLOAD_INVALID")),
    (storage.OffsetMismatch, _Answer(416, "BLOB_UPLOAD_INVALID")),
    (storage.StorageFull, _Answer(507, "UNAVAILABLE", CLOSE)),
    (storage.StorageFailed, _Answer(503, "UNAVAILABLE", CLOSE + RETRY_AFTER)),
    (body.ClientStalled, _Answer(408, "BLOB_UPLOAD_INVALID", CLOSE)),
    (body.MalformedBody, _Answer(400, "BLOB_UPLOAD_INVALID", CLOSE)),
    (body.BodyTooLarge, _Answer(413, "SIZE_INVALID", CLOSE)),
    (InvalidDigest, _Answer(400, "DIGEST_INVALID")),
    (DigestMismatch, _Answer(400, "DIGEST_INVALID")),
    (InvalidName, _Answer(400, "NAME_INVALID")),
    (InvalidDocument, _Answer(400, "MANIFEST_INVALID")),
    (SpecError, _Answer(400, "UNSUPPORTED")),
)

# What an operator must hear of, though it is answered.
_LOGGED = (
    domain.StorageFull,
    storage.StorageFull,
    storage.StorageFailed,
    storage.BlobMissing,
    domain.DatabaseBusy,
    domain.DatabaseUnreachable,
    domain.DatabaseFailed,
    domain.DatabaseUnusable,
)


def refuse(error: Exception, request_id: str = "-") -> Refusal:
    """What to answer for an error; 500 without a word about it if it is none we know.

    The id is what the client was told in X-Request-Id: it leads from there to the log.
    """
    if isinstance(error, Refusal):
        return error
    for kind, answer in _TABLE:
        if isinstance(error, kind):
            if isinstance(error, _LOGGED):
                log.error("request %s: %s", request_id, error)
                FAILURES.add(type(error).__name__)
            return Refusal(
                answer.status,
                answer.code,
                str(error),
                detail=_detail(error),
                headers=[*answer.headers, *_more(error)],
            )
    FAILURES.add("unexpected")
    log.error("request %s failed: %s", request_id, type(error).__name__, exc_info=error)
    return Refusal(500, "UNKNOWN", "the registry failed; its log says why", headers=CLOSE)


def problem_body(refusal: Refusal) -> bytes:
    """The error document of the Distribution spec, with one error in it."""
    error: dict[str, object] = {"code": refusal.code, "message": str(refusal)}
    if refusal.detail is not None:
        error["detail"] = refusal.detail
    return json.dumps({"errors": [error]}, separators=(",", ":")).encode()


def _more(error: Exception) -> list[Header]:
    if isinstance(error, LoginRequired):
        return [(b"www-authenticate", error.challenge.format().encode("latin-1"))]
    if isinstance(error, domain.TooManyRequests):
        return [(b"retry-after", b"%d" % error.after_s)]
    return []


def _detail(error: Exception) -> object:
    """Facts for programs: what is missing, where an upload ends."""
    if isinstance(error, domain.ManifestBlobUnknown):
        return {"digests": list(error.digests)}
    if isinstance(error, domain.RangeMismatch | storage.OffsetMismatch):
        return {"expected": error.expected, "found": error.found}
    if isinstance(error, domain.DigestMismatched):
        return {"expected": error.expected, "found": error.found}
    return None
