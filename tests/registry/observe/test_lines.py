"""The access log: what stands in it, what never does, and that it stops nobody."""

from __future__ import annotations

import json
import threading

import pytest

from registry.api.middleware import Observing
from registry.observe.lines import FORMATS, AccessLog, LineWriter, json_line, text_line
from registry.observe.requests import About, Ended, Observer


async def nothing(*_: object) -> None:
    pass


def ended(**about: object) -> Ended:
    return Ended("GET", 200, 0.0125, 3, 7, About(**about))  # type: ignore[arg-type]


async def test_a_line_counts_bytes_of_every_kind_and_leaves_the_query_out() -> None:
    async def app(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 206, "headers": []})
        await send({"type": "http.response.zerocopysend", "count": 1000})
        await send({"type": "http.response.body", "body": b"12345"})

    observer, lines = Observer(), []
    observer.add_reader(lambda each: lines.append(text_line(each, 0)))
    scope = {
        "type": "http",
        "method": "GET",
        "raw_path": b"/v2/\xff",
        "client": ("192.0.2.1", 1),
        "query_string": b"secret",
        "headers": [(b"authorization", b"secret"), (b"cookie", b"secret")],
    }
    await Observing(app, observer)(scope, nothing, nothing)  # type: ignore[arg-type]
    [line] = lines
    assert " 192.0.2.1 GET /v2/\\xff 206 1005 0 " in line
    assert "secret" not in line


def test_text_has_a_dash_for_what_is_unknown() -> None:
    assert text_line(ended(), 0.25) == (
        '1970-01-01T00:00:00.250Z - GET - 200 7 3 12.5ms other - - - ""'
    )


def test_json_has_every_field() -> None:
    line = json_line(
        ended(
            kind="blob",
            client="::1",
            path=b"/v2/a/blobs/x",
            subject="alice",
            repository="a",
            request_id="7",
            user_agent=b"docker/1",
        ),
        0,
    )
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.000Z",
        "client": "::1",
        "method": "GET",
        "path": "/v2/a/blobs/x",
        "status": 200,
        "sent": 7,
        "received": 3,
        "ms": 12.5,
        "kind": "blob",
        "repository": "a",
        "subject": "alice",
        "request_id": "7",
        "user_agent": "docker/1",
    }


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "evil", ["\n127.0.0.1 GET /forged 200", "\r", "\x1b[2J", "\x00", "\x9b31m", "\u2028", '"\t']
)
def test_attack_log_injection_by_path_agent_and_names(form: str, evil: str) -> None:
    raw = evil.encode()
    request = ended(
        path=raw, user_agent=raw, repository=evil, client=evil, subject=evil, request_id=evil
    )
    line = FORMATS[form](request, 0)
    assert line.isascii() and line.isprintable()
    if form == "text":
        assert line.count(" ") == 12 + line.rpartition(' "')[2].count(" ")


def test_attack_endless_path_and_agent_are_cut() -> None:
    line = text_line(ended(path=b"/" * 60_000, user_agent=b"a" * 60_000), 0)
    assert len(line) < 2048


def test_lines_are_written_in_order_and_all_by_the_end() -> None:
    written: list[str] = []
    writer = LineWriter(written.append)
    log = AccessLog(writer, lambda each, now: each.about.path.decode())
    for number in range(1000):
        log(ended(path=b"%d" % number))
    writer.close()
    assert "".join(written).split() == [str(number) for number in range(1000)]


def test_a_reader_that_does_not_read_stops_nobody_and_is_told_what_it_missed() -> None:
    may_write = threading.Event()
    is_writing = threading.Event()
    written: list[str] = []

    def write(text: str) -> None:
        is_writing.set()
        may_write.wait()
        written.append(text)

    writer = LineWriter(write, max_waiting=10)
    writer.put("first")
    is_writing.wait()  # the pipe is full from here on
    for number in range(25):
        writer.put(str(number))
    assert writer.dropped == 15
    may_write.set()
    writer.close()
    lines = "".join(written).splitlines()
    assert lines == ["first", *map(str, range(10)), "15 lines of the access log were dropped"]


def test_a_broken_pipe_is_not_the_registrys_end() -> None:
    def write(text: str) -> None:
        raise BrokenPipeError

    writer = LineWriter(write)
    writer.put("lost")
    writer.close()
    assert not writer._thread.is_alive()
