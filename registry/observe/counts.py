"""Plain numbers that code adds to while it works, and that `/metrics` reads when it is asked.

Adding costs well under a microsecond. Every count is of this process; `registry.observe.workers`
adds up those of several.
"""

from __future__ import annotations

import threading
from bisect import bisect_left

#: Upper ends in seconds: from a manifest out of memory to a layer of gigabytes.
BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)

#: What a request may be counted as, beside the kinds in `registry.api.routes`.
_KINDS = "base blob uploads upload manifest tags referrers catalog token search health metrics api"
KINDS = frozenset(_KINDS.split())
OTHER = "other"
METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})

#: A request's kind, method and status.
Key = tuple[str, str, int]

# The places of a row: how many, their seconds, bytes in, bytes out, and then one of each bucket.
COUNT, SECONDS, RECEIVED, SENT, FIRST_BUCKET = range(5)


class RequestCounts:
    """Finished requests by kind, method and status; for one event loop."""

    def __init__(self) -> None:
        self.rows: dict[Key, list[float]] = {}

    def add(
        self, kind: str, method: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """Count one. An odd kind or method counts as "other": peers cannot make new rows."""
        row = self.rows.get((kind, method, status))
        if row is None:
            row = self._row(kind, method, status)
        row[0] += 1
        row[1] += seconds
        row[2] += received
        row[3] += sent
        row[4 + bisect_left(BUCKETS_S, seconds)] += 1

    def _row(self, kind: str, method: str, status: int) -> list[float]:
        kind = kind if kind in KINDS else OTHER
        method = method if method in METHODS else OTHER
        status = status if 100 <= status < 600 else 0
        return self.rows.setdefault((kind, method, status), new_row())


def new_row() -> list[float]:
    """A row without any request."""
    return [0.0] * (FIRST_BUCKET + len(BUCKETS_S) + 1)


class Durations:
    """How long something took, for any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds = 0.0
        #: How many fell into each bucket; the last is of those above all.
        self.buckets = [0] * (len(BUCKETS_S) + 1)

    def add(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds
            self.buckets[bisect_left(BUCKETS_S, seconds)] += 1


class Tally:
    """How often each of a few things happened, for any thread. Names come from our own code."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        with self._lock:
            self.counts[name] = self.counts.get(name, 0) + count


#: Operations on the database: how long they took, waiting included, and how many are under way.
OPERATIONS = {"read": Durations(), "write": Durations()}
OPERATIONS_RUNNING = Tally()
#: Errors of the blob storage and of the database that operators must hear of, by class.
FAILURES = Tally()
#: Uploads that ended, by how: "finished", "cancelled", "expired".
UPLOADS = Tally()
#: What the collector removed: "manifests", "blobs", "objects", their "bytes"; and blobs that it
#: found "missing" or "rotten".
COLLECTED = Tally()
#: Transfers that run, by direction and path: "in fast", "in plain", "out fast", "out plain".
TRANSFERS = Tally()
