"""Tags, referrers, catalog and search: order, pages, filters, bounds."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_INDEX, OCI_MANIFEST
from tests.registry.api.conftest import Registry, Start, code_of, descriptor, push_image

TAGS = "/v2/team/app/tags/list"


async def with_tags(client: httpx.AsyncClient, *tags: str) -> None:
    _, raw = await push_image(client, "team/app", "")
    for tag in tags:
        await client.put(
            f"/v2/team/app/manifests/{tag}", content=raw, headers={"content-type": OCI_MANIFEST}
        )


def next_url(answer: httpx.Response) -> str | None:
    if "link" not in answer.headers:
        return None
    match = re.fullmatch(r'<(/v2/[^>]+)>; rel="next"', answer.headers["link"])
    assert match, "relative, and nothing else"
    return match[1]


async def test_tags_are_sorted_bytewise(alice: httpx.AsyncClient) -> None:
    await with_tags(alice, "b", "a", "B", "_x", "10", "9")
    answer = await alice.get(TAGS)
    assert answer.json() == {"name": "team/app", "tags": ["10", "9", "B", "_x", "a", "b"]}
    assert next_url(answer) is None


async def test_tags_page_by_page(alice: httpx.AsyncClient) -> None:
    names = [f"t{number}" for number in range(5)]
    await with_tags(alice, *names)
    seen: list[str] = []
    url: str | None = f"{TAGS}?n=2"
    pages = 0
    while url:
        answer = await alice.get(url)
        seen += answer.json()["tags"]
        url = next_url(answer)
        pages += 1
    assert (seen, pages) == (names, 3)


@pytest.mark.parametrize(
    ("query", "tags", "more"),
    [
        ("n=0", [], False),
        ("n=3", ["a", "b", "c"], False),
        ("n=2", ["a", "b"], True),
        ("last=a", ["b", "c"], False),
        ("last=aa", ["b", "c"], False),
        ("last=c", [], False),
        ("n=1&last=a", ["b"], True),
        ("n=999999999999999999999", ["a", "b", "c"], False),
    ],
)
async def test_n_and_last(
    alice: httpx.AsyncClient, query: str, tags: list[str], more: bool
) -> None:
    await with_tags(alice, "a", "b", "c")
    answer = await alice.get(f"{TAGS}?{query}")
    assert answer.json()["tags"] == tags
    assert (next_url(answer) is not None) is more


@pytest.mark.parametrize("n", ["-1", "abc", "1.5", "", "٣", "0x10"])
@pytest.mark.parametrize(
    "path", [TAGS, "/v2/_catalog", "/v2/team/app/referrers/sha256:" + "a" * 64]
)
async def test_cve_2023_2253_sizes_that_are_no_sizes(registry: Registry, path: str, n: str) -> None:
    async with registry.basic("alice") as alice:
        await push_image(alice, "team/app", "v1")
        answer = await alice.get(path, params={"n": n})
        assert (answer.status_code, code_of(answer)) == (400, "PAGINATION_NUMBER_INVALID")


async def test_cve_2023_2253_huge_pages_are_cut(start: Start) -> None:
    async with start(page_size=2) as registry, registry.basic("alice") as alice:
        await with_tags(alice, "a", "b", "c")
        answer = await alice.get(f"{TAGS}?n=1000000000")
        assert answer.json()["tags"] == ["a", "b"]
        assert next_url(answer) == f"{TAGS}?n=2&last=b"


async def test_tags_of_a_repository_that_does_not_exist(alice: httpx.AsyncClient) -> None:
    answer = await alice.get("/v2/team/other/tags/list")
    assert (answer.status_code, code_of(answer)) == (404, "NAME_UNKNOWN")


async def test_catalog_pages_filter_and_rights(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        for name in ("a", "a/b", "team/app", "team/wget"):
            await push_image(alice, name, "v1")
    async with registry.basic("rita") as rita:
        answer = await rita.get("/v2/_catalog?n=3")
        assert answer.json() == {"repositories": ["a", "a/b", "team/app"]}
        rest = await rita.get(next_url(answer) or "")
        assert rest.json() == {"repositories": ["team/wget"]}
        found = await rita.get("/v2/_catalog?q=team")
        assert found.json() == {"repositories": ["team/app", "team/wget"]}
        found = await rita.get("/v2/_catalog?q=team&n=1")
        assert next_url(found) == "/v2/_catalog?n=1&last=team%2Fapp&q=team"
    refused = await registry.anonymous.get("/v2/_catalog")
    assert (refused.status_code, code_of(refused)) == (401, "UNAUTHORIZED")
    assert 'scope="registry:catalog:*"' in refused.headers["www-authenticate"]
    token = await registry.token("rita", "registry:catalog:*")
    answer = await registry.anonymous.get(
        "/v2/_catalog", headers={"authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200


async def test_docker_search(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        await push_image(alice, "omrisiri/wget", "latest")
        await push_image(alice, "omrisiri/curl", "latest")
        answer = await alice.get("/v1/search", params={"q": "Wget", "n": "25"})
    document = answer.json()
    assert document["num_results"] == 1
    token = await registry.token("rita", "registry:catalog:search")  # as docker asks for
    by_token = await registry.anonymous.get(
        "/v1/search?q=wget", headers={"authorization": f"Bearer {token}"}
    )
    assert by_token.json()["results"] == document["results"]
    assert document["results"][0]["name"] == "omrisiri/wget"
    assert (await registry.anonymous.get("/v1/search?q=wget")).status_code == 401
    assert (await registry.anonymous.get("/v1/_ping")).status_code == 200


async def test_head_is_get_without_its_body_everywhere(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        digest, _ = await push_image(alice, "team/app", "v1")
        for path in (
            *("/v2/", "/v2/_catalog", "/v2/_oci/ext/discover", TAGS, "/v1/search?q=a", "/v1/_ping"),
            *(f"/v2/team/app/manifests/{name}" for name in ("v1", digest, "missing")),
            f"/v2/team/app/blobs/{Digest.of(b'layer ')}",
            f"/v2/team/app/referrers/{digest}",
            *("/livez", "/readyz", "/v2/team/app/_pyreg/history/v1"),
        ):
            got, head = await alice.get(path), await alice.head(path)
            assert (head.status_code, head.content) == (got.status_code, b""), path
            for name in ("content-length", "content-type", "docker-content-digest", "etag"):
                assert head.headers.get(name) == got.headers.get(name), (path, name)


async def test_anonymous_search_where_everybody_may_pull(start: Start) -> None:
    async with start(anonymous_pull=True) as registry:
        async with registry.basic("alice") as alice:
            await push_image(alice, "omrisiri/wget", "latest")
        answer = await registry.anonymous.get("/v1/search?q=wget")
        assert answer.json()["num_results"] == 1


SUBJECT = b'{"a": "subject that need not exist"}'
SUBJECT_DIGEST = str(Digest.of(SUBJECT))
REFERRERS = f"/v2/team/app/referrers/{SUBJECT_DIGEST}"


async def test_referrers_of_nothing_are_an_empty_index(alice: httpx.AsyncClient) -> None:
    for path in (REFERRERS, f"/v2/team/other/referrers/{SUBJECT_DIGEST}"):
        answer = await alice.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == OCI_INDEX
        assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    assert (await alice.get("/v2/team/app/referrers/latest")).status_code == 400


async def test_referrers_describe_and_filter(alice: httpx.AsyncClient) -> None:
    subject = descriptor(OCI_MANIFEST, SUBJECT)
    plain, _ = await push_image(alice, "team/app", "", marker="p", subject=subject)
    typed, raw = await push_image(
        alice,
        "team/app",
        "",
        marker="t",
        subject=subject,
        artifactType="application/x-signature",
        annotations={"by": "alice", "\ud83d\ude00": "smile"},
    )
    answer = await alice.get(REFERRERS)
    found = {each["digest"]: each for each in answer.json()["manifests"]}
    assert set(found) == {plain, typed}
    assert "oci-filters-applied" not in answer.headers
    assert found[plain]["artifactType"] == "application/vnd.oci.image.config.v1+json"
    assert found[typed] == {
        "mediaType": OCI_MANIFEST,
        "digest": typed,
        "size": len(raw),
        "artifactType": "application/x-signature",
        "annotations": {"by": "alice", "\U0001f600": "smile"},
    }
    filtered = await alice.get(REFERRERS, params={"artifactType": "application/x-signature"})
    assert [each["digest"] for each in filtered.json()["manifests"]] == [typed]
    assert filtered.headers["oci-filters-applied"] == "artifactType"


async def test_pushing_with_a_subject_says_so(alice: httpx.AsyncClient) -> None:
    _, raw = await push_image(alice, "team/app", "v1", subject=descriptor(OCI_MANIFEST, SUBJECT))
    again = await alice.put(
        "/v2/team/app/manifests/v1", content=raw, headers={"content-type": OCI_MANIFEST}
    )
    assert again.headers["oci-subject"] == SUBJECT_DIGEST


async def test_referrers_page_by_page(alice: httpx.AsyncClient) -> None:
    subject = descriptor(OCI_MANIFEST, SUBJECT)
    pushed = {
        (await push_image(alice, "team/app", "", marker=str(number), subject=subject))[0]
        for number in range(5)
    }
    url: str | None = f"{REFERRERS}?n=2"
    seen: list[str] = []
    while url:
        answer = await alice.get(url)
        seen += [each["digest"] for each in json.loads(answer.content)["manifests"]]
        url = next_url(answer)
    assert len(seen) == 5
    assert set(seen) == pushed


async def test_a_page_of_referrers_stays_below_the_manifest_limit(
    alice: httpx.AsyncClient,
) -> None:
    subject = descriptor(OCI_MANIFEST, SUBJECT)
    for number in range(3):
        await push_image(
            alice,
            "team/app",
            "",
            marker=str(number),
            subject=subject,
            annotations={"big": "x" * 2_000_000},
        )
    answer = await alice.get(REFERRERS)
    assert len(answer.content) < 4 << 20
    assert len(answer.json()["manifests"]) == 2
    rest = await alice.get(next_url(answer) or "")
    assert len(rest.json()["manifests"]) == 1
