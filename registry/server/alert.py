"""A loop that stays awake for a client that asks one thing after the other.

Waking a thread that sleeps in epoll costs tens of microseconds on a virtual machine, more than a
manifest takes. So where requests have come quickly, the loop looks for the next one before it
sleeps: turns of the loop that wait for nothing, in which everything else on it is served as ever.

This happens while the process has one connection and no task, thus no transfer, and two CPUs; after
`STREAK` answers in a row that were each followed by a request within `QUICK_S`; and for `WINDOW_S`
after an answer. A look that finds nothing in that time ends the streak. A server without requests,
or with clients behind a network, does nothing of this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Protocol

#: What counts as quick, in seconds between an answer and the next request, sleep included.
QUICK_S = 200e-6
#: The longest look after one answer, in seconds.
WINDOW_S = 100e-6
#: Quick requests in a row after which looking is worth it.
STREAK = 8

#: With one CPU a loop that looks would only keep the client from asking.
HAS_ROOM = len(os.sched_getaffinity(0)) > 1 if hasattr(os, "sched_getaffinity") else False


class Loop(Protocol):
    def call_soon(self, callback: Callable[[], object]) -> Any: ...


class Alert:
    """For one connection. `is_alone` says whether nothing else goes on in the process."""

    __slots__ = ("_answered", "_clock", "_is_alone", "_is_looking", "_loop", "_streak")

    def __init__(
        self,
        loop: Loop,
        is_alone: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._loop = loop
        self._is_alone = is_alone
        self._clock = clock
        self._streak = 0
        self._answered: float | None = None
        self._is_looking = False

    def requested(self) -> None:
        """Bytes came."""
        if self._answered is not None:
            is_quick = self._clock() - self._answered < QUICK_S
            self._streak = self._streak + 1 if is_quick else 0
            self._answered = None

    def answered(self) -> None:
        """A request was answered at once."""
        self._answered = self._clock()
        if self._streak >= STREAK and not self._is_looking and self._is_alone():
            self._is_looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        if self._answered is not None and self._is_alone():
            if self._clock() - self._answered < WINDOW_S:
                self._loop.call_soon(self._look)
                return
            self._streak = 0
        self._is_looking = False
