"""Errors of the administration API: `application/problem+json`.

What an error is answered with is in the one table of `registry.api.problems`; only the document is
another. Spec: RFC 9457.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from registry.api.problems import Refusal, refuse
from registry.api.v1.shapes import NotInShape, write

PROBLEM_JSON = b"application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, in the form of RFC 9457."""

    #: What `status` is called.
    title: str
    status: int
    #: One sentence about this case.
    detail: str
    #: What to try; may be empty.
    hint: str
    #: For programs, as the Distribution API calls it.
    code: str
    #: Leads to the entry in the registry's log.
    request_id: str
    #: Everything that is wrong with a request, one line each.
    problems: tuple[str, ...] = ()


def refusal_of(error: Exception, request_id: str) -> tuple[Refusal, str]:
    """What to answer for an error, and the hint for the caller."""
    if isinstance(error, NotInShape):
        return Refusal(400, "UNSUPPORTED", error.problems[0], detail=list(error.problems)), ""
    hint = getattr(error, "hint", "")
    return refuse(error, request_id), hint if isinstance(hint, str) else ""


def problem_of(refusal: Refusal, hint: str, request_id: str) -> bytes:
    """The document."""
    problems = refusal.detail if isinstance(refusal.detail, list) else []
    try:
        title = HTTPStatus(refusal.status).phrase
    except ValueError:
        title = "Error"
    problem = Problem(
        title=title,
        status=refusal.status,
        detail=str(refusal),
        hint=hint,
        code=refusal.code,
        request_id=request_id,
        problems=tuple(str(each) for each in problems),
    )
    return json.dumps(write(problem), separators=(",", ":")).encode()
