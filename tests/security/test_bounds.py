"""Every count, length and depth that a stranger chooses has an end, and a 4xx answer behind it."""

from __future__ import annotations

import json

import httpx
import pytest

from ocispec.digest import Digest
from ocispec.mediatype import OCI_INDEX, OCI_MANIFEST
from tests.registry.api.conftest import Registry, descriptor, manifest_of, push_image, started

MANIFEST = "/v2/team/app/manifests/v1"
UPLOADS = "/v2/team/app/blobs/uploads/"
DIGEST = str(Digest.of(b"x"))


@pytest.fixture
async def registry(tmp_path):  # type: ignore[no-untyped-def]
    async with started(tmp_path) as running:
        yield running


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 1_000_000,
        b'{"a":' * 600_000,
        b'{"annotations":' + b'{"a":' * 70 + b"1" + b"}" * 71,
        b'{"schemaVersion":' + b"9" * 1_000_000 + b"}",
        b'{"a":[' + b"[]," * 600_000 + b"[]]}",
        b'{"schemaVersion":2,"schemaVersion":2}',
        b'{"a":"\\ud800"}',
        b'{"a":NaN}',
        b"\xff" * 1000,
        b"",
    ],
    ids=range(10),
)
@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX, "", "x" * 5000])
async def test_attack_documents_made_to_be_expensive(
    registry: Registry, raw: bytes, media_type: str
) -> None:
    async with registry.basic("alice") as alice:
        answer = await alice.put(MANIFEST, content=raw, headers={"content-type": media_type})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (400, "MANIFEST_INVALID")
    assert len(answer.content) < 20_000  # the document is not sent back


async def test_attack_ten_thousand_annotations_and_layers(registry: Registry) -> None:
    """Many, within the limit of the document: taken or refused, and quickly listed."""
    async with registry.basic("alice") as alice:
        notes = {f"key{number}": "v" for number in range(10_000)}
        await push_image(alice, "team/app", "v1", annotations=notes)
        layers = [b"%d" % number for number in range(10_000)]
        many = manifest_of(b'{"marker": ""}', *layers)
        answer = await alice.put(MANIFEST, content=many, headers={"content-type": OCI_MANIFEST})
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["code"] == "MANIFEST_BLOB_UNKNOWN"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/_catalog?q=" + "a" * 9000, 414),
        ("/v2/_catalog?q=" + "a" * 300, 400),
        ("/v2/_catalog?" + "&".join(f"a{number}=" for number in range(200)), 400),
        ("/v2/team/app/tags/list?last=" + "a" * 9000, 414),
        ("/v2/team/app/tags/list?n=" + "9" * 5000, 200),
        ("/v2/team/app/blobs/sha256:" + "a" * 900, 400),
        ("/v2/team/app/blobs/" + "a" * 900, 400),
        ("/v2/" + "a/" * 600 + "tags/list", 404),
        ("/v2/" + "a" * 256 + "/tags/list", 400),
        ("/v2/team/app/manifests/" + "a" * 129, 404),
        (f"/v2/team/app/referrers/{DIGEST}?artifactType=" + "a" * 9000, 414),
        ("/v2/team/app/_pyreg/history/" + "a" * 129, 400),
        ("/v1/search?q=" + "a" * 300, 400),
        ("/token?scope=" + "repository:a:pull%20" * 400, 400),
        ("/token?" + "scope=a:b:c&" * 127, 400),
    ],
    ids=range(15),
)
async def test_attack_long_parameters(registry: Registry, path: str, status: int) -> None:
    async with registry.basic("alice") as alice:
        await push_image(alice, "team/app", "v1")
        answer = await alice.get(path)
    assert answer.status_code == status, answer.text[:300]
    assert len(answer.content) < 20_000


async def test_attack_more_tags_than_one_push_takes(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        digest, raw = await push_image(alice, "team/app", "v1")
        for count, status in ((20, 201), (21, 414), (120, 414), (200, 400)):
            answer = await alice.put(
                f"/v2/team/app/manifests/{digest}",
                params={"tag": [f"t{count}-{number}" for number in range(count)]},
                content=raw,
                headers={"content-type": OCI_MANIFEST},
            )
            assert answer.status_code == status
        tags = (await alice.get("/v2/team/app/tags/list?n=1000")).json()["tags"]
        assert len(tags) == 21


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic " + "A" * 60_000},
        {"authorization": "Bearer " + "A" * 60_000},
        {"authorization": "Bearer " + ".".join("A" * 20_000 for _ in range(3))},
    ],
    ids=["basic", "bearer", "parts"],
)
async def test_attack_long_credentials(registry: Registry, headers: dict[str, str]) -> None:
    for path in ("/v2/", "/token", MANIFEST):
        answer = await registry.anonymous.get(path, headers=headers)
        assert answer.status_code == 401


async def test_attack_long_headers_change_nothing(registry: Registry) -> None:
    async with registry.basic("alice") as alice:
        _, raw = await push_image(alice, "team/app", "v1")
        for name in ("accept", "if-none-match", "range", "user-agent", "cookie"):
            answer = await alice.get(MANIFEST, headers={name: "a/b," * 12_000})
            assert (answer.status_code, answer.content) == (200, raw)


async def test_cve_2026_10517_urls_of_foreign_layers_are_never_fetched(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSRF, CVE-2026-2376, CVE-2020-13788, CVE-2022-27907: the registry opens no connection."""
    import socket

    opened: list[object] = []

    def connect(self: socket.socket, address: object) -> None:
        opened.append(address)
        raise ConnectionRefusedError

    with socket.create_server(("127.0.0.1", 0)) as bait:
        bait.settimeout(0)
        url = f"http://127.0.0.1:{bait.getsockname()[1]}/layer"
        monkeypatch.setattr(socket.socket, "connect", connect)
        monkeypatch.setattr(socket.socket, "connect_ex", connect)
        foreign = descriptor(
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", b"elsewhere", urls=[url]
        )
        async with registry.basic("alice") as alice:
            _, _ = await push_image(alice, "team/app", "v0")
            document = json.loads(manifest_of(b'{"marker": ""}'))
            document["layers"] = [foreign]
            document["annotations"] = {"url": url, "org.opencontainers.image.source": url}
            put = await alice.put(
                MANIFEST, content=json.dumps(document), headers={"content-type": OCI_MANIFEST}
            )
            assert put.status_code == 201
            assert (await alice.get(MANIFEST)).status_code == 200
            layer = await alice.get(f"/v2/team/app/blobs/{foreign['digest']}")
            assert layer.status_code == 404
        with pytest.raises(BlockingIOError):
            bait.accept()
    assert opened == []


async def test_repeated_requests_give_the_same_answer(registry: Registry) -> None:
    """What a client sends again after a lost answer."""
    async with registry.basic("alice") as alice:
        _, raw = await push_image(alice, "team/app", "v1")
        for _ in range(2):
            answers: list[httpx.Response] = [
                await alice.put(MANIFEST, content=raw, headers={"content-type": OCI_MANIFEST}),
                await alice.post(UPLOADS, params={"digest": DIGEST}, content=b"x"),
                await alice.post(UPLOADS, params={"mount": DIGEST, "from": "team/app"}),
            ]
            assert [answer.status_code for answer in answers] == [201, 201, 201]
