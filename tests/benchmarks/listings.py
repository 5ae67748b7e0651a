"""Pages of listings in a registry of 100,000 repositories and 1,000,000 tags, and in one of 100.

A page has 100 entries in both, and may cost twice as much in the large one. The databases are
filled with SQL of their own; the pages are asked over HTTP of a running registry.
"""

from __future__ import annotations

import http.client
import json
import shutil
import sqlite3
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.distribution import Target, bearer
from tests.benchmarks.harness import Row, contest
from tests.builders.servers import start_pyreg

SMALL, LARGE = 100, 100_000
#: Of every repository, and of the one whose tags are listed.
TAGS, MANY_TAGS = 9, 100_000
PAGE = 100
REPEATS = 50
DIGEST = "sha256:" + "a" * 64


def fill(path: Path, repositories: int, tags_of_one: int) -> None:
    """Repositories `r000000`…, each with one manifest and some tags, the first with many."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.executemany(
                "INSERT INTO repository (id, name, created_at) VALUES (?, ?, 0)",
                ((number + 1, f"team/r{number:06}") for number in range(repositories)),
            )
            connection.execute(
                "INSERT INTO manifest (id, repository_id, digest, media_type, size, artifact_type,"
                " config_media_type, actor, pushed_at, raw, annotations)"
                " SELECT id, id, ?, 'application/vnd.oci.image.manifest.v1+json', 500, '', '',"
                " 'bench', 0, zeroblob(500), '{}' FROM repository",
                (DIGEST,),
            )
            connection.executemany(
                "INSERT INTO tag (repository_id, name, manifest_id, updated_at)"
                " VALUES (?1, ?2, ?1, 0)",
                _tags(repositories, tags_of_one),
            )
    finally:
        connection.close()


def _tags(repositories: int, tags_of_one: int) -> Iterator[tuple[int, str]]:
    for number in range(tags_of_one):
        yield 1, f"v{number:06}"
    for repository in range(2, repositories + 1):
        for number in range(TAGS):
            yield repository, f"v{number:06}"


def page_time(target: Target, path: str, key: str, entries: int) -> float:
    """Milliseconds of one page: the median of many on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=60)
    times = []
    try:
        for _ in range(REPEATS):
            started = time.perf_counter()
            connection.request("GET", path, headers=target.headers)
            response = connection.getresponse()
            body = response.read()
            times.append(time.perf_counter() - started)
            assert response.status == 200, body
            assert len(json.loads(body)[key]) == entries, (path, body[:300])
    finally:
        connection.close()
    return 1000 * statistics.median(times)


def run(root: Path, rounds: int, *, quick: bool) -> list[Row]:
    """Pages of both registries, the large one compared with the small one."""
    large = LARGE // 10 if quick else LARGE
    servers, targets = [], []
    try:
        for name, repositories, tags in (("large", large, MANY_TAGS), ("small", SMALL, SMALL)):
            server = start_pyreg(root / name)
            server.stop()
            fill(root / name / "registry" / "metadata.db", repositories, tags)
            server = start_pyreg(root / name)
            servers.append(server)
            scopes = ["registry:catalog:*", "repository:team/r000000:pull"]
            token = bearer(server.port, server.username, server.password, scopes)
            targets.append(Target(name, server.port, token))
        middle = {"large": large // 2, "small": 0}
        tag = {"large": MANY_TAGS // 2, "small": 0}
        rows = []
        for title, key, paths in (
            (
                "catalog, first page",
                "repositories",
                dict.fromkeys(middle, f"/v2/_catalog?n={PAGE}"),
            ),
            (
                "catalog, a page in the middle",
                "repositories",
                {n: f"/v2/_catalog?n={PAGE}&last=team/r{at:06}~" for n, at in middle.items()},
            ),
            (
                "tags, first page",
                "tags",
                dict.fromkeys(tag, f"/v2/team/r000000/tags/list?n={PAGE}"),
            ),
            (
                "tags, a page in the middle",
                "tags",
                {n: f"/v2/team/r000000/tags/list?n={PAGE}&last=v{at:06}~" for n, at in tag.items()},
            ),
            (
                "search for what is everywhere",
                "results",
                dict.fromkeys(middle, f"/v1/search?q=team&n={PAGE}"),
            ),
        ):
            rows.append(
                contest(
                    f"{title} ({large} repositories)",
                    {
                        t.name: (
                            lambda _, t=t, key=key, paths=paths: page_time(
                                t, paths[t.name], key, _entries(t.name, paths[t.name])
                            )
                        )
                        for t in targets
                    },
                    unit="ms",
                    rounds=rounds,
                    more_is_better=False,
                )
            )
        rare = page_time(targets[0], "/v1/search?q=nowhere", "results", 0)
        print(f"search for what is nowhere, {large} repositories: {rare:.1f} ms")
        return rows
    finally:
        for server in servers:
            server.stop()
        shutil.rmtree(root, ignore_errors=True)


def _entries(name: str, path: str) -> int:
    """In the small registry a page after the first entry has one less."""
    return PAGE - 1 if name == "small" and "last=" in path else PAGE
