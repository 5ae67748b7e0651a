"""How often somebody may ask: token buckets, and waits after wrong passwords. Pure but for a clock.

Everything is counted in this process alone and in bounded memory: with several processes each
counts for itself, and whoever was not seen for longest is forgotten first.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from registry.errors import TooManyRequests

# Accounts and addresses counted at once; some 200 bytes each.
REMEMBERED = 16_384

# The first wait after too many wrong passwords, doubled by each further one up to the last.
FIRST_WAIT_S = 1.0
LAST_WAIT_S = 300.0
# Wrong passwords are forgotten when none came for this long.
FORGET_AFTER_S = 900.0

# Wrong passwords from one address, for whatever accounts: at once, and in the long run.
ADDRESS_BURST = 50
ADDRESS_PER_S = 0.1


class Buckets:
    """A token bucket for each key: `burst` at once, `per_s` a second in the long run."""

    def __init__(
        self,
        burst: float,
        per_s: float,
        *,
        remembered: int = REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._per_s = per_s
        self._size = remembered
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, key: str) -> float:
        """Seconds until one can be taken; 0 is now."""
        return max(0.0, (1.0 - self._level(key, self._clock())) / self._per_s)

    def take(self, key: str) -> float:
        """Take one if there is one; else the seconds until there is."""
        now = self._clock()
        level = self._level(key, now)
        if level < 1.0:
            return (1.0 - level) / self._per_s
        self._levels[key] = level - 1.0, now
        self._levels.move_to_end(key)
        if len(self._levels) > self._size:
            self._levels.popitem(last=False)
        return 0.0

    def _level(self, key: str, now: float) -> float:
        level, since = self._levels.get(key, (self._burst, now))
        return min(self._burst, level + (now - since) * self._per_s)


@dataclass(slots=True)
class _Failures:
    count: int
    last: float
    until: float


class LoginLimits:
    """Slows down whoever guesses passwords, without locking the account's owner out.

    Counted by account *and* address, so that a stranger elsewhere cannot shut somebody out; and by
    address alone, against one password tried on many accounts.
    """

    def __init__(
        self,
        free: int,
        *,
        remembered: int = REMEMBERED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`free` wrong passwords have no consequence; 0 switches all of this off."""
        self._free = free
        self._size = remembered
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], _Failures] = OrderedDict()
        self._addresses = Buckets(
            max(ADDRESS_BURST, free), ADDRESS_PER_S, remembered=remembered, clock=clock
        )

    def check(self, account: str, address: str) -> None:
        """Before a password is looked at. Raises: TooManyRequests."""
        if not self._free:
            return
        network = network_of(address)
        wait = self._addresses.wait(network)
        found = self._failures.get((account[:64], network))
        if found is not None:
            wait = max(wait, found.until - self._clock())
        if wait > 0:
            raise TooManyRequests("too many wrong passwords", after_s=math.ceil(wait))

    def failed(self, account: str, address: str) -> None:
        """Note a wrong password."""
        if not self._free:
            return
        now, network = self._clock(), network_of(address)
        self._addresses.take(network)
        key = account[:64], network
        found = self._failures.pop(key, None)
        if found is None or now - found.last > FORGET_AFTER_S:
            found = _Failures(0, now, now)
        found.count += 1
        found.last = now
        if found.count > self._free:
            # The exponent is bounded: 2.0 ** 2000 is an error.
            doubled = FIRST_WAIT_S * 2.0 ** min(found.count - self._free - 1, 32)
            found.until = now + min(doubled, LAST_WAIT_S)
        self._failures[key] = found
        if len(self._failures) > self._size:
            self._failures.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """The owner knows the password: begin anew for this account and address."""
        self._failures.pop((account[:64], network_of(address)), None)


class RequestLimits:
    """Requests a minute, by address for callers without credentials, by account for the others.

    Challenges and refusals are not counted: who has to log in first is not punished for it.
    """

    def __init__(
        self,
        *,
        anonymous_per_minute: int,
        account_per_minute: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """0 is no limit."""
        self._anonymous = _per_minute(anonymous_per_minute, clock)
        self._accounts = _per_minute(account_per_minute, clock)

    @property
    def are_on(self) -> bool:
        return self._anonymous is not None or self._accounts is not None

    def spend(self, account: str, address: str) -> None:
        """Count one request; `account` is empty for somebody without. Raises: TooManyRequests."""
        buckets, key = self._accounts, account
        if not account:
            buckets, key = self._anonymous, network_of(address)
        if buckets is not None and (wait := buckets.take(key)):
            raise TooManyRequests("too many requests", after_s=math.ceil(wait))


def network_of(address: str) -> str:
    """What counts as one address: with IPv6 a whole /64, which is what one customer gets."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))


def _per_minute(count: int, clock: Callable[[], float]) -> Buckets | None:
    return Buckets(count, count / 60, clock=clock) if count else None
