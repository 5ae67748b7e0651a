"""`/metrics`: what it counts, who may read it, and that nobody can make it grow."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from registry.errors import InvalidSettings
from registry.observe.counts import KINDS, METHODS, RequestCounts
from registry.observe.listener import listen
from registry.observe.monitoring import Monitoring
from registry.observe.requests import Observer
from registry.observe.workers import SharedCounts, add_up, snapshot
from registry.settings import Settings
from registry.worker import Worker
from tests.registry.api.conftest import Registry, Start, push_blob

TOKEN = "a token of metrics"
LOCAL = {"host": "localhost:5000"}


def values(text: str) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(registry: Registry, **headers: str) -> dict[tuple[str, ...], float]:
    answer = await registry.anonymous.get("/metrics", headers={**LOCAL, **headers})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return values(answer.text)


async def test_a_push_and_a_pull_are_counted(registry: Registry, alice: httpx.AsyncClient) -> None:
    before = await scrape(registry)
    digest = await push_blob(alice, "team/app", b"0123456789")
    assert (await alice.get(f"/v2/team/app/blobs/{digest}")).content == b"0123456789"
    assert (await alice.get("/v2/team/app/manifests/none")).status_code == 404
    unfinished = await alice.post("/v2/team/app/blobs/uploads/")
    cancelled = await alice.post("/v2/team/app/blobs/uploads/")
    assert (await alice.delete(cancelled.headers["location"])).status_code == 204
    assert unfinished.status_code == 202
    now = await scrape(registry)

    def grown(*key: str) -> float:
        return now.get(key, 0.0) - before.get(key, 0.0)

    requests = "pyreg_http_requests_total"
    assert grown(requests, "uploads", "POST", "2xx") == 3
    assert grown(requests, "upload", "PUT", "2xx") == 1
    assert grown(requests, "blob", "GET", "2xx") == 1
    assert grown(requests, "manifest", "GET", "4xx") == 1
    assert grown("pyreg_http_received_bytes_total", "upload", "PATCH") == 10
    assert grown("pyreg_http_sent_bytes_total", "blob", "GET") == 10
    assert grown("pyreg_http_request_duration_seconds_count", "blob", "GET") == 1
    assert grown("pyreg_http_request_duration_seconds_bucket", "blob", "+Inf", "GET") == 1
    assert grown("pyreg_uploads_total", "begun") == 3
    assert grown("pyreg_uploads_total", "finished") == 1
    assert grown("pyreg_uploads_total", "cancelled") == 1
    assert now["pyreg_uploads_open",] == 1
    assert grown("pyreg_database_operation_duration_seconds_count", "write") >= 4
    assert now["pyreg_database_operations_in_progress", "write"] == 0
    for direction in ("in", "out"):
        for path in ("fast", "plain"):
            assert now["pyreg_transfers_in_progress", direction, path] == 0
    assert now["process_resident_memory_bytes",] > 1 << 20
    assert [key for key in now if key[0] == "pyreg_build_info"]


async def test_failures_are_counted_by_class(
    registry: Registry, alice: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    before = (await scrape(registry)).get(("pyreg_failures_total", "unexpected"), 0)
    monkeypatch.setattr("registry.api.dispatch.RepositoryName.parse", broken)
    answer = await alice.get("/v2/team/app/tags/list", headers={"x-request-id": "trace.me-7"})
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "trace.me-7"
    assert (await scrape(registry))["pyreg_failures_total", "unexpected"] == before + 1


async def test_a_failure_is_logged_with_the_id_that_the_client_was_told(
    alice: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("registry.api.dispatch.RepositoryName.parse", broken)
    answer = await alice.get("/v2/team/app/tags/list")
    assert f"request {answer.headers['x-request-id']} failed: ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("given", [b"a b", b"x" * 65, b"\x1b[2J", b"a\nb", b"", b"\xe9", b"-x"])
async def test_attack_request_id_that_is_not_plain_is_replaced(
    registry: Registry, given: bytes
) -> None:
    answer = await registry.anonymous.get("/livez", headers={b"x-request-id": given})
    assert answer.headers["x-request-id"].isalnum()
    again = await registry.anonymous.get("/livez", headers={b"x-request-id": given})
    assert again.headers["x-request-id"] != answer.headers["x-request-id"]


def test_attack_cardinality_by_odd_methods_kinds_and_statuses() -> None:
    counts = RequestCounts()
    for number in range(5000):
        counts.add(f"kind{number}", f"METHOD{number}", 1000 + number, 1.0, 0, 0)
    assert list(counts.rows) == [("other", "other", 0)]
    assert counts.rows["other", "other", 0][0] == 5000


async def test_attack_cardinality_by_repositories_and_paths(registry: Registry) -> None:
    for number in range(50):
        await registry.anonymous.get(f"/v2/made/up{number}/manifests/x")
        await registry.anonymous.get(f"/nothing/{number}")
        await registry.anonymous.request(f"ODD{number}", "/v2/")
    found = await scrape(registry)
    for key in found:
        if key[0] == "pyreg_http_requests_total":
            assert key[1] in KINDS | {"other"} and key[2] in METHODS | {"other"}
    assert not [key for key in found if "made" in str(key)]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "registry.example.com"},
        {"host": "localhost.example.com"},
        {"host": "192.0.2.1:5000"},
        {**LOCAL, "x-forwarded-for": "127.0.0.1"},
        {**LOCAL, "forwarded": "for=127.0.0.1"},
        {**LOCAL, "via": "1.1 proxy"},
        {**LOCAL, "authorization": "Bearer wrong"},
    ],
)
async def test_attack_metrics_through_a_proxy_on_the_same_machine(
    start: Start, headers: dict[str, str]
) -> None:
    async with start() as registry:
        answer = await registry.anonymous.get("/metrics", headers=headers)
        assert answer.status_code == (200 if "authorization" in headers else 403)
    async with start(public_url="https://registry.example.com") as registry:
        assert (await registry.anonymous.get("/metrics", headers=headers)).status_code == 403


async def test_attack_metrics_from_elsewhere(start: Start) -> None:
    async with start() as registry:
        transport = httpx.ASGITransport(registry.app, client=("192.0.2.9", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/metrics")).status_code == 403


async def test_the_token_opens_metrics_from_everywhere(start: Start) -> None:
    async with start(metrics="token", metrics_token=TOKEN) as registry:
        for authorization, status in (
            (f"Bearer {TOKEN}", 200),
            ("Bearer wrong", 401),
            (f"Basic {TOKEN}", 401),
            ("Bearer", 401),
        ):
            answer = await registry.anonymous.get(
                "/metrics", headers={"authorization": authorization, "host": "example.com"}
            )
            assert answer.status_code == status
        assert (await registry.anonymous.get("/metrics", headers=LOCAL)).status_code == 401
    async with start(metrics="off", metrics_token=TOKEN) as registry:
        answer = await registry.anonymous.get(
            "/metrics", headers={**LOCAL, "authorization": f"Bearer {TOKEN}"}
        )
        assert answer.status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [
        {"metrics": "public"},
        {"metrics": "token"},
        {"metrics_token": "short"},
        {"metrics_listen": "5001"},
        {"metrics_listen": "localhost:http"},
        {"access_log": "xml"},
    ],
)
def test_impossible_settings_are_named(wrong: dict[str, str]) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        Settings(**wrong)  # type: ignore[arg-type]


async def test_the_address_of_their_own_serves_metrics_and_probes(start: Start) -> None:
    monitoring = Monitoring(Observer(), Worker(), with_metrics=True, count_uploads=fails, log=None)
    from registry.observe.monitoring import _answer

    async def ready() -> str:
        return "not ready: storage"

    async def answering(path: str, accept: str) -> Any:
        return await _answer(monitoring, ready, path, accept)

    async with listen("127.0.0.1:0", answering) as [(host, port)]:
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as client:
            answer = await client.get("/metrics?x=1")
            assert ("pyreg_workers",) in values(answer.text)
            assert "pyreg_uploads_open" not in answer.text  # the database is away
            assert (await client.get("/livez")).status_code == 200
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.text) == (503, "not ready: storage\n")
            assert (await client.get("/v2/")).status_code == 404
            assert (await client.post("/metrics")).status_code == 405
            openmetrics = await client.get(
                "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
            )
            assert openmetrics.text.endswith("# EOF\n")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000)
        await writer.drain()
        assert b" 431 " in await reader.readline()
        writer.close()


async def fails() -> int:
    raise OSError("away")


def test_two_workers_are_one_sum_and_a_successor_goes_on(tmp_path: Any) -> None:
    def worker(number: int) -> SharedCounts:
        return SharedCounts(Worker(number=number, count=2, run_directory=tmp_path))

    def counted(requests: int, started: float) -> Any:
        observer = Observer()
        for _ in range(requests):
            observer.ended("base", "GET", 200, 0.01, 1, 2)
        return snapshot(observer, {"start_time_seconds": started, "open_fds": 7.0}, 0)

    first, second = worker(0), worker(1)
    first.write(counted(3, 100))
    own = counted(4, 200)
    total = second.total(own)
    assert total["requests"]["base GET 200"][:4] == [7, pytest.approx(0.07), 7, 14]
    assert total["process"] == {"start_time_seconds": [100], "open_fds": [14]}
    successor = worker(0)  # the first died
    total = successor.total(counted(1, 300))
    assert total["requests"]["base GET 200"][0] == 4
    assert total["process"]["open_fds"] == [7]
    successor.write(counted(1, 300))
    assert second.total(own)["requests"]["base GET 200"][0] == 8
    (tmp_path / "counts-0.json").write_text("{ half")
    assert second.total(own)["requests"]["base GET 200"][0] == 4
    assert add_up([]) == {}
