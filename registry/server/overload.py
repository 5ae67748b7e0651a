"""What a connection beyond the limit is answered."""

from __future__ import annotations

from typing import Any

# Whoever watches the process must reach it when it is busy, or would restart it.
ALWAYS_ANSWERED = ("/livez", "/readyz", "/metrics")
_RETRY_AFTER = b"1"
_BUSY = b'{"errors":[{"code":"UNAVAILABLE","message":"too many connections; try again"}]}'


class Overloaded:
    """Stands before the application: 503 with Retry-After, and the connection closes."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] in ALWAYS_ANSWERED:
            await self._application(scope, receive, send)
            return
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(_BUSY)),
            (b"retry-after", _RETRY_AFTER),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else _BUSY
        await send({"type": "http.response.body", "body": body})
