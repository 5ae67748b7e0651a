"""A few threads over a list of jobs; the first failure stops the rest."""

from __future__ import annotations

import threading
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")


def run(job: Callable[[T], None], items: Iterable[T], count: int, stop: threading.Event) -> None:
    """Call `job` for every item, at most `count` at once, in order of starting.

    When one fails, `stop` is set, those that wait never start, those that run are expected to look
    at `stop`, and the first error is raised after them. An interrupt (Ctrl-C) is raised at once:
    the threads are daemons, and what they leave behind is what a killed process leaves.
    """
    waiting = deque(items)
    if len(waiting) == 1:
        job(waiting[0])
        return
    errors: list[BaseException] = []

    def work() -> None:
        while not stop.is_set():
            try:
                item = waiting.popleft()
            except IndexError:
                return
            try:
                job(item)
            except BaseException as error:
                errors.append(error)
                stop.set()

    threads = [
        threading.Thread(target=work, name=f"blob-{number}", daemon=True)
        for number in range(max(1, min(count, len(waiting))))
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        stop.set()
        raise
    if errors:
        raise errors[0]
