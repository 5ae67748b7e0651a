"""Pages of lists that are short enough to be read whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from registry.api.v1.call import Call
from registry.api.v1.table import Listing

T = TypeVar("T")


def sliced(call: Call, items: Iterable[T], key: Callable[[T], str]) -> Listing:
    """The page that the call asks for, by `key`."""
    after = sorted((item for item in items if key(item) > call.paging.last), key=key)
    page = tuple(after[: call.paging.n])
    return Listing(page, key(page[-1]) if len(after) > len(page) else "")
