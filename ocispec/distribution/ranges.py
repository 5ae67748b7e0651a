"""Range of downloads, Content-Range and Range of uploads.

Downloads follow RFC 9110, 14. Uploads use the same header names for something simpler, without a
unit: `Content-Range: 0-99` of a chunk and `Range: 0-99` of what has arrived, both ends inclusive.
"""

from __future__ import annotations

import re

from ocispec.errors import InvalidHeader
from ocispec.value import value

# Longer than any range that can be meant.
_MAX_HEADER = 200
# Digits of 2**63 - 1: a longer number is beyond the end of everything.
_MAX_DIGITS = 19


class RangeNotSatisfiable(InvalidHeader):
    """No byte of the content is in the range: answer 416 with `unsatisfied_range(size)`."""

    def __init__(self, header: str, size: int) -> None:
        super().__init__(f"range {header[:80]!a} is not inside the {size} bytes there are")
        self.size = size


@value
class ByteRange:
    """Some bytes of a content: from offset `start` up to, not including, offset `stop`."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    @property
    def last(self) -> int:
        """The offset of the last byte, as headers want it."""
        return self.stop - 1

    def content_range(self, size: int) -> str:
        """The Content-Range of a 206 answer; `size` is of the whole content."""
        return f"bytes {self.start}-{self.last}/{size}"

    def __str__(self) -> str:
        """The Range header that asks for these bytes."""
        return f"bytes={self.start}-{self.last}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Which bytes of a content of `size` bytes a Range header asks for.

    None means to ignore the header and send everything: there is none, or it has another unit,
    several ranges, or no sense. An end beyond the content is cut to it.

    Raises: RangeNotSatisfiable if the range begins at or after the end, is the last 0 bytes, or
    ends before it begins (`bytes=500-0`, which RFC 9110 would let us ignore and the conformance
    suite does not).
    """
    if header is None or len(header) > _MAX_HEADER:
        return None
    match = re.fullmatch(r"[ \t]*bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", header, re.IGNORECASE)
    if match is None or match[0].strip().endswith("=-"):
        return None
    first, last = match.groups()
    if not first:
        length = min(_number(last), size)
        if length == 0 and size > 0:
            raise RangeNotSatisfiable(header, size)
        return ByteRange(size - length, size) if length else None
    start = _number(first)
    stop = min(_number(last) + 1, size) if last else size
    if start >= stop:
        raise RangeNotSatisfiable(header, size)
    return ByteRange(start, stop)


def unsatisfied_range(size: int) -> str:
    """The Content-Range of a 416 answer to a download."""
    return f"bytes */{size}"


def parse_content_range(header: str) -> tuple[int, int]:
    """First and last offset, both inclusive, of an upload's Content-Range or Range.

    `bytes 0-99/100`, `bytes 0-99/*` and `bytes=0-99` are read as well as `0-99`.
    Raises: InvalidHeader if it is none of these, ends before it begins or after its total.
    """
    pattern = r"[ \t]*(?:bytes[ =])?[ \t]*([0-9]{1,19})-([0-9]{1,19})(?:/([0-9]{1,19}|\*))?[ \t]*"
    match = re.fullmatch(pattern, header) if len(header) <= _MAX_HEADER else None
    if match is None:
        raise InvalidHeader(
            f"{header[:80]!a} is not a content range", hint="write first-last, such as 0-99"
        )
    first, last = int(match[1]), int(match[2])
    total = match[3] if match[3] not in (None, "*") else None
    if last < first or (total is not None and last >= int(total)):
        raise InvalidHeader(f"content range {header[:80]!a} contradicts itself")
    return first, last


def format_content_range(first: int, last: int) -> str:
    """The Content-Range of a chunk to upload, both offsets inclusive."""
    return f"{first}-{last}"


def format_upload_range(size: int) -> str:
    """The Range of an upload that has `size` bytes. Of no bytes `0-0`, as everybody does."""
    return f"0-{max(size - 1, 0)}"


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _MAX_DIGITS else 10**_MAX_DIGITS
