"""The error codes of the distribution API, and the JSON body that carries them.

Spec: distribution-spec, "Error Codes".
"""

from __future__ import annotations

import json
import re

from ocispec.errors import InvalidDocument
from ocispec.jsondoc import parse_object
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

BLOB_UNKNOWN = "BLOB_UNKNOWN"
BLOB_UPLOAD_INVALID = "BLOB_UPLOAD_INVALID"
BLOB_UPLOAD_UNKNOWN = "BLOB_UPLOAD_UNKNOWN"
DIGEST_INVALID = "DIGEST_INVALID"
MANIFEST_BLOB_UNKNOWN = "MANIFEST_BLOB_UNKNOWN"
MANIFEST_INVALID = "MANIFEST_INVALID"
MANIFEST_UNKNOWN = "MANIFEST_UNKNOWN"
NAME_INVALID = "NAME_INVALID"
NAME_UNKNOWN = "NAME_UNKNOWN"
SIZE_INVALID = "SIZE_INVALID"
UNAUTHORIZED = "UNAUTHORIZED"
DENIED = "DENIED"
UNSUPPORTED = "UNSUPPORTED"
TOOMANYREQUESTS = "TOOMANYREQUESTS"

# For a peer's error that has no code, or not one that looks like a code.
UNKNOWN = "UNKNOWN"

# The HTTP status that goes with a code when nothing more special is known: a manifest that is too
# large is MANIFEST_INVALID with 413, a chunk at the wrong offset BLOB_UPLOAD_INVALID with 416.
STATUS: Mapping[str, int] = {
    BLOB_UNKNOWN: 404,
    BLOB_UPLOAD_INVALID: 400,
    BLOB_UPLOAD_UNKNOWN: 404,
    DIGEST_INVALID: 400,
    MANIFEST_BLOB_UNKNOWN: 400,
    MANIFEST_INVALID: 400,
    MANIFEST_UNKNOWN: 404,
    NAME_INVALID: 400,
    NAME_UNKNOWN: 404,
    SIZE_INVALID: 400,
    UNAUTHORIZED: 401,
    DENIED: 403,
    UNSUPPORTED: 405,
    TOOMANYREQUESTS: 429,
}

# What the spec says each code means: the message when there is no better one.
MESSAGES: Mapping[str, str] = {
    BLOB_UNKNOWN: "blob unknown to registry",
    BLOB_UPLOAD_INVALID: "blob upload invalid",
    BLOB_UPLOAD_UNKNOWN: "blob upload unknown to registry",
    DIGEST_INVALID: "provided digest did not match uploaded content",
    MANIFEST_BLOB_UNKNOWN: "manifest references a manifest or blob unknown to registry",
    MANIFEST_INVALID: "manifest invalid",
    MANIFEST_UNKNOWN: "manifest unknown to registry",
    NAME_INVALID: "invalid repository name",
    NAME_UNKNOWN: "repository name not known to registry",
    SIZE_INVALID: "provided length did not match content length",
    UNAUTHORIZED: "authentication required",
    DENIED: "requested access to the resource is denied",
    UNSUPPORTED: "the operation is unsupported",
    TOOMANYREQUESTS: "too many requests",
}

# Of a peer's error body: how much is read, how many problems and how much of each is kept.
MAX_BODY_BYTES = 64 * 1024
_MAX_PROBLEMS = 20
_MAX_MESSAGE = 1000


@value
class Problem:
    """One thing that went wrong with a request.

    code: one of the codes above, or of a peer's own: capital letters and `_`.
    message: one line for a person, no control characters if it came from `parse_problems`.
    detail: JSON of the server's own choosing, or None.
    """

    code: str
    message: str = ""
    detail: Any = None

    def __str__(self) -> str:
        return f"{self.message or MESSAGES.get(self.code, 'error')} ({self.code})"


def problem_body(problems: Iterable[Problem]) -> bytes:
    """The JSON body of an error response; a problem without a message gets its code's own."""
    errors = []
    for problem in problems:
        error = {"code": problem.code, "message": problem.message or MESSAGES.get(problem.code, "")}
        if problem.detail is not None:
            error["detail"] = problem.detail
        errors.append(error)
    return json.dumps({"errors": errors}, separators=(",", ":")).encode("ascii")


def parse_problems(raw: bytes, limit: int = MAX_BODY_BYTES) -> tuple[Problem, ...]:
    """What a peer's error body says; nothing if it is longer than `limit` or not such a body.

    Never raises: the status of the response is the error, this only explains it. Also reads what
    token servers send: OAuth 2 errors, and Docker Hub's `details`.
    """
    try:
        body = parse_object(raw, limit=limit, depth=16, what="error body")
    except InvalidDocument:
        return ()
    errors = body.get("errors")
    if isinstance(errors, list):
        problems = (_problem(error) for error in errors[:_MAX_PROBLEMS])
        return tuple(problem for problem in problems if problem is not None)
    for name in ("error_description", "details", "message", "error"):
        if isinstance(body.get(name), str) and body[name]:
            return (Problem(UNKNOWN, _printable(body[name])),)
    return ()


def _problem(error: object) -> Problem | None:
    if not isinstance(error, dict):
        return None
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str) or not re.fullmatch(r"[A-Z_]{1,64}", code):
        code = UNKNOWN
    text = _printable(message) if isinstance(message, str) else ""
    return Problem(code, text or MESSAGES.get(code, ""), error.get("detail"))


def _printable(text: str) -> str:
    # A message ends on a terminal, where an escape sequence could rewrite what was printed.
    shown = "".join(c if c.isprintable() else " " for c in text[:_MAX_MESSAGE])
    return " ".join(shown.split())
