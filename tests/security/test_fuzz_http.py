"""A real server on loopback and bytes that no client sends.

Whatever comes: no 500, no second answer that was smuggled in, no file outside the data directory,
bounded memory, and the right bytes for the next honest client.

    PYREG_TEST_FUZZ_SECONDS=600 PYREG_TEST_FUZZ_SEED=7 pytest tests/security/test_fuzz_http.py
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.security import shapes
from tests.security.serving import (
    BLOB,
    DIGEST,
    PREY,
    REPOSITORY,
    Target,
    converse,
    request,
    start,
    statuses,
)

SECONDS = float(os.environ.get("PYREG_TEST_FUZZ_SECONDS", "8"))
SEED = int(os.environ.get("PYREG_TEST_FUZZ_SEED", "1"))
AT_ONCE = 24
# What a flood of heads may leave behind; and what all kinds of requests do, which is reached within
# ten thousand of them and then stays.
GROWTH = 48 << 20
GROWTH_OF_ALL = 128 << 20


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    running = start(tmp_path_factory.mktemp("fuzz"))
    for name in (REPOSITORY, PREY):
        put = request("POST", f"/v2/{name}/blobs/uploads/?digest={DIGEST}", body=BLOB)
        answer, _ = asyncio.run(converse(running, put))
        assert statuses(answer) == [201], answer
    yield running
    running.stop()
    assert running.process.returncode in (0, -signal.SIGTERM)
    log = running.log.read_text(errors="replace")
    assert "Traceback" not in log, log[log.index("Traceback") :][:6000]


@pytest.fixture(autouse=True)
def check(target: Target) -> Iterator[None]:
    """After each test: alive, correct, and nothing written where it should not be."""
    yield
    get = request("GET", f"/v2/{REPOSITORY}/blobs/{DIGEST}", "Connection: close")
    answer, _ = asyncio.run(converse(target, get, quiet_s=20))
    assert statuses(answer) == [200]
    assert answer.endswith(b"\r\n\r\n" + BLOB)
    assert target.outside() == target.before
    assert target.strangers() == []


def refused_or_one_answer(sent: bytes, answer: bytes) -> None:
    assert shapes.MARK.encode() not in answer, (sent[:300], answer)
    for status in statuses(answer):
        assert status < 500 or status in (501, 505), (sent[:300], answer[:300])


@pytest.mark.parametrize("split", ["whole", "in two", "byte by byte"])
@pytest.mark.parametrize("name", shapes.SMUGGLING)
async def test_attack_request_smuggling(target: Target, name: str, split: str) -> None:
    raw = shapes.SMUGGLING[name]
    if split == "byte by byte":
        if len(raw) > 2000:
            raw = raw[:2000]
        pieces = [raw[place : place + 1] for place in range(len(raw))]
    else:
        cut = len(raw) - len(shapes.HIDDEN) if split == "in two" else len(raw)
        pieces = [raw[:cut], raw[cut:]]
    pause_s = 0.01 if split == "in two" else 0.0
    answer, _ = await converse(target, *pieces, pause_s=pause_s, quiet_s=0.1)
    refused_or_one_answer(raw, answer)


async def test_attack_pipelined_rubbish_after_a_good_request(target: Target) -> None:
    good = request("GET", "/v2/")
    for rubbish in (b"\0" * 100, b"GET", b"nonsense\r\n\r\n", b"\r\n" * 50, b"\x16\x03\x01"):
        answer, _ = await converse(target, good + rubbish)
        assert set(statuses(answer)) <= {200, 400}
        refused_or_one_answer(good + rubbish, answer)


async def test_attack_heads_without_end_are_refused_and_not_kept(target: Target) -> None:
    """CVE-2023-44487's plain cousins: huge and many headers, on many connections at once."""
    line = b"X-Filler: " + b"a" * 1000 + b"\r\n"
    before = target.resident()

    async def flood(head: bytes) -> None:
        answer, closed = await converse(target, head, *[line] * 1000, quiet_s=5)
        assert closed
        # A reset may overtake the answer; if it came, it is this one.
        assert statuses(answer) in ([], [400], [431])

    heads = [b"GET /v2/ HTTP/1.1\r\nHost: x\r\n", b"GET /" + b"a" * 70_000, b"PUT / HTTP/1.1\r\n"]
    await asyncio.gather(*(flood(head) for head in heads * 8))
    assert target.resident() - before < GROWTH


@pytest.mark.parametrize("sent", [b"", b"G", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"])
async def test_attack_slowloris_heads_are_given_up(target: Target, sent: bytes) -> None:
    """One byte now and then must not keep a connection for ever."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    writer.write(sent)
    ended = asyncio.create_task(reader.read())
    while not ended.done():  # until the server closes; without its deadline this never ends
        if sent:
            writer.write(b"X")
        await asyncio.wait([ended], timeout=0.1)
    try:
        assert ended.result()[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 431")
    except OSError:
        pass
    writer.close()


@pytest.mark.parametrize("framing", ["Content-Length: 65536", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("method", ["PUT manifest", "PATCH", "PUT blob", "POST blob", "token"])
async def test_attack_slow_bodies_are_given_up(target: Target, method: str, framing: str) -> None:
    path = f"/v2/{REPOSITORY}/blobs/uploads/"
    if method in ("PATCH", "PUT blob"):
        begun, _ = await converse(target, request("POST", path))
        path = begun.partition(b"location: ")[2].partition(b"\r\n")[0].decode()
    paths = {
        "PUT manifest": f"/v2/{REPOSITORY}/manifests/v1",
        "PUT blob": f"{path}?digest={DIGEST}",
        "POST blob": f"{path}?digest={DIGEST}",
        "token": "/token",
    }
    head = request(method.split()[0].replace("token", "POST"), paths.get(method, path), framing)
    head = head.replace(b"Content-Length: 0\r\n", b"")
    first = b"5\r\nabcde\r\n" if "chunked" in framing else b"abcde"
    if method in ("PUT manifest", "token"):
        # These are read by messages and wait for a minute: it is enough that they wait.
        answer, closed = await converse(target, head + first)
        assert (answer, closed) == (b"", False)
        return
    answer, closed = await converse(target, head + first, quiet_s=20)
    assert closed
    assert statuses(answer) in ([408], [])


async def test_bodies_that_break_off_leave_the_server_as_it_was(target: Target) -> None:
    path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={DIGEST}"
    for method in (
        request("POST", path, body=BLOB),
        request("PUT", "/v2/a/manifests/b", body=BLOB),
    ):
        for cut in range(len(method) - len(BLOB) - 3, len(method), 97):
            answer, _ = await converse(target, method[:cut], quiet_s=0.02)
            refused_or_one_answer(method[:cut], answer)


async def test_attack_random_bytes(target: Target) -> None:
    """As many as fit into the time; the same ones for the same seed."""
    moment = random.Random(SEED)
    deadline = time.monotonic() + SECONDS
    before = target.resident()
    sent = 0

    async def one(raw: bytes) -> None:
        nonlocal sent
        answer, _ = await converse(target, raw, quiet_s=0.1)
        for status in statuses(answer):
            assert status < 500 or status in (501, 505), (raw[:2000], answer[:500])
        assert b"root:x:" not in answer and b"SQLite format" not in answer
        assert b"\nX: y" not in answer
        sent += 1

    while time.monotonic() < deadline:
        batch = [shapes.mutated(moment) for _ in range(AT_ONCE)]
        await asyncio.gather(*map(one, batch))
    assert sent >= AT_ONCE
    assert target.resident() - before < GROWTH_OF_ALL
