"""Spans of requests, in memory and at a real collector on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from registry.observe.requests import About, Ended
from registry.observe.tracing import Tracing
from tests.registry.api.conftest import Start

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans_of(*ended: Ended) -> list[object]:
    memory = InMemorySpanExporter()
    tracing = Tracing("pyreg", "1", SimpleSpanProcessor(memory))
    for each in ended:
        tracing(each)
    tracing.close()
    return list(memory.get_finished_spans())


def test_a_span_says_what_the_request_was_and_belongs_to_its_callers_trace() -> None:
    about = About(
        kind="manifest",
        path=b"/v2/a/manifests/1",
        repository="a",
        subject="alice",
        request_id="7",
        traceparent=PARENT.encode(),
    )
    [span] = spans_of(Ended("GET", 200, 0.25, 1, 2, about))
    assert span.name == "GET manifest"
    assert span.attributes["pyreg.repository"] == "a"
    assert span.attributes["http.response.status_code"] == 200
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == PARENT.split("-")[2]
    assert span.end_time - span.start_time == 250_000_000
    assert span.status.is_unset


def test_attack_odd_trace_headers_begin_a_trace_of_their_own() -> None:
    for odd in (b"", b"\xff", b"00-0-0-01", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"):
        [span] = spans_of(Ended("GET", 503, 0.0, 0, 0, About(traceparent=odd)))
        assert span.parent is None
        assert not span.status.is_ok


async def test_spans_arrive_at_a_collector_without_any_secret(start: Start) -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}/v1/traces"
            async with start(tracing=True, tracing_endpoint=endpoint) as registry:
                await registry.token("alice", "repository:team/app:pull")
                answer = await registry.anonymous.get(
                    "/v2/team/app/tags/list?x=SECRET", headers={"traceparent": PARENT}
                )
                assert answer.status_code == 401
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()
    import gzip

    raw = [gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in bodies]
    spans = [
        span
        for body in raw
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert sorted(span.name for span in spans) == ["GET tags", "GET token"]
    assert PARENT.split("-")[1] in {span.trace_id.hex() for span in spans}
    assert b"SECRET" not in b"".join(raw) and b"password" not in b"".join(raw)


def test_nothing_of_tracing_or_metrics_is_imported_unless_asked_for() -> None:
    code = (
        "import sys, registry.app\n"
        "unwanted = {'opentelemetry', 'prometheus_client'}\n"
        "print([name for name in sys.modules if name.split('.')[0] in unwanted])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
