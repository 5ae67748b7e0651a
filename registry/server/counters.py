"""What the fast paths did. Tests assert by these that the fast way was taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """How requests and bodies travelled, since the process started."""

    #: Ranges sent by sendfile from a thread.
    zero_copy: int = 0
    #: Small ranges copied in the event loop.
    in_loop: int = 0
    #: Bodies read by a thread.
    intake: int = 0
    #: Turns that ended because the peer was slow.
    stalled: int = 0
    #: Requests answered in the parser's callback.
    immediate: int = 0


COUNTERS = Counters()
