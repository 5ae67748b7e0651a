"""When the loop stays awake for the next request: a clock and a loop that are turned by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from registry.server.alert import QUICK_S, STREAK, WINDOW_S, Alert


class Hand:
    """Clock and loop; `turns` are the callbacks of the next turn."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns: list[Callable[[], object]] = []
        self.is_alone = True
        self.alert = Alert(self, lambda: self.is_alone, clock=lambda: self.now)

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.turns.append(callback)

    def turn(self) -> None:
        due, self.turns = self.turns, []
        for callback in due:
            callback()

    def exchange(self, gap: float) -> None:
        """An answer, a pause, and the next request with its answer."""
        self.alert.answered()
        self.now += gap
        self.alert.requested()

    def quick(self, count: int = STREAK) -> None:
        for _ in range(count):
            self.exchange(QUICK_S / 2)
        self.alert.answered()


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_it_looks_after_a_streak_of_quick_requests_and_not_before(hand: Hand) -> None:
    hand.quick(STREAK - 1)
    assert not hand.turns
    hand.alert.requested()
    hand.alert.answered()
    assert len(hand.turns) == 1


def test_a_look_ends_with_its_window_and_the_streak_with_it(hand: Hand) -> None:
    hand.quick()
    hand.now += WINDOW_S / 2
    hand.turn()
    assert len(hand.turns) == 1
    hand.now += WINDOW_S
    hand.turn()
    assert not hand.turns
    hand.exchange(QUICK_S / 2)
    hand.alert.answered()
    assert not hand.turns


def test_an_answer_during_a_look_prolongs_it_once(hand: Hand) -> None:
    hand.quick()
    for _ in range(5):
        hand.now += WINDOW_S * 0.75
        hand.alert.requested()
        hand.alert.answered()
        hand.turn()
        assert len(hand.turns) == 1


def test_slow_requests_never_make_it_look(hand: Hand) -> None:
    for _ in range(5 * STREAK):
        hand.exchange(QUICK_S * 2)
    hand.alert.answered()
    assert not hand.turns


def test_a_request_that_is_not_answered_at_once_ends_the_look(hand: Hand) -> None:
    hand.quick()
    hand.alert.requested()
    hand.turn()
    assert not hand.turns


@pytest.mark.parametrize("when", ["before", "during"])
def test_company_ends_the_look(hand: Hand, when: str) -> None:
    hand.quick(STREAK - 1)
    hand.is_alone = when == "during"
    hand.alert.requested()
    hand.alert.answered()
    hand.is_alone = False
    hand.turn()
    assert not hand.turns
