"""The counts as Prometheus wants them. Imported only when somebody asks for metrics.

Labels have few values, all of our own choosing: kinds of routes, methods, status classes, classes
of errors. Repositories, accounts and addresses are in the access log and in traces, never here.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from registry.observe.counts import BUCKETS_S, COUNT, FIRST_BUCKET, RECEIVED, SECONDS, SENT
from registry.observe.workers import Snapshot

_PROCESS = {
    "cpu_seconds_total": "Processor time of all workers.",
    "resident_memory_bytes": "Memory of all workers; what they share is counted for each.",
    "open_fds": "Open descriptors of all workers.",
    "start_time_seconds": "When the oldest worker started, in seconds since 1970.",
}


def process_numbers() -> dict[str, float]:
    """What the system says of this process, by the names in `_PROCESS`."""
    found: dict[str, float] = {}
    for family in ProcessCollector(registry=None).collect():
        for sample in family.samples:
            name = sample.name.removeprefix("process_")
            if name in _PROCESS:
                found[name] = sample.value
    return found


def render(
    total: Snapshot, *, version: str, workers: int, open_uploads: int | None, accept: str
) -> tuple[bytes, str]:
    """The text and its Content-Type, in the format that `accept` prefers."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(_families(total, version, workers, open_uploads))))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _families(
    total: Snapshot, version: str, workers: int, open_uploads: int | None
) -> Iterator[Metric]:
    yield from _requests(total.get("requests", {}))
    yield _counter(total, "uploads", "pyreg_uploads", "Blob uploads by what became of them.", "how")
    yield _counter(
        total, "collected", "pyreg_collected", "What the collector removed or found lost.", "what"
    )
    if open_uploads is not None:
        yield GaugeMetricFamily(
            "pyreg_uploads_open", "Uploads that were begun and have not ended.", open_uploads
        )
    transfers = GaugeMetricFamily(
        "pyreg_transfers_in_progress",
        "Bodies on their way: fast ones between socket and file, plain ones as messages.",
        labels=["direction", "path"],
    )
    for name in ("in fast", "in plain", "out fast", "out plain"):
        transfers.add_metric(name.split(), total.get("transfers", {}).get(name, [0.0])[0])
    yield transfers
    yield from _database(total)
    yield _counter(
        total, "failures", "pyreg_failures", "Failures of storage and database, by class.", "error"
    )
    yield CounterMetricFamily(
        "pyreg_access_log_dropped_lines",
        "Lines that nobody read in time.",
        total.get("log", {}).get("dropped", [0.0])[0],
    )
    for name, numbers in total.get("process", {}).items():
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        yield kind(f"process_{name.removesuffix('_total')}", _PROCESS[name], numbers[0])
    yield GaugeMetricFamily("pyreg_workers", "Processes that serve.", workers)
    build = GaugeMetricFamily("pyreg_build_info", "Always 1.", labels=["version", "python"])
    build.add_metric([version, platform.python_version()], 1)
    yield build


def _requests(rows: dict[str, list[float]]) -> Iterator[Metric]:
    labels = ["kind", "method"]
    requests = CounterMetricFamily(
        "pyreg_http_requests", "Requests that ended.", labels=[*labels, "status"]
    )
    received = CounterMetricFamily(
        "pyreg_http_received_bytes", "Bytes of request bodies.", labels=labels
    )
    sent = CounterMetricFamily("pyreg_http_sent_bytes", "Bytes of response bodies.", labels=labels)
    durations = HistogramMetricFamily(
        "pyreg_http_request_duration_seconds",
        "From the head of a request to the end of its response.",
        labels=labels,
    )
    classes: dict[tuple[str, str, str], float] = {}
    sums: dict[tuple[str, str], list[float]] = {}
    for name, row in sorted(rows.items()):
        kind, method, status = name.split(" ")
        key = (kind, method, f"{status[0]}xx" if status != "0" else "none")
        classes[key] = classes.get(key, 0) + row[COUNT]
        before = sums.get((kind, method))
        sums[kind, method] = (
            list(row) if before is None else [a + b for a, b in zip(before, row, strict=True)]
        )
    for key, count in classes.items():
        requests.add_metric(key, count)
    for pair, row in sums.items():
        received.add_metric(pair, row[RECEIVED])
        sent.add_metric(pair, row[SENT])
        durations.add_metric(pair, _cumulative(row[FIRST_BUCKET:]), row[SECONDS])
    yield from (requests, received, sent, durations)


def _database(total: Snapshot) -> Iterator[Metric]:
    durations = HistogramMetricFamily(
        "pyreg_database_operation_duration_seconds",
        "Operations on the database, from their place in the queue to the end of their commit.",
        labels=["access"],
    )
    running = GaugeMetricFamily(
        "pyreg_database_operations_in_progress",
        "Operations on the database that run or wait for their turn.",
        labels=["access"],
    )
    for access in ("read", "write"):
        numbers = total.get("durations", {}).get(access)
        if numbers:
            durations.add_metric([access], _cumulative(numbers[1:]), numbers[0])
        running.add_metric([access], total.get("operations", {}).get(access, [0.0])[0])
    yield from (durations, running)


def _counter(total: Snapshot, family: str, name: str, help: str, label: str) -> Metric:
    counter = CounterMetricFamily(name, help, labels=[label])
    for value, numbers in sorted(total.get(family, {}).items()):
        counter.add_metric([value], numbers[0])
    return counter


def _cumulative(buckets: list[float]) -> list[tuple[str, float]]:
    ends = [*(repr(end) for end in BUCKETS_S), "+Inf"]
    count = 0.0
    result = []
    for end, more in zip(ends, buckets, strict=True):
        count += more
        result.append((end, count))
    return result
