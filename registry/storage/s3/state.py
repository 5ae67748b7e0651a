"""What an upload's row says about bytes in S3, and how large its parts are. Pure.

An upload is any number of parts of one multipart upload, then at most one *tail*: an object of its
own with the last bytes, because S3 takes no part below 5 MiB except the last.

Two writers never use the same part number. A writer reserves numbers in the row, by compare-and-
swap, before it uses them; what it did not use it gives back when it ends well. So a writer that
was given up (its machine hung, its client went elsewhere) can still store parts, but under numbers
that the row of the upload never names, and only named parts become the blob.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from registry.errors import RegistryError

MIB = 1 << 20

#: S3's own bounds.
MIN_PART = 5 * MIB
MAX_PARTS = 10_000

# The first parts are small, so that the first bytes leave soon; later ones large, so that 10,000
# of them hold 560 GiB.
_MANY = 4000
_PART, _LATE_PART = 16 * MIB, 96 * MIB
_LEAST_LATE_PART = 64 * MIB


def part_size(number: int) -> int:
    """Bytes of a full part."""
    return _PART if number <= _MANY else _LATE_PART


def least_part(number: int) -> int:
    """Fewer bytes than this wait in the tail for more to come."""
    return MIN_PART if number <= _MANY else _LEAST_LATE_PART


class InvalidState(RegistryError):
    """Text that no version of this store wrote: the upload cannot be continued."""


@dataclass(frozen=True, slots=True)
class Run:
    """Parts with consecutive numbers."""

    first: int
    count: int
    #: Of all of them together.
    size: int


@dataclass(frozen=True, slots=True)
class UploadState:
    #: S3's id of the multipart upload; empty as long as there is none.
    multipart: str = ""
    #: The parts that count, in order.
    runs: tuple[Run, ...] = ()
    #: Name of the tail, and its bytes; empty if there is none.
    tail: str = ""
    tail_size: int = 0
    #: The lowest part number that nobody reserved.
    next: int = 1
    #: Who reserved numbers and may still be writing; empty for nobody.
    writer: str = ""
    #: When the writer is given up, in seconds since 1970. Courtesy only: a writer that comes late
    #: does no harm.
    until: int = 0

    @property
    def size(self) -> int:
        """Bytes of the upload."""
        return sum(run.size for run in self.runs) + self.tail_size

    def format(self) -> str:
        fields = [
            self.multipart,
            [[run.first, run.count, run.size] for run in self.runs],
            self.tail,
            self.tail_size,
            self.next,
            self.writer,
            self.until,
        ]
        return "s3:" + json.dumps(fields, separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> UploadState:
        """Empty text is an upload without bytes. Raises: InvalidState."""
        if not text:
            return cls()
        try:
            kind, _, fields = text.partition(":")
            multipart, runs, tail, tail_size, following, writer, until = json.loads(fields)
            state = cls(
                str(multipart),
                tuple(Run(int(first), int(count), int(size)) for first, count, size in runs),
                str(tail),
                int(tail_size),
                int(following),
                str(writer),
                int(until),
            )
        except (ValueError, TypeError) as error:
            raise InvalidState("an upload was begun in another kind of storage") from error
        if kind != "s3":
            raise InvalidState("an upload was begun in another kind of storage")
        return state


def with_part(runs: tuple[Run, ...], number: int, size: int) -> tuple[Run, ...]:
    """`runs` and one more part, whose number is above all others."""
    if runs and runs[-1].first + runs[-1].count == number:
        last = runs[-1]
        return (*runs[:-1], Run(last.first, last.count + 1, last.size + size))
    return (*runs, Run(number, 1, size))
