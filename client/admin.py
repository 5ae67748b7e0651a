"""The administration API of a pyreg registry: one small interface, whatever carries it.

`HttpCarrier` goes to a registry with the stored login. Another carrier, in process, is made by
whoever may import the server.
"""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from client.errors import Denied, NotFound, ProtocolError, RegistryError, TooManyRequests
from client.transport import fail
from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Protocol

    from client.remote import Registry

    class Carrier(Protocol):
        """Takes one request below the API's prefix to a registry."""

        where: str

        def send(
            self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
        ) -> Reply: ...


PREFIX = "/api/v1"
SCOPES = frozenset({"registry:api:*"})
MAX_ANSWER_BYTES = 16 << 20
MAX_PAGES = 10_000
PAGE = 1000


@value
class Reply:
    """An answer, read whole. Header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str:
        return self.headers.get(name.lower(), "")


class Conflict(RegistryError):
    """It exists already, or somebody changed it meanwhile."""


class AdminRefused(RegistryError):
    """The registry says what is wrong with the request."""


class Admin:
    """Calls of the administration API. Paths are below /api/v1; `path_of` makes them.

    Every method raises NotFound, Denied, Conflict, AdminRefused and the client's other errors.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self.warnings: list[str] = []

    @property
    def where(self) -> str:
        """Which registry this is, for messages."""
        return self._carrier.where

    def get(self, path: str, **query: object) -> Any:
        return self.call("GET", path, query=query)[0]

    def post(self, path: str, document: Mapping[str, object] | None = None, **query: object) -> Any:
        return self.call("POST", path, document, query=query)[0]

    def put(
        self, path: str, document: Mapping[str, object] | None = None, *, etag: str = ""
    ) -> Any:
        """`etag` as `get_with_etag` gave it: refused with Conflict if it is another one now."""
        return self.call("PUT", path, document, etag=etag)[0]

    def patch(self, path: str, document: Mapping[str, object]) -> Any:
        return self.call("PATCH", path, document)[0]

    def delete(self, path: str, **query: object) -> Any:
        return self.call("DELETE", path, query=query)[0]

    def get_with_etag(self, path: str) -> tuple[Any, str]:
        document, reply = self.call("GET", path)
        return document, reply.header("ETag").strip('"')

    def items(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every item of a listing, a page at a time. Raises: ProtocolError if it does not end."""
        target = _target(path, {"n": PAGE, **query})
        seen: set[str] = set()
        for _ in range(MAX_PAGES):
            seen.add(target)
            document, reply = self._ask("GET", target, {}, None)
            items = document.get("items") if isinstance(document, dict) else None
            if not isinstance(items, list):
                raise ProtocolError(f"{self.where} sent a listing without items")
            yield from items
            target = _next(reply.header("Link"))
            if not target:
                return
            if target in seen or not target.startswith(PREFIX + "/"):
                raise ProtocolError(f"{self.where} sent a listing that goes in circles")
        raise ProtocolError(f"{self.where} sent a listing that does not end")

    def call(
        self,
        method: str,
        path: str,
        document: Mapping[str, object] | None = None,
        *,
        query: Mapping[str, object] | None = None,
        etag: str = "",
    ) -> tuple[Any, Reply]:
        """Any request; the parsed answer (None for none) and the reply itself."""
        headers = {"If-Match": f'"{etag}"'} if etag else {}
        body = None
        if document is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(document).encode()
        return self._ask(method, _target(path, query or {}), headers, body)

    def _ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[Any, Reply]:
        reply = self._carrier.send(method, target, headers, body)
        warning = reply.header("Warning")
        if warning and warning not in self.warnings:
            self.warnings.append(warning)
        try:
            document = json.loads(reply.body) if reply.body else None
        except (ValueError, RecursionError):
            document = None
        if reply.status >= 300:
            raise self._error(reply, document)
        if reply.body and document is None:
            raise ProtocolError(f"{self.where} sent an answer that is no JSON")
        return document, reply

    def _error(self, reply: Reply, document: Any) -> RegistryError:
        status = reply.status
        known = isinstance(document, dict) and "detail" in document
        if not known:
            hint = "is it a pyreg registry, of a version with /api/v1?" if status == 404 else ""
            return ProtocolError(
                f"{self.where} answered {status} to a call of the administration API",
                registry=self.where,
                status=status,
                hint=hint,
            )
        problems = [str(each) for each in document.get("problems") or ()]
        message = "; ".join(problems) or str(document["detail"])
        kinds: dict[int, type[RegistryError]] = {
            403: Denied,
            404: NotFound,
            409: Conflict,
            412: Conflict,
            429: TooManyRequests,
        }
        return kinds.get(status, AdminRefused)(
            message[:1000],
            registry=self.where,
            status=status,
            hint=str(document.get("hint") or "")[:500],
        )


class HttpCarrier:
    """To a registry over HTTP, with the login that is stored for it."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.where = registry.name

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        # A POST that was lost may have made something: it is not sent again.
        attempts = 1 if method == "POST" else None
        with self._registry.request(
            method, target, scopes=SCOPES, headers=headers, body=body, attempts=attempts
        ) as response:
            if response.status == 401:
                raise fail(response, f"administration of {self.where}", self.where)
            fields = {
                name: response.header(name)
                for name in ("content-type", "etag", "link", "warning", "retry-after")
            }
            return Reply(
                response.status, fields, response.read(MAX_ANSWER_BYTES, "an answer of the API")
            )


def path_of(*parts: str) -> str:
    """A path below the prefix; each part is one segment, however it is written.

    `path_of("repositories", name, "_tags", tag)`: the slashes of a repository's name become %2F,
    which says the same.
    """
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _target(path: str, query: Mapping[str, object]) -> str:
    given = {name: _text(each) for name, each in query.items() if each is not None}
    return f"{PREFIX}{path}" + (f"?{urlencode(given)}" if given else "")


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _next(link: str) -> str:
    """The target of `<...>; rel="next"`; empty if there is none."""
    target, _, rel = link.partition(">")
    return target.lstrip(" <") if 'rel="next"' in rel else ""
