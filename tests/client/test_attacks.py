"""What a hostile or broken registry may try, each test named after the attack.

Every one ends in a clear error, or in success without what the attacker wanted; and the store has
no image under the name, nor a blob of a wrong digest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator

import pytest

from client.credentials import Credential
from client.errors import (
    ClientError,
    ContentMismatch,
    NotFound,
    ProtocolError,
    RefusedContent,
    RegistryUnavailable,
    TooManyRequests,
    TransferInterrupted,
    Unauthorized,
)
from client.remote import Registry
from client.search import catalog
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.image.manifest import new_index, new_manifest
from ocispec.mediatype import (
    DOCKER_FOREIGN_LAYER,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
)
from tests.client.conftest import Client, descriptor, make, put, reference
from tests.client.rogue import Answer, Rogue, Seen, ranged, token

SECRET = Credential("alice", "a secret password")
LAYER = bytes(range(256)) * 400
MADE = make(LAYER)
LAYER_DIGEST = Digest.of(LAYER)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(client: Client) -> Iterator[None]:
    """Whatever a test did, blobs in the store are what their names say."""
    yield
    for digest in client.store.layout.digests():
        client.store.layout.read(digest, 1 << 30)


def serve(rogue: Rogue) -> str:
    rogue.serve_image("x", "1", MADE.manifest, *MADE.blobs)
    return f"{rogue.host}/x:1"


def secrets(server: Rogue) -> list[Seen]:
    """Requests that carried anything of the credential, in whatever place."""
    word = SECRET.basic.removeprefix("Basic ")
    return [
        seen
        for seen in server.seen
        if "Authorization" in seen.headers
        or any(word in text or SECRET.password in text for text in seen.headers.values())
        or SECRET.password in seen.path
        or SECRET.password.encode() in seen.body
    ]


# -- where credentials go ------------------------------------------------------------------------


def basic(answer: Callable[[Seen], Answer]) -> Callable[[Seen], Answer]:
    def guarded(seen: Seen) -> Answer:
        if seen.headers.get("Authorization") != SECRET.basic:
            return Answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="x"'})
        return answer(seen)

    return guarded


def test_cve_2026_50151_redirect_of_a_blob_to_another_host_gets_no_authorization(
    client: Client, rogue: Rogue, other_host: Rogue
) -> None:
    name = serve(rogue)
    other_host.on("/storage/signed", ranged(LAYER))
    there = Answer(307, b"", {"Location": f"http://{other_host.host}/storage/signed?sig=1"})
    for path in list(rogue.answers):
        rogue.answers[path] = basic(rogue.answers[path])
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", basic(lambda _: there))
    client.pull(name, SECRET)
    assert other_host.requests("GET", "/storage/signed?sig=1")
    assert secrets(rogue) and not secrets(other_host)


def test_cve_2026_49349_upload_location_on_another_host_gets_no_authorization(
    client: Client, rogue: Rogue, other_host: Rogue
) -> None:
    put(client.store, MADE, f"{rogue.host}/x:1")
    rogue.on("/v2/x/blobs/*", basic(lambda _: Answer(404)))
    session = Answer(202, b"", {"Location": f"http://{other_host.host}/upload/1?state=s"})
    rogue.on("/v2/x/blobs/uploads/", basic(lambda _: session))
    rogue.on("/v2/x/manifests/1", basic(lambda _: Answer(201)))
    other_host.on("/upload/1", Answer(201))
    client.push(f"{rogue.host}/x:1", SECRET)
    sent = other_host.requests("PUT", "/upload/1?state=s&digest=sha256%3A")
    assert LAYER in [seen.body for seen in sent]
    assert secrets(rogue) and not secrets(other_host)


def test_redirect_back_to_the_same_origin_keeps_the_authorization(
    client: Client, rogue: Rogue
) -> None:
    name = serve(rogue)
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", Answer(307, b"", {"Location": "/moved/blob"}))
    rogue.on("/moved/blob", basic(ranged(LAYER)))
    client.pull(name, SECRET)


def test_cve_2026_33540_realm_on_a_foreign_host_gets_no_credentials(
    client: Client, rogue: Rogue
) -> None:
    """The realm is a name that is not the registry's: asked anonymously, and it is said."""
    rogue.on("/v2/x/manifests/1", rogue.challenge("https://evil.invalid/token"))
    with pytest.raises(ClientError):
        client.pull(f"{rogue.host}/x:1", SECRET)
    assert not secrets(rogue)


def test_realm_without_tls_on_a_foreign_host_is_not_asked_at_all(
    client: Client, rogue: Rogue
) -> None:
    rogue.on("/v2/x/manifests/1", rogue.challenge("http://tokens.example/token"))
    with pytest.raises(ProtocolError, match="without TLS"):
        client.pull(f"{rogue.host}/x:1", SECRET)


def test_token_service_redirect_to_another_host_loses_the_password(
    client: Client, rogue: Rogue, other_host: Rogue
) -> None:
    rogue.on("/v2/x/manifests/1", rogue.challenge(f"http://{rogue.host}/token"))
    rogue.on("/token", Answer(302, b"", {"Location": f"http://{other_host.host}/token"}))
    other_host.on("/token", token("stolen"))
    with pytest.raises(Unauthorized):
        client.pull(f"{rogue.host}/x:1", SECRET)
    assert other_host.requests("GET", "/token") and not secrets(other_host)


def test_refresh_token_is_not_sent_through_a_redirect(
    client: Client, rogue: Rogue, other_host: Rogue
) -> None:
    rogue.on("/v2/x/manifests/1", rogue.challenge(f"http://{rogue.host}/token"))
    rogue.on("/token", Answer(307, b"", {"Location": f"http://{other_host.host}/token"}))
    with pytest.raises(ClientError):
        client.pull(f"{rogue.host}/x:1", Credential(identity_token=SECRET.password))
    assert rogue.requests("POST", "/token") and not other_host.seen


def test_challenge_of_a_redirect_target_is_not_answered(
    client: Client, rogue: Rogue, other_host: Rogue
) -> None:
    name = serve(rogue)
    rogue.on(
        f"/v2/x/blobs/{LAYER_DIGEST}",
        Answer(307, b"", {"Location": f"http://{other_host.host}/blob"}),
    )
    other_host.on("/blob", Answer(401, b"", {"WWW-Authenticate": 'Basic realm="give me"'}))
    with pytest.raises(Unauthorized):
        client.pull(name, SECRET)
    assert not secrets(other_host) and not secrets(rogue)


def test_cve_2020_15157_foreign_layer_url_gets_no_credentials(
    client: Client, another_client: Callable[..., Client], rogue: Rogue, other_host: Rogue
) -> None:
    layer = Descriptor(
        media_type=DOCKER_FOREIGN_LAYER,
        digest=LAYER_DIGEST,
        size=len(LAYER),
        urls=(f"http://{other_host.host}/layer",),
    )
    manifest = new_manifest(MADE.manifest.config, [layer])
    rogue.serve_image("x", "1", manifest, MADE.config.raw)
    other_host.on("/layer", Answer(401, b"", {"WWW-Authenticate": 'Basic realm="give me"'}))
    with pytest.raises(RefusedContent, match="outside the registry"):
        client.pull(f"{rogue.host}/x:1", SECRET)
    assert not other_host.seen  # by default it is not even asked
    with pytest.raises(NotFound, match="none of its URLs"):
        another_client(foreign_layers=True).pull(f"{rogue.host}/x:1", SECRET)
    assert other_host.seen and not secrets(other_host)


def test_no_credentials_before_they_are_asked_for(client: Client, rogue: Rogue) -> None:
    client.pull(serve(rogue), SECRET)
    assert not secrets(rogue)


def test_cve_2014_5277_plain_http_is_never_a_fallback(client: Client) -> None:
    registry = Registry("registry.invalid:5000", client.transport, client.registry("x:1").keychain)
    assert registry.origin.scheme == "https"
    with pytest.raises(RegistryUnavailable):
        registry.check()
    from client.origin import Origin, require_allowed

    with pytest.raises(RegistryUnavailable, match="without TLS") as caught:
        require_allowed(Origin("http", "registry.invalid", 5000), client.options)
    assert "insecure_registries" in caught.value.hint


def test_token_with_line_breaks_cannot_smuggle_a_header(client: Client, rogue: Rogue) -> None:
    rogue.on("/v2/x/manifests/1", rogue.challenge(f"http://{rogue.host}/token"))
    rogue.on("/token", token("abc\r\nX-Injected: yes"))
    with pytest.raises(ProtocolError, match="no token"):
        client.pull(f"{rogue.host}/x:1")
    assert not any("X-Injected" in seen.headers for seen in rogue.seen)


def test_endless_demand_for_tokens_ends(client: Client, rogue: Rogue) -> None:
    rogue.on("/v2/x/manifests/1", rogue.challenge(f"http://{rogue.host}/token", scope="a:b:c"))
    rogue.on("/token", token("never-enough"))
    with pytest.raises(Unauthorized):
        client.pull(f"{rogue.host}/x:1", SECRET)
    assert len(rogue.requests("GET", "/token")) <= 3


def test_redirect_loop_ends(client: Client, rogue: Rogue) -> None:
    rogue.on("/v2/x/manifests/1", Answer(302, b"", {"Location": "/v2/x/manifests/1"}))
    with pytest.raises(ProtocolError, match="redirected more than"):
        client.pull(f"{rogue.host}/x:1")


@pytest.mark.parametrize("location", ["", "file:///etc/passwd", "ftp://x/", "http://u:p@h/", "//"])
def test_redirect_to_nowhere_sensible_is_refused(
    client: Client, rogue: Rogue, location: str
) -> None:
    rogue.on("/v2/x/manifests/1", Answer(302, b"", {"Location": location}))
    with pytest.raises(ClientError):
        client.pull(f"{rogue.host}/x:1")


# -- what is believed ----------------------------------------------------------------------------


def test_layer_with_other_bytes_is_not_stored(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", ranged(b"?" + LAYER[1:]))
    with pytest.raises(ContentMismatch, match="digest of blob"):
        client.pull(name)
    assert client.store.find(name) is None
    assert not client.store.layout.has(LAYER_DIGEST)
    assert os.listdir(os.path.join(client.store.root, "ingest")) == []


def test_config_with_other_bytes_is_not_stored(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    raw = MADE.config.raw.replace(b"true", b"evil")
    rogue.on(f"/v2/x/blobs/{MADE.config.digest}", ranged(raw))
    with pytest.raises(ContentMismatch):
        client.pull(name)


def test_manifest_that_is_not_the_digest_asked_for_is_refused(client: Client, rogue: Rogue) -> None:
    """GHSA-qv35-3gw6-8q4j: the pin after @ must be checked, whatever the server says it sent."""
    serve(rogue)
    wanted = Digest.of(b"another manifest")
    rogue.answers[f"/v2/x/manifests/{wanted}"] = rogue.answers["/v2/x/manifests/1"]
    with pytest.raises(ContentMismatch, match="digest of manifest"):
        client.pull(f"{rogue.host}/x@{wanted}")


def test_manifest_that_is_not_its_announced_digest_is_refused(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    headers = {"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": str(LAYER_DIGEST)}
    rogue.on("/v2/x/manifests/1", Answer(200, MADE.manifest.raw, headers))
    with pytest.raises(ContentMismatch):
        client.pull(name)


def _confused() -> list[tuple[str, bytes, str]]:
    manifest = json.loads(MADE.manifest.raw)
    index = json.loads(new_index([descriptor(MADE.manifest)]).raw)
    return [
        ("manifest sent as index", MADE.manifest.raw, OCI_INDEX),
        ("manifest sent as docker's", MADE.manifest.raw, DOCKER_MANIFEST),
        ("both layers and manifests", json.dumps({**index, **manifest}).encode(), OCI_MANIFEST),
        ("index with layers", json.dumps({**manifest, **index}).encode(), OCI_INDEX),
        ("unknown type", MADE.manifest.raw, "text/html"),
        ("schema 1", b'{"schemaVersion": 1, "fsLayers": []}', ""),
        ("twice the same key", b'{"layers": [], ' + MADE.manifest.raw[1:], OCI_MANIFEST),
        ("not JSON", b"<html>", OCI_MANIFEST),
        ("nothing", b"", OCI_MANIFEST),
        ("deep", b"[" * 50_000, OCI_MANIFEST),
    ]


@pytest.mark.parametrize(
    ("raw", "media_type"),
    [case[1:] for case in _confused()],
    ids=[case[0] for case in _confused()],
)
def test_cve_2021_41190_manifest_of_two_meanings_is_refused(
    client: Client, rogue: Rogue, raw: bytes, media_type: str
) -> None:
    name = serve(rogue)
    rogue.on("/v2/x/manifests/1", Answer(200, raw, {"Content-Type": media_type}))
    with pytest.raises(RefusedContent):
        client.pull(name)
    assert client.store.images() == ()


def test_child_of_another_type_than_its_index_says_is_refused(client: Client, rogue: Rogue) -> None:
    serve(rogue)
    lie = Descriptor(
        media_type=DOCKER_MANIFEST, digest=MADE.manifest.digest, size=len(MADE.manifest.raw)
    )
    index = new_index([lie])
    rogue.on("/v2/x/manifests/1", Answer(200, index.raw, {"Content-Type": OCI_INDEX}))
    with pytest.raises(RefusedContent, match="its index says"):
        client.pull(f"{rogue.host}/x:1")


def test_child_of_another_size_than_its_index_says_is_refused(client: Client, rogue: Rogue) -> None:
    serve(rogue)
    lie = Descriptor(media_type=OCI_MANIFEST, digest=MADE.manifest.digest, size=7)
    index = new_index([lie])
    rogue.on("/v2/x/manifests/1", Answer(200, index.raw, {"Content-Type": OCI_INDEX}))
    with pytest.raises(ContentMismatch, match="size of manifest"):
        client.pull(f"{rogue.host}/x:1")


def test_index_that_leads_to_itself_forever_is_refused(client: Client, rogue: Rogue) -> None:
    index = new_index([descriptor(MADE.manifest)])
    for number in range(6):
        rogue.on(
            f"/v2/x/manifests/{index.digest}", Answer(200, index.raw, {"Content-Type": OCI_INDEX})
        )
        index = new_index(
            [Descriptor(media_type=OCI_INDEX, digest=index.digest, size=len(index.raw))],
            annotations={"level": str(number)},
        )
    rogue.on("/v2/x/manifests/1", Answer(200, index.raw, {"Content-Type": OCI_INDEX}))
    with pytest.raises(RefusedContent, match="nested deeper"):
        client.pull(f"{rogue.host}/x:1")


def test_artifact_is_not_taken_for_an_image(client: Client, rogue: Rogue) -> None:
    config = Descriptor(media_type="application/vnd.cncf.helm.config.v1+json",
                        digest=MADE.config.digest, size=len(MADE.config.raw))  # fmt: skip
    manifest = new_manifest(config, MADE.manifest.layers)
    rogue.serve_image("x", "1", manifest, *MADE.blobs)
    with pytest.raises(RefusedContent, match="is not an image"):
        client.pull(f"{rogue.host}/x:1")


# -- how much is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("announced", [True, False])
def test_oversize_manifest_is_cut_at_4_mib(client: Client, rogue: Rogue, announced: bool) -> None:
    name = serve(rogue)
    raw = b'{"annotations": {"a": "' + b"x" * (5 << 20) + b'"}}'
    rogue.on(
        "/v2/x/manifests/1",
        Answer(200, raw, {"Content-Type": OCI_MANIFEST}, length=announced),
    )
    with pytest.raises(ProtocolError, match="larger than 4194304 bytes"):
        client.pull(name)


def test_config_that_claims_to_be_huge_is_not_fetched(client: Client, rogue: Rogue) -> None:
    config = Descriptor(
        media_type=MADE.manifest.config.media_type, digest=MADE.config.digest, size=1 << 40
    )
    rogue.serve_image("x", "1", new_manifest(config, []), *MADE.blobs)
    with pytest.raises(RefusedContent, match="its config is larger"):
        client.pull(f"{rogue.host}/x:1")
    assert not rogue.requests("GET", "/v2/x/blobs/")


def test_ten_thousand_layers_are_refused(client: Client, rogue: Rogue) -> None:
    layer = Descriptor(media_type=OCI_LAYER, digest=LAYER_DIGEST, size=len(LAYER))
    manifest = new_manifest(MADE.manifest.config, [layer] * 10_000)
    rogue.serve_image("x", "1", manifest, *MADE.blobs)
    with pytest.raises(ClientError):
        client.pull(f"{rogue.host}/x:1")
    assert not rogue.requests("GET", "/v2/x/blobs/")


def test_oversize_token_answer_is_cut(client: Client, rogue: Rogue) -> None:
    rogue.on("/v2/x/manifests/1", rogue.challenge(f"http://{rogue.host}/token"))
    rogue.on("/token", token("x" * (2 << 20)))
    with pytest.raises(ProtocolError, match="larger than"):
        client.pull(f"{rogue.host}/x:1")


def test_oversize_error_page_does_not_hide_the_status(client: Client, rogue: Rogue) -> None:
    rogue.on("/v2/x/manifests/1", Answer(404, b"x" * (1 << 20)))
    with pytest.raises(NotFound):
        client.pull(f"{rogue.host}/x:1")


def test_escape_sequences_of_an_error_do_not_reach_the_terminal(
    client: Client, rogue: Rogue
) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "\x1b]0;pwned\x07 no"}]}).encode()
    rogue.on("/v2/x/manifests/1", Answer(403, body))
    with pytest.raises(ClientError) as caught:
        client.pull(f"{rogue.host}/x:1")
    assert str(caught.value).isprintable()


def test_endless_catalog_is_refused(client: Client, rogue: Rogue) -> None:
    """CVE-2023-2253 the other way round: the list that never ends, or goes in a circle."""
    pages = iter(range(10**9))

    def page(seen: Seen) -> Answer:
        link = f'</v2/_catalog?n=1000&last=x{next(pages)}>; rel="next"'
        return Answer(200, b'{"repositories": []}', {"Link": link})

    rogue.on("/v2/_catalog", page)
    from client import remote

    assert remote.MAX_PAGES >= 1000
    names = catalog(client.registry(rogue.host))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "MAX_PAGES", 30)  # the bound itself is the subject, not its size
        with pytest.raises(ProtocolError, match="does not end"):
            list(names)


def test_catalog_in_a_circle_is_refused(client: Client, rogue: Rogue) -> None:
    link = {"Link": '</v2/_catalog?n=1000>; rel="next"'}
    rogue.on("/v2/_catalog", Answer(200, b'{"repositories": ["a"]}', link))
    with pytest.raises(ProtocolError, match="circles"):
        list(catalog(client.registry(rogue.host)))


def test_catalog_that_leads_to_another_host_is_refused(
    client: Client, rogue: Rogue, other_host: Rogue
) -> None:
    link = {"Link": f'<http://{other_host.host}/v2/_catalog>; rel="next"'}
    rogue.on("/v2/_catalog", Answer(200, b'{"repositories": ["a"]}', link))
    with pytest.raises(ProtocolError):
        list(catalog(client.registry(rogue.host, SECRET)))
    assert not other_host.seen


# -- transfers that break ------------------------------------------------------------------------


def test_truncated_blob_is_continued_where_it_broke(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    cut = len(LAYER) // 5
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", ranged(LAYER, cut=cut))
    client.pull(name)
    asked = [s.headers.get("Range") for s in rogue.requests("GET", f"/v2/x/blobs/{LAYER_DIGEST}")]
    assert asked == [None, *(f"bytes={cut * n}-" for n in range(1, 5))]


def test_truncated_blob_without_ranges_starts_again_and_gives_up(
    client: Client, rogue: Rogue
) -> None:
    name = serve(rogue)
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", Answer(200, LAYER, cut=1000))
    with pytest.raises(TransferInterrupted):
        client.pull(name)
    asked = rogue.requests("GET", f"/v2/x/blobs/{LAYER_DIGEST}")
    assert [s.headers.get("Range") for s in asked] == [None, "bytes=1000-", "bytes=1000-"]
    assert client.store.find(name) is None


def test_wrong_size_is_refused_before_the_bytes_are_read(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", Answer(200, LAYER + b"!"))
    with pytest.raises(ContentMismatch, match="size of blob"):
        client.pull(name)


def test_more_bytes_than_the_descriptor_says_are_not_written(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", Answer(200, LAYER + b"x" * 10_000_000, length=False))
    with pytest.raises(ContentMismatch, match="more than"):
        client.pull(name)


def test_range_that_was_not_asked_for_is_refused(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    headers = {"Content-Range": f"bytes 5-{len(LAYER) - 1}/{len(LAYER)}"}
    rogue.on(f"/v2/x/blobs/{LAYER_DIGEST}", Answer(206, LAYER[5:], headers))
    with pytest.raises(ProtocolError, match="asked for bytes from 0"):
        client.pull(name)


def test_damaged_leftover_of_a_crash_is_downloaded_anew(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    client.store.lease().close()  # makes the directories
    path = os.path.join(client.store.root, "ingest", f"sha256-{LAYER_DIGEST.encoded}.partial")
    with open(path, "wb") as file:
        file.write(bytes(5000))  # zeros, as a file system leaves them after a crash
    client.pull(name)
    asked = [s.headers.get("Range") for s in rogue.requests("GET", f"/v2/x/blobs/{LAYER_DIGEST}")]
    assert asked == ["bytes=5000-", None]


def test_slow_server_is_given_up(another_client: Callable[..., Client], rogue: Rogue) -> None:
    def slow(seen: Seen) -> Answer:
        time.sleep(1.0)
        return Answer()

    serve(rogue)
    rogue.on("/v2/x/manifests/1", slow)
    hasty = another_client(read_timeout_s=0.2, attempts=2)
    with pytest.raises(RegistryUnavailable, match="no answer in time"):
        hasty.pull(f"{rogue.host}/x:1")


def test_429_and_503_are_waited_for_as_long_as_they_ask(client: Client, rogue: Rogue) -> None:
    name = serve(rogue)
    right = rogue.answers["/v2/x/manifests/1"]
    answers = iter([Answer(429, b"", {"Retry-After": "7"}), Answer(503)])
    rogue.on("/v2/x/manifests/1", lambda seen: next(answers, None) or right(seen))
    client.pull(name)
    assert client.pauses[0] == 7.0 and 0.1 < client.pauses[1] < 2


def test_a_retry_after_of_hours_is_an_error(client: Client, rogue: Rogue) -> None:
    serve(rogue)
    rogue.on("/v2/x/manifests/1", Answer(429, b"", {"Retry-After": "36000"}))
    with pytest.raises(TooManyRequests) as caught:
        client.pull(f"{rogue.host}/x:1")
    assert "36000" in caught.value.hint and client.pauses == []


def test_a_registry_that_stores_something_else_is_noticed(client: Client, rogue: Rogue) -> None:
    put(client.store, MADE, f"{rogue.host}/x:1")
    rogue.on("/v2/x/blobs/uploads/", Answer(202, b"", {"Location": "/v2/x/blobs/uploads/1"}))
    lie = {"Docker-Content-Digest": str(Digest.of(b"something else"))}
    rogue.on("/v2/x/blobs/uploads/1", Answer(201, b"", lie))
    with pytest.raises(ContentMismatch, match="as stored"):
        client.push(f"{rogue.host}/x:1")
    assert not rogue.requests("PUT", "/v2/x/manifests/")


def test_broken_upload_continues_where_the_registry_has_it(client: Client, rogue: Rogue) -> None:
    put(client.store, MADE, f"{rogue.host}/x:1")
    received: list[bytes] = []
    location = {"Location": "/v2/x/blobs/uploads/1"}

    def session(seen: Seen) -> Answer:
        config = seen.body == MADE.config.raw
        if seen.method == "PUT" and not config and not received:
            received.append(seen.body[:1000])
            return Answer(503)
        if seen.method == "GET":
            return Answer(204, b"", {"Range": f"0-{len(received[0]) - 1}", **location})
        if seen.method == "PATCH":
            assert seen.headers["Content-Range"] == f"1000-{len(LAYER) - 1}"
            received.append(seen.body)
            return Answer(202, b"", location)
        return Answer(201)

    rogue.on("/v2/x/blobs/uploads/", Answer(202, b"", location))
    rogue.on("/v2/x/blobs/uploads/1", session)
    rogue.on("/v2/x/manifests/1", Answer(201))
    client.push(f"{rogue.host}/x:1")
    assert b"".join(received) == LAYER


def test_reference_of_a_made_image(client: Client) -> None:
    put(client.store, MADE, "x")
    assert client.store.resolve(reference("x")).id == MADE.config.digest
