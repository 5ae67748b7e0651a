"""A few threads over a list of jobs; the first failure stops the rest."""

from __future__ import annotations

from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")


def run(job: Callable[[T], None], items: Iterable[T], count: int) -> None:
    """Call `job` for every item, at most `count` at once, in order of starting.

    When one fails the others that run finish, those that wait never start, and its error is
    raised. An interrupt (Ctrl-C) does the same.
    """
    items = list(items)
    if len(items) == 1:
        job(items[0])
        return
    pool = ThreadPoolExecutor(max_workers=max(1, min(count, len(items))), thread_name_prefix="blob")
    try:
        futures = [pool.submit(job, item) for item in items]
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future in done:
                future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
