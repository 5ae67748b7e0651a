"""Which of the server's processes this is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Worker:
    """Given to `create_app` in every process that serves."""

    #: 0 to `count` - 1; a worker that takes the place of one that died has its number.
    number: int = 0
    #: How many serve the same address.
    count: int = 1
    #: A directory that the workers of one server share, empty at its start and removed at its end;
    #: readable by the owner alone. None where nobody made one, as in tests.
    run_directory: Path | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one does what is to be done once a server, such as looking for leftovers."""
        return self.number == 0
