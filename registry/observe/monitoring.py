"""What is open beside the application so that operators see it: access log, shared counts, the
listener for metrics, traces. Opened and closed in the application's lifespan."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from registry.errors import InvalidSettings
from registry.observe.lines import FORMATS, AccessLog, LineWriter
from registry.observe.listener import Answer, listen
from registry.observe.workers import WRITE_EVERY_S, SharedCounts, Snapshot, snapshot

if TYPE_CHECKING:
    from registry.observe.requests import Observer
    from registry.settings import Settings
    from registry.worker import Worker

# How long the database may take to count open uploads; without an answer the count is left out.
_COUNT_S = 2.0


class Monitoring:
    """Collects the counts of all workers and gives them as text."""

    def __init__(
        self,
        observer: Observer,
        worker: Worker,
        *,
        with_metrics: bool,
        count_uploads: Callable[[], Awaitable[int]],
        log: LineWriter | None,
    ) -> None:
        self._observer = observer
        self._worker = worker
        self._with_metrics = with_metrics
        self._count_uploads = count_uploads
        self._log = log
        self._shared = SharedCounts(worker)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """The text of `/metrics` and its Content-Type."""
        from registry.observe.metrics import render

        open_uploads: int | None = None
        # A database that is away must not hide the rest.
        with contextlib.suppress(Exception):
            open_uploads = await asyncio.wait_for(self._count_uploads(), _COUNT_S)
        own = self._snapshot()
        return await asyncio.to_thread(
            lambda: render(
                self._shared.total(own),
                version=_version(),
                workers=self._worker.count,
                open_uploads=open_uploads,
                accept=accept,
            )
        )

    async def share(self) -> None:
        """Leave our counts for the other workers, again and again."""
        while self._with_metrics and self._shared.is_shared:
            await asyncio.to_thread(self._shared.write, self._snapshot())
            await asyncio.sleep(WRITE_EVERY_S)

    def _snapshot(self) -> Snapshot:
        from registry.observe.metrics import process_numbers

        dropped = self._log.dropped if self._log is not None else 0
        return snapshot(self._observer, process_numbers(), dropped)


@asynccontextmanager
async def open_monitoring(
    settings: Settings,
    observer: Observer,
    worker: Worker,
    *,
    count_uploads: Callable[[], Awaitable[int]],
    ready: Callable[[], Awaitable[str]],
) -> AsyncIterator[Monitoring]:
    """Everything that the settings ask for. Raises: CannotListen; InvalidSettings."""
    async with contextlib.AsyncExitStack() as stack:
        log: LineWriter | None = None
        if settings.access_log != "off":
            log = LineWriter()
            stack.push_async_callback(asyncio.to_thread, log.close)
            observer.add_reader(AccessLog(log, FORMATS[settings.access_log]))
        if settings.tracing:
            try:
                from registry.observe.tracing import open_tracing
            except ImportError as error:
                raise InvalidSettings(
                    f"setting 'tracing' needs a package that is not installed: {error.name}",
                    hint="pip install 'pyreg[otel]'",
                ) from error
            tracing = open_tracing(settings.service, _version(), settings.tracing_endpoint)
            stack.push_async_callback(asyncio.to_thread, tracing.close)
            observer.add_reader(tracing)
        with_metrics = settings.metrics != "off" or bool(settings.metrics_listen)
        monitoring = Monitoring(
            observer, worker, with_metrics=with_metrics, count_uploads=count_uploads, log=log
        )
        if settings.metrics_listen and worker.is_first:
            await stack.enter_async_context(
                listen(settings.metrics_listen, partial(_answer, monitoring, ready))
            )
        sharing = asyncio.create_task(monitoring.share())
        try:
            yield monitoring
        finally:
            sharing.cancel()
            await asyncio.gather(sharing, return_exceptions=True)


async def _answer(
    monitoring: Monitoring, ready: Callable[[], Awaitable[str]], path: str, accept: str
) -> Answer:
    """What the listener for metrics answers."""
    if path == "/metrics":
        body, content_type = await monitoring.metrics(accept)
        return Answer(200, body, content_type)
    if path == "/livez":
        return Answer(200, b"ok\n")
    if path == "/readyz":
        reason = await ready()
        return Answer(503 if reason else 200, f"{reason or 'ok'}\n".encode())
    return Answer(404, b"nothing is here; see /metrics, /livez and /readyz\n")


def _version() -> str:
    try:
        return version("pyreg")
    except PackageNotFoundError:  # as one file, without its metadata
        return "unknown"
