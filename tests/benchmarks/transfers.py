"""Big blobs: down, up in one PUT, up in one chunked PATCH; what small requests and memory feel.

Two things keep the figures comparable. Pages that a virtual machine was given and returned cost it
more than the transfer when they are touched again, so they are touched before (`warm_memory`). And
an upload's file is removed after its measurement, or the page cache and the disk fill up.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.distribution import Target
from tests.benchmarks.harness import Measure, Row, contest, print_row
from tests.builders.servers import Server

MIB = 1 << 20
BLOB = 256 * MIB
#: Uploads that run beside small requests.
BACKGROUND_BLOB = 64 * MIB
#: 64 uploads and 64 downloads of each of these: memory must not depend on it.
MEMORY_BLOBS = (8 * MIB, 32 * MIB)
MEMORY_TRANSFERS = 64
SUFFIX = 32
UPLOADS = "bench/up"
OURS, THEIRS, NGINX = "pyreg", "docker-registry", "nginx"


@dataclass(frozen=True)
class Place:
    """A server under load: how to talk to it, its process, and where its data are."""

    target: Target
    server: Server
    root: Path


class Content:
    """Blobs that no registry has seen: one body, each time another end. Hashed once."""

    def __init__(self, size: int) -> None:
        self.body = os.urandom(size - SUFFIX)
        self.size = size
        self._hash = hashlib.sha256(self.body)

    def fresh(self) -> tuple[bytes, str]:
        """An end for the body, and the digest of both."""
        end = os.urandom(SUFFIX)
        whole = self._hash.copy()
        whole.update(end)
        return end, f"sha256:{whole.hexdigest()}"

    def upload(self, target: Target, how: str) -> Callable[[], None]:
        """A call that uploads a new blob by "put" or "patch"."""
        end, digest = self.fresh()
        call = target.put_blob if how == "put" else target.patch_blob
        return lambda: call(UPLOADS, self.body, digest, end)


def run_downloads(
    fetch: str, targets: list[Target], paths: dict[str, str], rounds: int
) -> list[Row]:
    """GET of the blob at `paths` (by target's name), 1 and 8 at once."""
    rows = []
    for count in (1, 8):

        def measure(target: Target, count: int = count) -> float:
            head = target.head("GET", paths[target.name])
            found = [_fetch(fetch, target, head, count) for _ in range(4 if count == 1 else 1)]
            return sum(f["bytes"] for f in found) / 1e6 / sum(f["seconds"] for f in found)

        rows.append(
            contest(
                f"GET blob of 256 MiB, {count} at once",
                {t.name: (lambda _, t=t, m=measure: m(t)) for t in targets},
                unit="MB/s",
                rounds=rounds,
                more_is_better=True,
                targets={THEIRS: 1.5, NGINX: 0.9},
            )
        )
    return rows


def run_uploads(how: str, places: list[Place], rounds: int) -> list[Row]:
    """New blobs by "put" or "patch", 1 and 8 at once."""
    title = {"put": "PUT blob of 256 MiB", "patch": "PATCH chunked + PUT of 256 MiB"}[how]
    content = Content(BLOB)
    rows = []
    for count, target in ((1, 2.5 if how == "put" else 2.0), (8, 2.0)):

        def measure(place: Place, count: int = count) -> float:
            work = [content.upload(place.target, how) for _ in range(count)]
            warm_memory(count * BLOB + BLOB)
            with removed_afterwards(place.root, BLOB):
                return count * BLOB / 1e6 / all_at_once(work)

        contestants: dict[str, Measure] = {
            p.target.name: (lambda _, p=p, m=measure: m(p)) for p in places
        }
        rows.append(
            contest(
                f"{title}, {count} at once",
                contestants,
                unit="MB/s",
                rounds=rounds if count == 1 else min(rounds, 3),
                more_is_better=True,
                targets={THEIRS: target},
            )
        )
    return rows


def run_latency(
    fetch: str,
    small: Callable[[Target], dict[str, float]],
    places: list[Place],
    blob_path: str,
    rounds: int,
) -> list[Row]:
    """`small` (one client; p50 and p99 in µs) while 8 uploads, then 8 downloads, run."""
    content = Content(BACKGROUND_BLOB)
    rows = []
    for what in ("uploads", "downloads"):
        middle: dict[str, list[float]] = {place.target.name: [] for place in places}

        def measure(
            number: int,
            place: Place,
            what: str = what,
            middle: dict[str, list[float]] = middle,
        ) -> float:
            if what == "uploads":
                warm_memory(4096 * MIB)
                background = uploading(place, content, 8)
            else:
                background = downloading(fetch, place.target, blob_path, 8)
            with background:
                time.sleep(0.3)
                found = small(place.target)
            if number:
                middle[place.target.name].append(found["p50"] / 1000)
            return found["p99"] / 1000

        row = contest(
            f"small request's p99 beside 8 {what}",
            {p.target.name: (lambda n, p=p, m=measure: m(n, p)) for p in places},
            unit="ms",
            rounds=min(rounds, 3),
            more_is_better=False,
            targets={THEIRS: 2.0},
        )
        medians = ", ".join(f"{n} {sorted(v)[len(v) // 2]:.2f}" for n, v in middle.items())
        row.notes.append(f"p50 ms: {medians}")
        print(f"    p50 ms: {medians}")
        rows.append(row)
    return rows


def run_idle(places: list[Place]) -> Row:
    """Resident memory of servers that have just started."""
    figures = {place.target.name: [resident(place, "VmRSS")] for place in places}
    row = Row("resident memory, idle", "MiB", figures, OURS, more_is_better=False, bound=80)
    print_row(row)
    return row


def run_memory(fetch: str, places: list[Place]) -> list[Row]:
    """Peak of resident memory during 64 uploads and 64 downloads, for two sizes of blobs."""
    rows = []
    for size in MEMORY_BLOBS:
        content = Content(size)
        figures: dict[str, list[float]] = {}
        for place in places:
            end, digest = content.fresh()
            with removed_afterwards(place.root, size):
                place.target.put_blob(UPLOADS, content.body, digest, end)
                forget_peak(place)
                path = f"/v2/{UPLOADS}/blobs/{digest}"
                work = [content.upload(place.target, "put") for _ in range(MEMORY_TRANSFERS)]
                with downloading(fetch, place.target, path, MEMORY_TRANSFERS):
                    all_at_once(work)
                figures[place.target.name] = [resident(place, "VmHWM")]
        title = f"resident memory, 64 up + 64 down of {size // MIB} MiB"
        rows.append(Row(title, "MiB", figures, OURS, more_is_better=False, bound=120))
        print_row(rows[-1])
    return rows


def all_at_once(work: list[Callable[[], None]]) -> float:
    """Seconds until the last of the calls ended; raises what the first of them raised."""
    errors: list[BaseException] = []

    def guarded(call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:  # shown below, by the thread that measures
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(call,)) for call in work]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    if errors:
        raise errors[0]
    return took


@contextmanager
def uploading(place: Place, content: Content, count: int) -> Iterator[None]:
    """Uploads, one after the other on `count` connections, while the block runs."""
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            content.upload(place.target, "put")()

    with removed_afterwards(place.root, content.size):
        runner = threading.Thread(target=all_at_once, args=([again] * count,))
        runner.start()
        try:
            yield
        finally:
            over.set()
            runner.join()


@contextmanager
def downloading(fetch: str, target: Target, path: str, count: int) -> Iterator[None]:
    """Downloads on `count` connections while the block runs."""
    words = [fetch, str(target.port), str(count), "600"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(target.head("GET", path))
        process.stdin.close()
        try:
            yield
            assert process.poll() is None, f"the downloads from {target.name} ended early"
        finally:
            process.kill()


@contextmanager
def removed_afterwards(root: Path, size: int) -> Iterator[None]:
    """Remove the blobs of this size that appeared meanwhile; nobody asks for them again."""
    before = set(_files(root, size))
    try:
        yield
    finally:
        for path in set(_files(root, size)) - before:
            path.unlink(missing_ok=True)


def warm_memory(size: int) -> None:
    """Touch this much memory and free it, so that the kernel has it at hand."""
    with suppress(OSError, ValueError):  # not that much: then without
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        mmap.mmap(-1, size, flags=flags).close()


def resident(place: Place, field: str) -> float:
    """MiB by /proc/PID/status, the server's children included."""
    return sum(_status(pid, field) for pid in _process_tree(place.server.process.pid)) / 1024


def forget_peak(place: Place) -> None:
    """Start VmHWM afresh; see proc(5), clear_refs."""
    for pid in _process_tree(place.server.process.pid):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def _status(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise AssertionError(f"no {field} of process {pid}")


def _process_tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(p for child in children for p in _process_tree(int(child)))]


def _files(root: Path, size: int) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            with suppress(FileNotFoundError):
                if path.stat().st_size == size:
                    yield path


def _fetch(fetch: str, target: Target, head: bytes, count: int) -> dict[str, float]:
    words = [fetch, str(target.port), str(count), "0"]
    done = subprocess.run(words, input=head, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found
