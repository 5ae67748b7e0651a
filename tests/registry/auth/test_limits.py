"""Waits after wrong passwords, token buckets, and that neither grows without bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.auth.issuers import Issuers
from registry.auth.limits import (
    ADDRESS_BURST,
    FORGET_AFTER_S,
    LAST_WAIT_S,
    Buckets,
    LoginLimits,
    RequestLimits,
    network_of,
)
from registry.auth.login import Logins
from registry.auth.passwords import Passwords
from registry.auth.trust import TrustedIssuers
from registry.errors import TooManyRequests


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def waits(limits: LoginLimits, account: str, address: str = "192.0.2.1") -> int:
    try:
        limits.check(account, address)
    except TooManyRequests as error:
        return error.after_s
    return 0


def test_each_wrong_password_beyond_the_free_ones_doubles_the_wait(clock: Clock) -> None:
    limits = LoginLimits(2, clock=clock)
    found = []
    for _ in range(14):
        limits.failed("omri", "192.0.2.1")
        found.append(waits(limits, "omri"))
        clock.now += found[-1]
        assert waits(limits, "omri") == 0
    assert found == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, LAST_WAIT_S]


def test_others_are_not_locked_out_by_a_guesser(clock: Clock) -> None:
    limits = LoginLimits(2, clock=clock)
    for _ in range(10):
        limits.failed("omri", "192.0.2.1")
    assert waits(limits, "omri") > 0
    assert waits(limits, "omri", "192.0.2.2") == 0
    assert waits(limits, "someone", "192.0.2.1") == 0


def test_one_password_on_many_accounts_is_slowed_by_address(clock: Clock) -> None:
    limits = LoginLimits(5, clock=clock)
    for number in range(ADDRESS_BURST):
        assert waits(limits, f"user{number}") == 0
        limits.failed(f"user{number}", "2001:db8::1")
        limits.failed(f"user{number}", "192.0.2.1")
    assert waits(limits, "another", "2001:db8::2") == 10  # the same /64
    assert waits(limits, "another", "2001:db8:0:1::2") == 0
    clock.now += 10
    assert waits(limits, "another") == 0


def test_success_and_time_begin_anew(clock: Clock) -> None:
    limits = LoginLimits(1, clock=clock)
    for _ in range(3):
        limits.failed("omri", "192.0.2.1")
    limits.succeeded("omri", "192.0.2.1")
    assert waits(limits, "omri") == 0
    limits.failed("omri", "192.0.2.1")
    clock.now += FORGET_AFTER_S + 1
    limits.failed("omri", "192.0.2.1")
    assert waits(limits, "omri") == 0


def test_0_switches_it_off(clock: Clock) -> None:
    limits = LoginLimits(0, clock=clock)
    for _ in range(1000):
        limits.failed("omri", "192.0.2.1")
    assert waits(limits, "omri") == 0


def test_memory_is_bounded_whatever_names_come(clock: Clock) -> None:
    limits = LoginLimits(1, remembered=100, clock=clock)
    for number in range(1000):
        limits.failed(f"{number}" + "x" * 10_000, f"10.0.{number // 250}.{number % 250}")
    assert len(limits._failures) == len(limits._addresses._levels) == 100
    assert max(len(account) for account, _ in limits._failures) == 64


@given(st.lists(st.floats(0, 5), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(pauses: list[float]) -> None:
    clock = Clock()
    buckets = Buckets(3, 0.5, clock=clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        wait = buckets.take("a")
        taken += wait == 0
        assert 0 <= wait <= 2
    assert taken <= 3 + 0.5 * sum(pauses) + 1e-6


def test_requests_are_counted_by_account_or_address(clock: Clock) -> None:
    limits = RequestLimits(anonymous_per_minute=2, account_per_minute=3, clock=clock)
    for _ in range(2):
        limits.spend("", "192.0.2.1")
    for _ in range(3):
        limits.spend("omri", "192.0.2.1")
    with pytest.raises(TooManyRequests) as anonymous:
        limits.spend("", "192.0.2.1")
    with pytest.raises(TooManyRequests) as account:
        limits.spend("omri", "192.0.2.9")
    assert (anonymous.value.after_s, account.value.after_s) == (30, 20)
    limits.spend("", "192.0.2.2")
    limits.spend("other", "192.0.2.1")
    clock.now += 30
    limits.spend("", "192.0.2.1")


def test_without_limits_nothing_is_counted() -> None:
    limits = RequestLimits(anonymous_per_minute=0, account_per_minute=0)
    assert not limits.are_on
    for _ in range(1000):
        limits.spend("", "192.0.2.1")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a:b" * 100, ("a:b" * 100)[:64]),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    assert network_of(address) == network


async def test_attack_guesses_sent_all_at_once_are_no_more_than_one_by_one(metadata) -> None:
    passwords = Passwords(memory_kib=64, rounds=1)
    tried = []

    class Counting(Passwords):
        async def verify(self, stored: str | None, password: str) -> bool:
            tried.append(password)
            return await super().verify(stored, password)

    counting = Counting(memory_kib=64, rounds=1)
    await metadata.accounts.add("omri", await passwords.hash("correct horse"), "writer")
    nobody = TrustedIssuers(metadata.trust, Issuers())
    logins = Logins(metadata.accounts, counting, LoginLimits(5), metadata.access_tokens, nobody)
    answers = await asyncio.gather(
        *(logins.log_in("omri", f"guess {number}", "192.0.2.1") for number in range(400)),
        return_exceptions=True,
    )
    assert answers.count(None) == len(tried) <= 7  # two are looked at together
    assert all(isinstance(each, TooManyRequests) for each in answers if each is not None)
    with pytest.raises(TooManyRequests):
        await logins.log_in("omri", "correct horse", "192.0.2.1")
    account = await logins.log_in("omri", "correct horse", "192.0.2.2")
    assert account is not None
    passwords.close()
    counting.close()
