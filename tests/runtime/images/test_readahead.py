"""A thread that reads ahead: the same chunks, the same errors, and always gone at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from runtime.images.readahead import ReadAhead


def numbered(count: int, error: Exception | None = None) -> Callable[[], bytes]:
    left = iter(range(count))

    def source() -> bytes:
        for number in left:
            return b"%d" % number
        if error is not None:
            raise error
        return b""

    return source


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"inflate"}


def test_chunks_come_in_order_and_the_end_again_and_again() -> None:
    ahead = ReadAhead(numbered(50))
    assert [ahead.read() for _ in range(50)] == [b"%d" % i for i in range(50)]
    assert ahead.read() == ahead.read() == b""
    ahead.close()
    assert not threads()


def test_an_error_comes_after_the_chunks_before_it() -> None:
    ahead = ReadAhead(numbered(2, ValueError("damaged")))
    assert [ahead.read(), ahead.read()] == [b"0", b"1"]
    with pytest.raises(ValueError, match="damaged"):
        ahead.read()
    assert ahead.read() == b""
    ahead.close()


@pytest.mark.parametrize("count", [0, 1, 3, 100, 10_000])
def test_leaving_early_ends_the_thread(count: int) -> None:
    ahead = ReadAhead(numbered(count))
    ahead.read()
    ahead.close()
    ahead.close()
    assert not threads()


def test_it_does_not_read_without_end_when_nobody_takes() -> None:
    taken = []
    endless = numbered(1_000_000)

    def source() -> bytes:
        taken.append(1)
        return endless()

    ahead = ReadAhead(source)
    ahead.read()
    ahead._thread.join(0.1)
    assert len(taken) < 10
    ahead.close()
