"""The access log: one line a request, as text or JSON, written by a thread of its own.

Left out on purpose: the query and every header but the user agent, because tokens, passwords and
cookies live there. What peers wrote is cut to a length and control characters are escaped, so that
nobody can write lines of their own, or colours, into the log.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

from registry.observe.requests import About, Ended

#: Lines are gathered and written together: a write for each would cost as much as the answer.
FLUSH_AFTER_S = 0.2
#: Lines that may wait for a slow reader of the log; more are dropped and counted.
MAX_WAITING = 8192
#: How much of what a peer wrote is shown.
MAX_PATH = 1024
MAX_AGENT = 256
#: How long the end of the program waits for a reader that does not read.
_CLOSE_S = 2.0

Format = Callable[[Ended, float], str]


class LineWriter:
    """Writes lines from a thread, so that a full pipe or a slow disk stops no request."""

    def __init__(
        self, write: Callable[[str], object] | None = None, *, max_waiting: int = MAX_WAITING
    ) -> None:
        self._write = write or _to_standard_error
        self._waiting: deque[str] = deque()
        self._max_waiting = max_waiting
        self._wake = threading.Event()
        self._closing = threading.Event()
        #: Lines that were given up, since the start.
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Take a line, or count it as dropped. Never waits; for one thread."""
        if len(self._waiting) >= self._max_waiting:
            self.dropped += 1
            return
        self._waiting.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits and end, within two seconds even if nobody reads."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        told = 0
        while True:
            self._wake.wait()
            self._closing.wait(FLUSH_AFTER_S)
            self._wake.clear()
            lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if self.dropped > told:
                lines.append(f"{self.dropped - told} lines of the access log were dropped")
                told = self.dropped
            try:
                if lines:
                    self._write("\n".join(lines) + "\n")
            except (OSError, ValueError):  # the log's reader is gone; the registry goes on
                pass
            if self._closing.is_set() and not self._waiting:
                return


class AccessLog:
    """Reads ended requests (see `Observer.add_reader`) and writes a line for each."""

    def __init__(
        self,
        writer: LineWriter,
        form: Format,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = writer
        self._form = form
        self._clock = clock

    def __call__(self, ended: Ended) -> None:
        self._writer.put(self._form(ended, self._clock()))


def text_line(ended: Ended, now: float) -> str:
    """Time, client, method, path, status, bytes out and in, time taken, kind, repository, account,
    request id, user agent; what is unknown is a dash."""
    about = ended.about
    fields = (
        _moment(now),
        about.client or "-",
        ended.method,
        _path(about) or "-",
        str(ended.status),
        str(ended.sent),
        str(ended.received),
        f"{ended.seconds * 1000:.1f}ms",
        about.kind,
        about.repository[:MAX_AGENT] or "-",
        about.subject or "-",
        about.request_id or "-",
    )
    line = " ".join(_visible(field).replace(" ", "\\x20") for field in fields)
    return f'{line} "{_agent(about)}"'


def json_line(ended: Ended, now: float) -> str:
    """The same as one JSON object of ASCII; unknown fields are empty."""
    about = ended.about
    return json.dumps(
        {
            "time": _moment(now),
            "client": about.client,
            "method": ended.method,
            "path": _path(about),
            "status": ended.status,
            "sent": ended.sent,
            "received": ended.received,
            "ms": round(ended.seconds * 1000, 3),
            "kind": about.kind,
            "repository": about.repository[:MAX_AGENT],
            "subject": about.subject,
            "request_id": about.request_id,
            "user_agent": _agent(about),
        },
        separators=(",", ":"),
    )


FORMATS: dict[str, Format] = {"text": text_line, "json": json_line}


def _moment(now: float) -> str:
    seconds = int(now)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(now % 1 * 1000):03d}Z"


def _path(about: About) -> str:
    return about.path[:MAX_PATH].decode("ascii", "backslashreplace")


def _agent(about: About) -> str:
    text = about.user_agent[:MAX_AGENT].decode("ascii", "backslashreplace")
    return _visible(text).replace('"', '\\"')


def _visible(text: str) -> str:
    """Without anything that moves a cursor or ends a line."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if " " <= c <= "~" else ascii(c)[1:-1] for c in text)


def _to_standard_error(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
