"""The json-file log: what is written is what is read."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.container.logs import (
    CUT,
    Entry,
    LineSplitter,
    LogWriter,
    follow,
    format_entries,
    format_time,
    open_end,
    parse_entry,
    read_log,
    read_tail,
)


def test_format_is_dockers() -> None:
    found = format_entries("stdout", [b'hi "x"\n'], 1_234_567_890_123_456_789)
    assert (
        found
        == b'{"log":"hi \\"x\\"\\n","stream":"stdout","time":"2009-02-13T23:31:30.123456789Z"}\n'
    )
    assert json.loads(found)["log"] == 'hi "x"\n'


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_splitter_keeps_every_byte(chunks: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.finish()
    assert b"".join(lines) == b"".join(chunks)
    assert all(line.count(b"\n") <= 1 and b"\n" not in line[:-1] for line in lines)


def test_long_lines_are_cut() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (2 * CUT + 5)) + splitter.feed(b"y\n")
    assert [len(line) for line in lines] == [CUT, CUT, 7]


@given(st.binary(max_size=60))
def test_arbitrary_lines_are_entries_or_none(line: bytes) -> None:
    assert parse_entry(line) is None or isinstance(parse_entry(line), Entry)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=30))
def test_entries_round_trip(text: str) -> None:
    line = format_entries("stderr", [text.encode()], 5)
    assert line.count(b"\n") == 1
    assert parse_entry(line) == Entry("stderr", text, format_time(5))


def test_writer_rotates_and_reader_sees_all_that_is_kept(tmp_path) -> None:
    path = str(tmp_path / "log")
    writer = LogWriter(path, max_bytes=1000, max_files=3)
    for number in range(60):
        writer.write("stdout", b"line %d\n" % number)
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    kept = [entry.text for entry in read_log(path)]
    assert kept == [f"line {n}\n" for n in range(60 - len(kept), 60)]
    assert [entry.text for entry in read_tail(path, 3)] == kept[-3:]
    assert read_tail(path, 0) == []


def test_unfinished_lines_of_both_streams_are_written_at_the_end(tmp_path) -> None:
    path = str(tmp_path / "log")
    writer = LogWriter(path)
    writer.write("stdout", b"half ")
    writer.write("stderr", b"other")
    writer.write("stdout", b"line")
    assert list(read_log(path)) == []
    writer.close()
    assert [(e.stream, e.text) for e in read_log(path)] == [
        ("stdout", "half line"),
        ("stderr", "other"),
    ]


def test_damaged_lines_are_passed_over(tmp_path) -> None:
    path = tmp_path / "log"
    good = format_entries("stdout", [b"good\n"], 1)
    path.write_bytes(b'{"log":"cut\n' + good + b"\xff\n[]\n" + good[:-5])
    assert [entry.text for entry in read_log(str(path))] == ["good\n"]


def test_missing_log_is_empty(tmp_path) -> None:
    assert list(read_log(str(tmp_path / "none"))) == []


def test_following_survives_a_rotation(tmp_path) -> None:
    path = str(tmp_path / "log")
    writer = LogWriter(path, max_bytes=300, max_files=3)
    running = threading.Event()
    running.set()

    def write() -> None:
        for number in range(12):
            writer.write("stdout", b"%d\n" % number)
            time.sleep(0.02)
        writer.close()
        running.clear()

    thread = threading.Thread(target=write)
    thread.start()
    start = open(path, "rb")  # noqa: SIM115  closed by `follow`
    found = [e.text for e in follow(path, running.is_set, end=start, interval_s=0.005)]
    thread.join()
    assert found == [f"{n}\n" for n in range(12)]


@pytest.mark.parametrize("rotated", [False, True])
def test_what_is_written_between_reading_and_following_comes_once(tmp_path, rotated: bool) -> None:
    path = str(tmp_path / "log")
    writer = LogWriter(path, max_bytes=300 if rotated else 1 << 20)
    writer.write("stdout", b"1\n2\n")
    end = open_end(path)
    assert end is not None
    writer.write("stdout", b"3\n4\n")  # the rotation, if any, comes after it
    before = [entry.text for entry in read_log(path, end)]
    assert before == ["1\n", "2\n"]
    writer.write("stdout", b"5\n")
    after = [entry.text for entry in follow(path, lambda: False, end=end)]
    assert after == ["3\n", "4\n", "5\n"]
    writer.close()
