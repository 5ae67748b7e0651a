"""Counts of several worker processes as one: each leaves its own in the run directory.

Whichever worker is asked adds up the files of all. A worker that takes the place of one that died
goes on from its counts, or the sums would fall and look like a restart of the whole server.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from registry.observe import counts
from registry.observe.requests import Observer
from registry.worker import Worker

log = logging.getLogger("pyreg.registry")

#: How often a worker writes its counts: what another one tells of it is at most so old.
WRITE_EVERY_S = 1.0

#: Numbers by family, and in it by a name whose parts are joined with blanks.
Snapshot = dict[str, dict[str, list[float]]]

# What describes the process itself ends with it; the rest is taken over by its successor.
_OF_THE_PROCESS = ("process", "transfers", "operations")


def snapshot(observer: Observer, process: dict[str, float], dropped: int) -> Snapshot:
    """A copy of all counts of this process."""
    return {
        "requests": {
            f"{kind} {method} {status}": list(row)
            for (kind, method, status), row in observer.requests.rows.items()
        },
        "durations": {
            access: [each.seconds, *each.buckets] for access, each in counts.OPERATIONS.items()
        },
        "operations": _numbers(counts.OPERATIONS_RUNNING.counts),
        "failures": _numbers(counts.FAILURES.counts),
        "collected": _numbers(counts.COLLECTED.counts),
        "uploads": {**_numbers(counts.UPLOADS.counts), **_uploads(observer)},
        "transfers": _numbers(counts.TRANSFERS.counts),
        "log": {"dropped": [dropped]},
        "process": _numbers(process),
    }


# What requests say of uploads: a mount, which also answers 201 to a POST, is none.
_UPLOADS = {
    "begun": ("uploads", "POST", 202),
    "finished": ("upload", "PUT", 201),
    "cancelled": ("upload", "DELETE", 204),
}


def _uploads(observer: Observer) -> dict[str, list[float]]:
    rows = observer.requests.rows
    return {how: [rows[key][counts.COUNT]] for how, key in _UPLOADS.items() if key in rows}


def _numbers(counts: dict[str, int] | dict[str, float]) -> dict[str, list[float]]:
    return {name: [float(value)] for name, value in counts.copy().items()}


def add_up(snapshots: Iterable[Snapshot]) -> Snapshot:
    """The sums, number by number; the start time is the earliest."""
    total: Snapshot = {}
    for each in snapshots:
        for family, rows in each.items():
            into = total.setdefault(family, {})
            for name, numbers in rows.items():
                before = into.get(name)
                if before is None:
                    into[name] = list(numbers)
                elif name == "start_time_seconds":
                    into[name] = [min(before[0], numbers[0])]
                else:
                    into[name] = [a + b for a, b in zip(before, numbers, strict=True)]
    return total


class SharedCounts:
    """The files of all workers. Without a run directory there is only this process."""

    def __init__(self, worker: Worker) -> None:
        self._directory = worker.run_directory if worker.count > 1 else None
        self._number = worker.number
        self._count = worker.count
        own = self._read(worker.number)
        self._inherited = {
            family: rows for family, rows in own.items() if family not in _OF_THE_PROCESS
        }

    @property
    def is_shared(self) -> bool:
        return self._directory is not None

    def write(self, own: Snapshot) -> None:
        """Leave our counts for the others. A full disk is logged and stops nothing. Blocks."""
        if self._directory is None:
            return
        path = self._path(self._number)
        draft = path.with_suffix(".new")
        try:
            draft.write_text(json.dumps(add_up([self._inherited, own])), encoding="ascii")
            os.replace(draft, path)
        except OSError as error:
            log.warning("cannot write the counts of this worker to %s: %s", path, error.strerror)

    def total(self, own: Snapshot) -> Snapshot:
        """Our counts and what the others left. Blocks."""
        others = [self._read(number) for number in range(self._count) if number != self._number]
        return add_up([self._inherited, own, *others])

    def _path(self, number: int) -> Path:
        assert self._directory is not None
        return self._directory / f"counts-{number}.json"

    def _read(self, number: int) -> Snapshot:
        if self._directory is None:
            return {}
        try:
            document: Any = json.loads(self._path(number).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return {}
        return document if isinstance(document, dict) else {}
