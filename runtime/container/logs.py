"""The log of a container in docker's json-file format, written, rotated and read.

One JSON object a line: {"log":"text\\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}.
A line of output longer than 16 KiB is cut into several entries, of which only the last ends with a
newline; so is a line the container never finished.
"""

from __future__ import annotations

import json
import os
import time

from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

STREAMS = ("stdout", "stderr")
CUT = 16 << 10
MAX_BYTES = 10 << 20
MAX_FILES = 3

_encode = json.encoder.encode_basestring


@value
class Entry:
    """One line, or one piece of a long one."""

    stream: str
    text: str  # with its newline, if it has one
    time: str  # RFC 3339 with nanoseconds, UTC


def format_time(ns: int) -> str:
    """Nanoseconds since the epoch as docker writes them."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:09d}Z"


def format_entries(stream: str, lines: list[bytes], ns: int) -> bytes:
    """The log lines of some output lines that arrived together."""
    tail = f',"stream":"{stream}","time":"{format_time(ns)}"}}\n'
    return "".join(
        [f'{{"log":{_encode(line.decode(errors="replace"))}{tail}' for line in lines]
    ).encode()


def parse_entry(line: bytes) -> Entry | None:
    """None for a line that is none of ours: cut off by a crash, or written by somebody else."""
    try:
        found = json.loads(line)
        entry = Entry(found["stream"], found["log"], found["time"])
    except (ValueError, KeyError, TypeError):
        return None
    whole = isinstance(entry.text, str) and isinstance(entry.time, str)
    return entry if whole and entry.stream in STREAMS else None


class LineSplitter:
    """Cuts a stream of chunks into lines of at most `CUT` bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The pieces that are complete now, each with its newline or of full length."""
        if not chunk:
            return []
        lines = _split_keeping(self._rest + chunk)
        self._rest = b""
        if lines and not lines[-1].endswith(b"\n"):
            self._rest = lines.pop()
        if any(len(line) > CUT for line in lines):
            lines = [line[i : i + CUT] for line in lines for i in range(0, len(line), CUT)]
        while len(self._rest) >= CUT:
            lines.append(self._rest[:CUT])
            self._rest = self._rest[CUT:]
        return lines

    def finish(self) -> list[bytes]:
        """What is left when the stream ends."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


def _split_keeping(data: bytes) -> list[bytes]:
    """Lines by newline only: a carriage return belongs to the line."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


class LogWriter:
    """Appends to a container's log and rotates it; one writer at a time.

    `clock` gives nanoseconds. Closing writes what is left of unfinished lines.
    """

    def __init__(
        self,
        path: str,
        *,
        max_bytes: int = MAX_BYTES,
        max_files: int = MAX_FILES,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._clock = clock
        self._splitters = {stream: LineSplitter() for stream in STREAMS}
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def write(self, stream: str, chunk: bytes) -> None:
        self._append(stream, self._splitters[stream].feed(chunk))

    def _append(self, stream: str, lines: list[bytes]) -> None:
        if not lines:
            return
        data = format_entries(stream, lines, self._clock())
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._size += len(data)
        if self._size >= self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        os.close(self._fd)
        for number in range(self._max_files - 1, 0, -1):
            older = f"{self._path}.{number - 1}" if number > 1 else self._path
            try:
                os.replace(older, f"{self._path}.{number}")
            except FileNotFoundError:
                pass
        if self._max_files == 1:
            os.unlink(self._path)
        self._open()

    def close(self) -> None:
        for stream, splitter in self._splitters.items():
            self._append(stream, splitter.finish())
        os.close(self._fd)


def open_end(path: str) -> BinaryIO | None:
    """The log being written, open at its present end: up to there `read_log`, from there `follow`.

    None if there is none. The caller closes it.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  the caller's
    except FileNotFoundError:
        return None
    file.seek(0, os.SEEK_END)
    return file


def read_log(path: str, end: BinaryIO | None = None) -> Iterator[Entry]:
    """Every entry, oldest first, rotated files included. A missing log is an empty one.

    With `end`, those before it, also when the log is rotated meanwhile.
    """
    last = os.fstat(end.fileno()).st_ino if end is not None else None
    names = [f"{path}.{number}" for number in range(MAX_FILES - 1, 0, -1)] + [path]
    for name in names:
        try:
            with open(name, "rb") as file:
                is_last = os.fstat(file.fileno()).st_ino == last
                left = end.tell() if end is not None and is_last else None
                for line in file:
                    if left is not None:
                        left -= len(line)
                        if left < 0:
                            return
                    entry = parse_entry(line)
                    if entry is not None:
                        yield entry
                if is_last:
                    return
        except FileNotFoundError:
            continue


def read_tail(path: str, count: int, end: BinaryIO | None = None) -> list[Entry]:
    """The last `count` entries, in order; `end` as in `read_log`."""
    kept: list[Entry] = []
    for entry in read_log(path, end):
        kept.append(entry)
        if len(kept) > 2 * count + 1024:
            del kept[:-count]
    return kept[-count:] if count else []


def follow(
    path: str, is_running: Callable[[], bool], *, end: BinaryIO, interval_s: float = 0.05
) -> Iterator[Entry]:
    """Entries written from `end` on, which it closes, until the container has ended.

    Asks the file every `interval_s`; a rotation in between is noticed by the file's number.
    """
    file = end  # replaced at each rotation
    rest = b""
    try:
        while True:
            running = is_running()  # asked first, so that what it wrote last is still read
            while chunk := file.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    entry = parse_entry(line)
                    if entry is not None:
                        yield entry
            try:
                current = os.stat(path)
            except FileNotFoundError:
                return  # removed with its container
            if current.st_ino != os.fstat(file.fileno()).st_ino:
                file.close()
                file = open(path, "rb")  # noqa: SIM115
                rest = b""
                continue
            if not running:
                return
            time.sleep(interval_s)
    finally:
        file.close()
