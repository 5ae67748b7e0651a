from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.distribution.ranges import (
    ByteRange,
    RangeNotSatisfiable,
    format_content_range,
    format_upload_range,
    parse_content_range,
    parse_range,
    unsatisfied_range,
)
from ocispec.errors import InvalidHeader

SIZE = 2048


@pytest.mark.parametrize(
    ("header", "expected", "description"),
    [
        ("bytes=500-1499", (500, 1500), "from, to"),
        ("bytes=500-", (500, 2048), "from, to the end"),
        ("bytes=-500", (1548, 2048), "the last"),
        ("bytes=-5000", (0, 2048), "more than there is"),
        ("bytes=2000-5000", (2000, 2048), "an end beyond is cut"),
        ("bytes=0-0", (0, 1), "the first byte"),
        ("bytes=2047-2047", (2047, 2048), "the last byte"),
        ("bytes=0-" + "9" * 100, (0, 2048), "an end of a hundred digits"),
        ("bytes=00000000000000000000000001-2", (1, 3), "zeros in front"),
        ("Bytes=0-1", (0, 2), "units have no case"),
        (" bytes=0-1 ", (0, 2), "space around"),
    ],
)
def test_satisfiable(header: str, expected: tuple[int, int], description: str) -> None:
    found = parse_range(header, SIZE)
    assert found == ByteRange(*expected)


@pytest.mark.parametrize(
    ("header", "description"),
    [
        (None, "no header"),
        ("", "empty"),
        ("items=0-1", "another unit"),
        ("bytes", "no range"),
        ("bytes=", "no range"),
        ("bytes=-", "neither end"),
        ("bytes=a-b", "no numbers"),
        ("bytes=0-1,3-4", "several ranges"),
        ("bytes=0-1-2", "three numbers"),
        ("bytes=+1-2", "signed"),
        ("bytes=1_0-20", "digits as Python writes them"),
        ("bytes=\u0661-2", "digits not of ASCII"),
        ("bytes=0x1-2", "hexadecimal"),
        ("bytes=0-1\n", "newline"),
        ("bytes=0-" + "9" * 1000, "endless"),
    ],
)
def test_ignored(header: str | None, description: str) -> None:
    assert parse_range(header, SIZE) is None


@pytest.mark.parametrize(
    ("header", "size", "description"),
    [
        ("bytes=500-0", SIZE, "ends before it begins"),
        ("bytes=5000-10000", SIZE, "begins after the end"),
        ("bytes=2048-", SIZE, "begins at the end"),
        ("bytes=-0", SIZE, "the last nothing"),
        ("bytes=" + "9" * 100 + "-", SIZE, "a start of a hundred digits"),
        ("bytes=0-", 0, "of empty content"),
        ("bytes=0-10", 0, "of empty content"),
    ],
)
def test_not_satisfiable(header: str, size: int, description: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, size)
    assert caught.value.size == size
    assert isinstance(caught.value, InvalidHeader)
    assert unsatisfied_range(size) == f"bytes */{size}"


def test_the_last_bytes_of_empty_content_are_all_of_it() -> None:
    assert parse_range("bytes=-5", 0) is None


@given(st.integers(0, 2**63), st.integers(1, 2**40))
def test_a_range_reads_back(start: int, length: int) -> None:
    wanted = ByteRange(start, start + length)
    assert parse_range(str(wanted), start + length + 1) == wanted
    assert wanted.length == length
    assert wanted.content_range(start + length) == f"bytes {start}-{wanted.last}/{start + length}"


@given(st.text() | st.from_regex(r"bytes=[0-9]*-[0-9]*"), st.integers(0, 2**63))
def test_any_header_is_inside_ignored_or_unsatisfiable(header: str, size: int) -> None:
    try:
        found = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    if found is not None:
        assert 0 <= found.start < found.stop <= size


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("0-99", (0, 99)),
        ("5-5", (5, 5)),
        ("bytes 0-99/100", (0, 99)),
        ("bytes 0-99/*", (0, 99)),
        ("0-99/100", (0, 99)),
        ("bytes=0-99", (0, 99)),
        (" 0-99 ", (0, 99)),
    ],
)
def test_content_range(header: str, expected: tuple[int, int]) -> None:
    assert parse_content_range(header) == expected


@pytest.mark.parametrize(
    ("header", "description"),
    [
        ("", "empty"),
        ("0", "one number"),
        ("-99", "no start"),
        ("0-", "no end"),
        ("9-0", "ends before it begins"),
        ("0-99/99", "ends after its total"),
        ("*/100", "unsatisfied"),
        ("items 0-99", "another unit"),
        ("0-99,100-199", "several"),
        ("-1-5", "negative"),
        ("0-\u0661", "digits not of ASCII"),
        ("0-99\n", "newline"),
        ("0-" + "9" * 20, "more digits than any size has"),
        ("0-" + "9" * 1000, "endless"),
    ],
)
def test_malformed_content_range(header: str, description: str) -> None:
    with pytest.raises(InvalidHeader):
        parse_content_range(header)


@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_content_range_reads_back(first: int, more: int) -> None:
    assert parse_content_range(format_content_range(first, first + more)) == (first, first + more)


@given(st.text())
def test_any_content_range_is_read_or_refused(header: str) -> None:
    try:
        first, last = parse_content_range(header)
    except InvalidHeader:
        return
    assert 0 <= first <= last


@pytest.mark.parametrize(("size", "expected"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (100, "0-99")])
def test_range_of_an_upload(size: int, expected: str) -> None:
    assert format_upload_range(size) == expected
