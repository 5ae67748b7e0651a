"""What this registry is, who is asking, and the document of the API itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from registry.api.v1.call import Call
from registry.api.v1.table import Endpoint, Who

API_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Version:
    """Of the API; it grows within a version and breaks nothing."""

    name: Literal["pyreg"]
    api: str


@dataclass(frozen=True, slots=True)
class Me:
    """Whom the registry takes the caller for."""

    #: Empty where the registry asks nobody to log in, and on its own machine.
    name: str
    role: str
    administrator: bool


async def version(call: Call) -> Version:
    return Version("pyreg", API_VERSION)


async def me(call: Call) -> Me:
    subject = call.caller.subject
    name = "" if call.is_local else subject.name
    return Me(name, subject.role, call.is_admin)


async def openapi(call: Call) -> dict[str, Any]:
    return _document()


@cache
def _document() -> dict[str, Any]:
    from registry.api.v1.endpoints import TABLE
    from registry.api.v1.openapi import document

    return document(TABLE, API_VERSION)


@dataclass(frozen=True, slots=True)
class OpenApiDocument:
    """An OpenAPI 3.1 document."""

    openapi: str


ENDPOINTS = (
    Endpoint("GET", "/version", version, Who.ANYBODY, "Say what serves this API", Version),
    Endpoint("GET", "/me", me, Who.ACCOUNT, "Say who is asking", Me),
    Endpoint(
        "GET", "/openapi.json", openapi, Who.ANYBODY, "Describe this API", OpenApiDocument,
    ),
)  # fmt: skip
