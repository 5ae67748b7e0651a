"""How long a slow peer is waited for."""

from __future__ import annotations

from registry.server.pace import SLOWEST, Pace


def test_a_peer_may_rest_as_long_as_the_limit() -> None:
    pace = Pace(60)
    assert pace.left(0) == 60
    pace.waited(20)
    assert pace.left(0) == 40


def test_bytes_earn_time_but_never_more_than_the_limit_at_once() -> None:
    pace = Pace(60)
    pace.waited(59)
    assert pace.left(30 * SLOWEST) == 31
    assert pace.left(1 << 40) == 60


def test_a_dribble_has_an_end() -> None:
    pace = Pace(60)
    size = 0
    while pace.left(size) > 0:
        pace.waited(1)
        size += 1
    assert size <= 61
