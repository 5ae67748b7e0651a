"""From a request to its handler, and from whatever goes wrong to an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute, Match

from ocispec.distribution.name import RepositoryName
from registry.api import routes
from registry.api.blobs import delete_blob, read_blob
from registry.api.catalog import catalog
from registry.api.exchange import Exchange
from registry.api.extensions import discover, tag_history
from registry.api.manifests import delete_manifest, push_manifest, read_manifest_by_reference
from registry.api.problems import PROBLEM, Refusal, problem_body, refuse
from registry.api.referrers import referrers
from registry.api.routes import Target
from registry.api.tags import list_tags
from registry.api.uploads import (
    append_to_upload,
    begin_upload,
    cancel_upload,
    finish_upload,
    mount_scope,
    upload_status,
)
from registry.api.version import version
from registry.errors import RegistryError
from registry.metadata.base import Access
from registry.server.errors import ClientGone

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from registry.api.immediate import Immediate
    from registry.api.services import Services

# With a repository in the path: the guard gives the handler what it may work with.
_IN_REPOSITORY: dict[tuple[str, str], Callable[[Exchange, Access], Awaitable[None]]] = {
    (routes.MANIFEST, "GET"): read_manifest_by_reference,
    (routes.MANIFEST, "HEAD"): read_manifest_by_reference,
    (routes.MANIFEST, "PUT"): push_manifest,
    (routes.MANIFEST, "DELETE"): delete_manifest,
    (routes.BLOB, "GET"): read_blob,
    (routes.BLOB, "HEAD"): read_blob,
    (routes.BLOB, "DELETE"): delete_blob,
    (routes.UPLOADS, "POST"): begin_upload,
    (routes.UPLOAD, "GET"): upload_status,
    (routes.UPLOAD, "HEAD"): upload_status,
    (routes.UPLOAD, "PATCH"): append_to_upload,
    (routes.UPLOAD, "PUT"): finish_upload,
    (routes.UPLOAD, "DELETE"): cancel_upload,
    (routes.TAGS, "GET"): list_tags,
    (routes.TAGS, "HEAD"): list_tags,
    (routes.REFERRERS, "GET"): referrers,
    (routes.REFERRERS, "HEAD"): referrers,
    (routes.HISTORY, "GET"): tag_history,
    (routes.HISTORY, "HEAD"): tag_history,
}

# Without one: these ask the guard themselves.
_ELSEWHERE: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
    (routes.BASE, "GET"): version,
    (routes.BASE, "HEAD"): version,
    (routes.CATALOG, "GET"): catalog,
    (routes.CATALOG, "HEAD"): catalog,
    (routes.EXTENSIONS, "GET"): discover,
    (routes.EXTENSIONS, "HEAD"): discover,
}

_NO_TARGET = Target("", "", "")


class Opened:
    """Where the lifespan puts the services for the routes to find, and the responder."""

    __slots__ = ("failure", "immediate", "services")

    def __init__(self) -> None:
        self.services: Services | None = None
        self.immediate: Immediate | None = None
        self.failure: RegistryError | None = None

    def get(self) -> Services:
        assert self.services is not None, "the application was not started"
        return self.services


class DistributionRoute(BaseRoute):
    """Everything below `/v2`: one route, because names are read from the right of the path."""

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def matches(self, scope: Scope) -> tuple[Match, dict[str, Any]]:
        found = scope["type"] == "http" and scope["path"].startswith("/v2")
        return (Match.FULL if found else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = routes.parse_path(scope["path"])
        exchange = Exchange(scope, receive, send, target or _NO_TARGET, self._opened.get())
        await answer(exchange, self._serve)

    async def _serve(self, exchange: Exchange) -> None:
        target = exchange.target
        if target is _NO_TARGET:
            raise Refusal(404, "UNSUPPORTED", "this is not a path of the registry API")
        about = exchange.about
        about.kind, about.repository = target.kind, target.name
        key = (target.kind, exchange.method)
        elsewhere = _ELSEWHERE.get(key)
        if elsewhere is not None:
            return await elsewhere(exchange)
        handler = _IN_REPOSITORY.get(key)
        if handler is None:
            raise _not_allowed(target.kind)
        name = RepositoryName.parse(_namespace(exchange) + target.name)
        also = mount_scope(exchange) if target.kind == routes.UPLOADS else ()
        actions = routes.ACTIONS[key]
        access = await exchange.services.guard.authorise(
            exchange, name, actions, also, owns=_upload_owner(exchange)
        )
        about.subject = access.subject
        if routes.DELETE in actions and not exchange.services.settings.delete_enabled:
            raise Refusal(405, "UNSUPPORTED", "deleting is switched off in this registry")
        await handler(exchange, access)


def _namespace(exchange: Exchange) -> str:
    """Where the images of the registry `ns` are kept, if we keep any: a prefix of the name.

    The answer says so. Spec: distribution-spec, "Registry Proxying".
    """
    known = exchange.services.settings.namespaces
    if not known or exchange.method not in ("GET", "HEAD"):
        return ""
    namespace = exchange.query.first("ns")
    if namespace not in known:
        return ""
    exchange.always = [*exchange.always, (b"oci-namespace", namespace.encode("ascii"))]
    return namespace + "/"


def _upload_owner(exchange: Exchange) -> Callable[[Access], Awaitable[bool]] | None:
    """Says whether the upload of this request was begun by the caller."""
    if exchange.target.kind != routes.UPLOAD:
        return None
    hot, upload = exchange.services.metadata.hot, exchange.target.reference

    async def owns(access: Access) -> bool:
        return await hot.upload(access, upload) is not None

    return owns


class PlainRoute(BaseRoute):
    """One fixed path outside of `/v2`."""

    def __init__(
        self,
        path: str,
        methods: dict[str, Callable[[Exchange], Awaitable[None]]],
        opened: Opened,
        kind: str,
    ) -> None:
        self._kind = kind
        self._path = path
        self._methods = methods
        self._opened = opened

    def matches(self, scope: Scope) -> tuple[Match, dict[str, Any]]:
        found = scope["type"] == "http" and scope["path"] == self._path
        return (Match.FULL if found else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, _NO_TARGET, self._opened.get())
        exchange.about.kind = self._kind
        handler = self._methods.get(exchange.method)
        if handler is None:
            allow = ", ".join(self._methods).encode()
            refusal = Refusal(
                405, "UNSUPPORTED", "this method is not possible here", headers=[(b"allow", allow)]
            )
            return await _reply(exchange, refusal)
        await answer(exchange, handler)


async def answer(exchange: Exchange, handler: Callable[[Exchange], Awaitable[None]]) -> None:
    """Run a handler; an error becomes an error document, unless the answer has begun."""
    try:
        await handler(exchange)
    except ClientGone:
        return  # nobody is there to be answered
    except Exception as error:
        refusal = refuse(error, exchange.about.request_id or "-")
        if exchange.started:
            # Too late to say it. An answer that ends early is what tells the client.
            raise
        await _reply(exchange, refusal)


async def not_found(scope: Scope, receive: Receive, send: Send) -> None:
    """What answers paths outside of every route."""
    if scope["type"] != "http":
        raise RuntimeError(f"the registry does not speak {scope['type']}")
    body = problem_body(Refusal(404, "UNSUPPORTED", "nothing is here; the registry is at /v2/"))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-content-type-options", b"nosniff"),
    ]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _not_allowed(kind: str) -> Refusal:
    allow = ", ".join(routes.methods_of(kind)).encode()
    return Refusal(
        405, "UNSUPPORTED", "this method is not possible here", headers=[(b"allow", allow)]
    )


async def _reply(exchange: Exchange, refusal: Refusal) -> None:
    await exchange.reply(
        refusal.status,
        [PROBLEM, *refusal.headers],
        problem_body(refusal),
    )
