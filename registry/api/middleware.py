"""What wraps the whole application. Pure ASGI, so that bodies stream through untouched."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from registry.observe.counts import TRANSFERS
from registry.observe.requests import REQUEST_ID, About, Observer
from registry.server.extensions import INTAKE, ZERO_COPY

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Where handlers find the `About` of their request in its scope, to add what they learn.
ABOUT = "pyreg.about"


class Observing:
    """Gives each request its id, and says to the observer how it ended."""

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self.app = app
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        about = _about(scope, self._observer)
        request_id = about.request_id.encode()
        status = sent = 0
        sending = receiving = False

        async def watch(message: Message) -> None:
            nonlocal status, sent, sending
            kind = message["type"]
            if kind == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], (REQUEST_ID, request_id)]}
            elif kind == "http.response.body":
                sent += len(message.get("body", b""))
                if message.get("more_body", False) and not sending:
                    sending = True
                    TRANSFERS.add("out plain")
            elif kind == ZERO_COPY:
                sent += message.get("count", 0) or 0
                TRANSFERS.add("out fast")
                try:
                    await send(message)
                finally:
                    TRANSFERS.add("out fast", -1)
                return
            await send(message)

        async def hear() -> Message:
            nonlocal receiving
            message = await receive()
            about.received += len(message.get("body", b""))
            if message.get("more_body", False) and not receiving:
                receiving = True
                TRANSFERS.add("in plain")
            return message

        intake = scope.get("extensions", {}).get(INTAKE)
        if intake is not None:
            scope["extensions"][INTAKE] = _counted(intake, about)
        try:
            await self.app(scope, hear, watch)
        finally:
            if sending:
                TRANSFERS.add("out plain", -1)
            if receiving:
                TRANSFERS.add("in plain", -1)
            self._observer.ended(
                about.kind,
                scope["method"],
                status,
                time.perf_counter() - began,
                about.received,
                0 if scope["method"] == "HEAD" else sent,
                about,
            )


def _about(scope: Scope, observer: Observer) -> About:
    """What is known when a request begins; the rest is for the handlers to add."""
    given: bytes | None = None
    client = scope.get("client")
    about = About(client=client[0] if client else "", path=scope.get("raw_path") or b"")
    for name, value in scope["headers"]:
        if name == REQUEST_ID:
            given = value
        elif name == b"user-agent":
            about.user_agent = value
        elif name == b"traceparent":
            about.traceparent = value
    about.request_id = observer.request_id(given)
    scope[ABOUT] = about
    return about


def _counted(intake: Any, about: About) -> Any:
    """The intake of a body, which counts what it read; of one that broke off as well."""

    async def counted(sink: Any) -> int:
        TRANSFERS.add("in fast")
        try:
            total: int = await intake(sink)
            return total
        finally:
            about.received += getattr(intake, "received", 0)
            TRANSFERS.add("in fast", -1)

    return counted
