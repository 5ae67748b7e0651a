"""Search in a registry of 100,000 repositories: p95 of each kind of question, over HTTP.

The database and its index are filled with SQL of their own. The same questions are asked by
somebody who may see everything and, in process, by somebody who may see one repository in 700.
"""

from __future__ import annotations

import asyncio
import http.client
import random
import shutil
import sqlite3
import time
from pathlib import Path
from urllib.parse import quote

from registry.metadata.database import open_metadata
from registry.metadata.search import Visible
from registry.search.query import parse_query
from tests.benchmarks.distribution import bearer
from tests.benchmarks.harness import Row
from tests.builders.servers import start_pyreg

REPOSITORIES = 100_000
REPEATS = 40
# fmt: off
WORDS = (
    "alpha", "beta", "gamma", "web", "api", "worker", "proxy", "cache", "nginx", "redis",
    "postgres", "mysql", "debian", "ubuntu", "fedora", "base", "tools", "build", "runner", "agent",
    "core", "data", "ingest", "model", "train", "serve", "front", "back", "auth", "mail", "queue",
)
# fmt: on
QUERIES = {
    "a word of many names": "nginx",
    "a letter of all": "a",
    "a word of one name": "web77777",
    "a word of none": "zzzz",
    "two words": "proxy redis",
    "everything": "",
    "a tag that all have": "tag:1.*",
    "a tag that few have": "tag:v77*",
    "a label that few have": "label:number=777*",
    "a platform that all have": "platform:linux/amd64",
    "a word and a platform that all have": "nginx platform:linux/amd64",
    "a word and a base that a quarter has": "redis base:debian",
}


def fill(path: Path, repositories: int) -> None:
    """Repositories with two tags, a description and a few labels each; and their index."""
    choose = random.Random(4).choice
    connection = sqlite3.connect(path)

    def rows() -> None:
        for id in range(1, repositories + 1):
            name = f"team{id % 700}/{choose(WORDS)}-{choose(WORDS)}/{choose(WORDS)}{id}"
            description = " ".join(choose(WORDS) for _ in range(8))
            connection.execute(
                "INSERT INTO repository (id, name, created_at) VALUES (?, ?, 0)", (id, name)
            )
            connection.execute(
                "INSERT INTO manifest (id, repository_id, digest, media_type, size, artifact_type,"
                " config_media_type, actor, pushed_at, raw, annotations)"
                " VALUES (?1, ?1, 'sha256:', '', 1, '', '', '', 0, zeroblob(500), '{}')",
                (id,),
            )
            connection.execute(
                "INSERT INTO search_repository VALUES (?, ?, ?, ?, ?, 0)",
                (id, name, f"/{name}\n{description}", description, id),
            )
            base = ("debian", "ubuntu", "fedora", "alpine")[id % 4]
            connection.executemany(
                "INSERT INTO search_term VALUES (?, ?, ?, ?)",
                (
                    ("tag", f"1.{id % 40}", id, 0),
                    ("tag", f"v{id}", id, 0),
                    ("label", f"number={id}", id, id),
                    ("label", f"team={id % 700}", id, id),
                    ("platform", "linux/amd64", id, id),
                    ("base", base, id, id),
                    ("type", "application/vnd.oci.image.config.v1+json", id, id),
                ),
            )

    try:
        with connection:
            rows()
            connection.execute("UPDATE outbox_position SET rebuilding = ''")
    finally:
        connection.close()


def p95(times: list[float]) -> float:
    """In milliseconds."""
    return 1000 * sorted(times)[int(0.95 * len(times))]


def run(root: Path, rounds: int, *, quick: bool) -> list[Row]:
    """Prints the figures; there is no peer to compare with."""
    repositories = REPOSITORIES // 10 if quick else REPOSITORIES
    server = start_pyreg(root)
    server.stop()
    database = root / "registry" / "metadata.db"
    fill(database, repositories)
    server = start_pyreg(root)
    print(f"search in {repositories} repositories, p95 of {REPEATS}, in ms: all seen, few seen")
    try:
        token = bearer(server.port, server.username, server.password, ["registry:api:*"])
        few = asyncio.run(_few(database))
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for title, query in QUERIES.items():
            times = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                connection.request(
                    "GET",
                    f"/api/v1/search?n=25&q={quote(query)}",
                    headers={"Authorization": token},
                )
                response = connection.getresponse()
                body = response.read()
                times.append(time.perf_counter() - started)
                assert response.status == 200, body
            named, nameless = few[title]
            print(
                f"  {title + ' ' + repr(query):<62} {p95(times):6.1f} {named:6.1f} {nameless:6.1f}"
            )
        connection.close()
        return []
    finally:
        server.stop()
        shutil.rmtree(root, ignore_errors=True)


async def _few(database: Path) -> dict[str, tuple[float, float]]:
    """By title: with patterns of what may be seen, and with the decision alone."""
    metadata = open_metadata(database)
    found = {}
    try:
        for title, query in QUERIES.items():
            both = []
            for patterns in (("team7/*",), None):
                visible = Visible(lambda name: name.startswith("team7/"), patterns)
                times = []
                for _ in range(REPEATS // 4):
                    started = time.perf_counter()
                    await metadata.search.find(parse_query(query), visible, n=25)
                    times.append(time.perf_counter() - started)
                both.append(p95(times))
            found[title] = both[0], both[1]
    finally:
        metadata.close()
    return found
