"""A span for each request, sent by OTLP. Imported only when tracing is switched on.

A span is made when its request has ended, with the times of its begin and end: the path of a
request knows nothing of tracing. Beside `tracing_endpoint` the exporter reads the standard OTEL_*
variables.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from registry.observe.counts import METHODS
from registry.observe.lines import MAX_AGENT, MAX_PATH

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

    from registry.observe.requests import Ended

# A caller's header is at most that long; the standard's own is 55.
_MAX_PARENT = 256


class Tracing:
    """Reads ended requests (see `Observer.add_reader`) and makes a span of each."""

    def __init__(self, service: str, version: str, processor: SpanProcessor) -> None:
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are merged in by `create`.
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: service, SERVICE_VERSION: version})
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("pyreg.registry", version)
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, ended: Ended) -> None:
        about = ended.about
        end = time.time_ns()
        parent = about.traceparent[:_MAX_PARENT].decode("latin-1")
        method = ended.method if ended.method in METHODS else "_OTHER"
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": about.kind,
            "http.response.status_code": ended.status,
            "http.request.body.size": ended.received,
            "http.response.body.size": ended.sent,
            "url.path": about.path[:MAX_PATH].decode("ascii", "backslashreplace"),
            "client.address": about.client,
            "user_agent.original": about.user_agent[:MAX_AGENT].decode("ascii", "backslashreplace"),
            "pyreg.request_id": about.request_id,
        }
        if about.repository:
            attributes["pyreg.repository"] = about.repository[:MAX_AGENT]
        if about.subject:
            attributes["enduser.id"] = about.subject
        span = self._tracer.start_span(
            f"{method} {about.kind}",
            context=self._propagator.extract({"traceparent": parent}),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=end - int(ended.seconds * 1e9),
        )
        if ended.status >= 500 or not ended.status:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    def close(self) -> None:
        """Send what waits, as long as the exporter's own timeout lets it."""
        self._provider.shutdown()


def open_tracing(service: str, version: str, endpoint: str) -> Tracing:
    """Spans sent in batches from a thread, to `endpoint` or where OTEL_* variables say."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    exporter = OTLPSpanExporter(endpoint=endpoint or None)
    return Tracing(service, version, BatchSpanProcessor(exporter))
