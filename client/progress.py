"""What a transfer tells about itself while it runs.

The library reports facts to an object of this shape, from any of its threads; how they look is the
business of whoever passes it in.
"""

from __future__ import annotations

from client.errors import TransferStopped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Event
    from typing import Protocol

    from ocispec.digest import Digest

    class Progress(Protocol):
        """May be called from several threads at once; must return quickly."""

        def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
            """A blob is in this state now; `done` of `total` bytes where that means something."""


# The states, in the words docker prints.
WAITING_LAYER = "Pulling fs layer"
WAITING = "Waiting"
DOWNLOADING = "Downloading"
VERIFYING = "Verifying Checksum"
DOWNLOADED = "Download complete"
EXTRACTING = "Extracting"
PULLED = "Pull complete"
EXISTS = "Already exists"
PREPARING = "Preparing"
PUSHING = "Pushing"
PUSHED = "Pushed"
MOUNTED = "Mounted from"
EXISTS_THERE = "Layer already exists"

# After one of these nothing more is said about a blob in the same transfer.
FINAL = frozenset({PULLED, EXISTS, PUSHED, EXISTS_THERE})


class Silence:
    """Progress that nobody watches."""

    def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
        pass


class Stoppable:
    """Passes progress on until the event is set; from then on every report ends its transfer.

    Transfers report every few megabytes, so this stops them soon without a check in each loop.
    """

    def __init__(self, progress: Progress, stop: Event) -> None:
        self._progress = progress
        self._stop = stop

    def step(self, digest: Digest, state: str, done: int = 0, total: int = 0) -> None:
        """Raises TransferStopped once the event is set."""
        if self._stop.is_set():
            raise TransferStopped(f"blob {digest} was not finished")
        self._progress.step(digest, state, done, total)
