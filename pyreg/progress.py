"""How a transfer looks: docker's lines, redrawn in place on a terminal, one each otherwise."""

from __future__ import annotations

import os
import threading
import time

from client import progress as states
from pyreg import human

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ocispec.digest import Digest
    from pyreg.console import Console

REDRAW_S = 0.08
NUMBERS = len("99.9MB/99.9MB")
MOVING = frozenset({states.DOWNLOADING, states.PUSHING, states.EXTRACTING})
UP_AND_CLEAR = "\x1b[{}A\r\x1b[J"  # the cursor to the first line of ours, and nothing below it


class Lines:
    """One line whenever a blob changes its state, for a log or a pipe."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, str] = {}
        self._lock = threading.Lock()

    def announce(self, digests: Iterable[Digest]) -> None:
        pass  # the order of events is the order of lines

    def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
        short = digest.encoded[:12]
        with self._lock:
            if self._last.get(short) == state or self._last.get(short) in states.FINAL:
                return
            self._last[short] = state
            if state not in MOVING:
                self._console.note(f"{short}: {state}")

    def close(self) -> None:
        pass


class Bars:
    """A line a blob, in the order announced, drawn over itself. Safe with threads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rows: dict[str, tuple[str, int, int]] = {}
        self._lock = threading.Lock()
        self._drawn = 0
        self._next = 0.0

    def announce(self, digests: Iterable[Digest]) -> None:
        """What there will be, so that lines stand in the image's order."""
        with self._lock:
            for digest in digests:
                self._rows.setdefault(digest.encoded[:12], (states.WAITING_LAYER, 0, 0))
            self._draw()

    def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
        short = digest.encoded[:12]
        with self._lock:
            before = self._rows.get(short, ("", 0, 0))[0]
            if before in states.FINAL:
                return
            changed = before != state
            self._rows[short] = (state, done, total)
            now = time.monotonic()
            if changed or now >= self._next:
                self._next = now + REDRAW_S
                self._draw()

    def close(self) -> None:
        """Leave the last picture on the screen."""
        with self._lock:
            self._draw(everything=True)
            self._drawn = 0

    def _draw(self, *, everything: bool = False) -> None:
        rows = list(self._rows.items())
        height = _height(self._console)
        if len(rows) >= height and not everything:
            # More than fits: what is finished leaves the screen first.
            busy = [row for row in rows if row[1][0] not in states.FINAL]
            rows = busy[: height - 1]
        width = self._console.width
        text = "".join(f"{picture(short, *row, width)}\n" for short, row in rows)
        erase = UP_AND_CLEAR.format(self._drawn) if self._drawn else ""
        self._console.stderr.write(erase + text)
        self._console.stderr.flush()
        self._drawn = len(rows)


class Counter:
    """How many bytes went by, drawn in one line; for something whose end is not known."""

    def __init__(self, console: Console, what: str) -> None:
        self._console = console
        self._what = what
        self._count = 0
        self._next = 0.0

    def add(self, count: int) -> None:
        self._count += count
        now = time.monotonic()
        if now >= self._next:
            self._next = now + REDRAW_S
            text = f"\r\x1b[K{self._what} {human.size(self._count)}"
            self._console.stderr.write(text)
            self._console.stderr.flush()

    def close(self) -> None:
        """Leave no line behind."""
        if self._next:
            self._console.stderr.write("\r\x1b[K")
            self._console.stderr.flush()


def picture(short: str, state: str, done: int, total: int, width: int) -> str:
    """One line, at most `width` columns: `a1b2c3: Downloading [===>   ]  12.3MB/50MB`."""
    line = f"{short}: {state}"
    if state in MOVING and total:
        numbers = f"{human.size(done)}/{human.size(total)}"
        # Numbers get the room of usual ones, so that the bars of all lines are equally long.
        inside = min(50, width - len(line) - max(len(numbers), NUMBERS) - 6)
        if inside >= 8:
            filled = min(inside, inside * done // total)
            bar = "=" * filled if filled == inside else ("=" * filled + ">").ljust(inside)
            line += f" [{bar[:inside]}]"
        line += f"  {numbers}"
    return line[: max(width - 1, 1)]


def display(console: Console, terminal: str = "") -> Bars | Lines:
    """The one that suits where the console's messages go; `terminal` is its type, of TERM."""
    return Bars(console) if console.stderr.isatty() and terminal != "dumb" else Lines(console)


def _height(console: Console) -> int:
    try:
        return os.get_terminal_size(console.stderr.fileno()).lines or 24
    except (OSError, ValueError):
        return 24
