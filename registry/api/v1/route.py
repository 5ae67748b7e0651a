"""From a request below `/api/v1` to the handler that the table names, and to its answer."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.routing import BaseRoute, Match

from ocispec.distribution.name import RepositoryName
from ocispec.errors import InvalidDocument
from ocispec.jsondoc import parse_object
from registry.api.exchange import JSON, Exchange, Header
from registry.api.params import etag_matches, next_link
from registry.api.problems import Refusal
from registry.api.routes import Target
from registry.api.v1.call import Call, Paging
from registry.api.v1.endpoints import TABLE
from registry.api.v1.failures import PROBLEM_JSON, problem_of, refusal_of
from registry.api.v1.shapes import NotInShape, read, read_texts, write
from registry.api.v1.table import PREFIX, Answer, Endpoint, Listing, On, Who
from registry.auth.rules import ADMIN
from registry.errors import Denied
from registry.server.errors import ClientGone

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from registry.api.dispatch import Opened
    from registry.auth.guard import Caller
    from registry.metadata.base import Access

MAX_PATH = 1024
MAX_DEPTH = 12

_NO_TARGET = Target("", "", "")
# Answers are about accounts: no cache may keep them.
_NOT_KEPT: Header = (b"cache-control", b"no-store")


class ApiRoute(BaseRoute):
    """Everything below `/api/v1`.

    local: who asks, if not the request says so: the administrator of the machine, in process.
    """

    def __init__(self, opened: Opened, *, local: Caller | None = None) -> None:
        self._opened = opened
        self._local = local

    def matches(self, scope: Scope) -> tuple[Match, dict[str, Any]]:
        path = scope["path"] if scope["type"] == "http" else ""
        found = path == PREFIX or path.startswith(f"{PREFIX}/")
        return (Match.FULL if found else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, _NO_TARGET, self._opened.get())
        exchange.about.kind = "api"
        try:
            await self._serve(exchange)
        except ClientGone:
            return  # nobody is there to be answered
        except Exception as error:
            request_id = exchange.about.request_id
            refusal, hint = refusal_of(error, request_id or "-")
            if exchange.started:
                raise
            headers = [(b"content-type", PROBLEM_JSON), _NOT_KEPT, *refusal.headers]
            await exchange.reply(refusal.status, headers, problem_of(refusal, hint, request_id))

    async def _serve(self, exchange: Exchange) -> None:
        endpoint, parameters = _find(exchange)
        caller, is_admin, access = await self._authorise(exchange, endpoint, parameters)
        exchange.about.subject = caller.subject.name
        paging, query = _read_query(exchange, endpoint)
        call = Call(
            exchange=exchange,
            parameters=parameters,
            caller=caller,
            is_admin=is_admin,
            is_local=self._local is not None,
            paging=paging,
            _access=access,
            _body=await _read_body(exchange, endpoint),
            _query=query,
        )
        await _reply(call, endpoint, await endpoint.handler(call))

    async def _authorise(
        self, exchange: Exchange, endpoint: Endpoint, parameters: dict[str, str]
    ) -> tuple[Caller, bool, Access | None]:
        """Raises: LoginRequired; Denied, before anything was looked up."""
        guard = exchange.services.guard
        if self._local is not None:
            caller, is_admin = self._local, True
            await guard.look()
        else:
            needs_login = endpoint.may is not Who.ANYBODY and not isinstance(endpoint.may, On)
            caller = await guard.authorise_api(exchange, needs_login=needs_login)
            is_admin = guard.administers(caller)
        access: Access | None = None
        match endpoint.may:
            case On(action):
                name = RepositoryName.parse(parameters["repository"])
                exchange.about.repository = name.text
                access = guard.access_of(caller, name)
                allowed = is_admin or action in access.actions
                if not allowed and not (action == ADMIN and guard.may(caller, action, name.text)):
                    raise guard.denied(exchange, caller, action, name.text)
            case Who.ADMIN if not is_admin:
                raise _beyond(endpoint, caller, "it takes an administrator of the registry")
            case Who.OWN if not is_admin and parameters["account"] != caller.subject.name:
                raise _beyond(endpoint, caller, "that is another account")
        return caller, is_admin, access


def _beyond(endpoint: Endpoint, caller: Caller, why: str) -> Denied:
    what = endpoint.summary.partition(";")[0]
    message = f"{caller.subject.name} may not do this: {what.lower()}; {why}"
    return Denied(endpoint.name, "this registry", message=message)


def _find(exchange: Exchange) -> tuple[Endpoint, dict[str, str]]:
    path: str = exchange.scope["path"][len(PREFIX) :]
    found = TABLE.find(path) if len(path) <= MAX_PATH else None
    if found is None:
        raise Refusal(
            404, "UNSUPPORTED", f"this is no path of the API; {PREFIX}/openapi.json has them all"
        )
    methods, parameters = found
    method = "GET" if exchange.method == "HEAD" else exchange.method
    endpoint = methods.get(method)
    if endpoint is None:
        allowed = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
        raise Refusal(
            405,
            "UNSUPPORTED",
            "this method is not possible here",
            headers=[(b"allow", ", ".join(allowed).encode())],
        )
    for parameter in endpoint.parameters:
        problem = parameter.problem(parameters[parameter.name])
        if problem:
            raise Refusal(400, "NAME_INVALID", problem)
    return endpoint, parameters


def _read_query(exchange: Exchange, endpoint: Endpoint) -> tuple[Paging, object]:
    given: dict[str, str] = {}
    for name, value in exchange.query.items():
        if name in given:
            raise Refusal(400, "UNSUPPORTED", f"the parameter {name[:80]!a} came twice")
        given[name] = value
    paging = Paging()
    if endpoint.paged:
        mine: dict[str, str] = {name: given.pop(name) for name in ("n", "last") if name in given}
        paging = read_texts(Paging, mine)
    if endpoint.query is not None:
        return paging, read_texts(endpoint.query, given)
    if given:
        raise Refusal(400, "UNSUPPORTED", f"the parameter {next(iter(given))[:80]!a} is not known")
    return paging, None


async def _read_body(exchange: Exchange, endpoint: Endpoint) -> object:
    kind = endpoint.body
    if kind is None:
        if exchange.has_body():
            raise Refusal(400, "UNSUPPORTED", "this takes no body", headers=[_CLOSE])
        return None
    media_type, _, parameters = exchange.header_text(b"content-type").partition(";")
    if media_type.strip().lower() != "application/json" or (
        "charset" in parameters.lower() and "utf-8" not in parameters.lower()
    ):
        raise Refusal(
            415,
            "UNSUPPORTED",
            "send the document as Content-Type: application/json",
            headers=[_CLOSE, (b"accept", JSON)],
        )
    raw = await exchange.read_body(endpoint.limit)
    if raw is None:
        raise Refusal(
            413,
            "SIZE_INVALID",
            f"the document may have at most {endpoint.limit} bytes",
            headers=[_CLOSE],
        )
    try:
        return read(kind, parse_object(raw, limit=endpoint.limit, depth=MAX_DEPTH))
    except InvalidDocument as error:
        raise Refusal(400, "UNSUPPORTED", str(error)) from error
    except NotInShape as error:
        raise Refusal(
            400,
            "UNSUPPORTED",
            f"the document is not as it must be: {error.problems[0]}",
            detail=list(error.problems),
        ) from error


_CLOSE: Header = (b"connection", b"close")


async def _reply(call: Call, endpoint: Endpoint, result: Any) -> None:
    answer = result if isinstance(result, Answer) else Answer(result)
    status = answer.status or endpoint.status
    headers: list[Header] = [_NOT_KEPT, *answer.headers]
    if endpoint.answers is None:
        return await call.exchange.reply(204, headers)
    document = answer.value
    if endpoint.paged:
        assert isinstance(document, Listing)
        if document.last:
            headers.append(_next(call, document.last))
        document = {"items": write(document.items)}
    body = json.dumps(write(document), separators=(",", ":")).encode()
    if endpoint.matches:
        etag = answer.etag or etag_of(body)
        headers.append((b"etag", b'"%s"' % etag.encode()))
        if call.exchange.method in ("GET", "HEAD") and etag_matches(
            call.exchange.header(b"if-none-match"), etag
        ):
            return await call.exchange.reply(304, headers)
    await call.exchange.reply(status, [(b"content-type", JSON), *headers], body)


def etag_of(body: bytes) -> str:
    """A name for exactly this content."""
    return hashlib.sha256(body).hexdigest()[:32]


def _next(call: Call, last: str) -> Header:
    given = {
        name: value for name, value in call.exchange.query.items() if name not in ("n", "last")
    }
    path = quote(call.exchange.scope["path"], safe="/")
    return next_link(path, n=str(call.paging.n), last=last, **given)
