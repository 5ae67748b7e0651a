"""What a transfer tells about itself while it runs.

The library reports facts to an object of this shape, from any of its threads; how they look is the
business of whoever passes it in.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
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
