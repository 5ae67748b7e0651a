"""How long a peer may be waited for in one body: a steady dribble has an end."""

from __future__ import annotations

#: Bytes that a peer has to move for each second that it is waited for, beyond the idle limit.
SLOWEST = 1024


class Pace:
    """Time spent waiting for one peer, against the bytes that came or went.

    A peer may be waited for `idle_s` in one go, and in all for `idle_s` and a second more for
    each `SLOWEST` bytes. Our own disk and store cost it nothing: only waiting counts.
    """

    def __init__(self, idle_s: float) -> None:
        self._idle_s = idle_s
        self._waited = 0.0

    def left(self, size: int) -> float:
        """Seconds to wait at most now, after `size` bytes; 0 if the peer is too slow."""
        return max(0.0, min(self._idle_s, self._idle_s + size / SLOWEST - self._waited))

    def waited(self, seconds: float) -> None:
        self._waited += seconds
