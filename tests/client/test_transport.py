"""Requests: connections that are reused, bodies that start again, answers that come late."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from client.errors import ProtocolError, RegistryUnavailable, TransferInterrupted
from client.local_transfer import _FileStream
from client.origin import Origin
from client.transport import BlobBody
from ocispec.digest import Digest
from tests.client.conftest import Client, make, put
from tests.client.rogue import Answer, Rogue, Seen


def origin(rogue: Rogue) -> Origin:
    return Origin.parse(f"http://{rogue.host}")[0]


def test_one_connection_serves_a_whole_push(client: Client, rogue: Rogue) -> None:
    put(client.store, make(), f"{rogue.host}/x:1")  # a config and a manifest: one thread
    rogue.on("/v2/x/blobs/uploads/", Answer(202, b"", {"Location": "/v2/x/blobs/uploads/1"}))
    rogue.on("/v2/x/blobs/uploads/1", Answer(201))
    rogue.on("/v2/x/manifests/1", Answer(201))
    client.push(f"{rogue.host}/x:1")
    assert [seen.method for seen in rogue.seen] == ["GET", "HEAD", "POST", "PUT", "PUT"]
    assert rogue.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(
    client: Client, rogue: Rogue
) -> None:
    rogue.on("/once", Answer(200, b"ok", {"Connection": "close"}))
    for _ in range(3):
        with client.transport.request("GET", origin(rogue), "/once") as response:
            assert response.read(10, "it") == b"ok"
    assert client.pauses == []  # not a failure that is waited for


def test_an_answer_that_is_not_http_is_an_error(
    client: Client, another_client: Callable[..., Client]
) -> None:
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            for _ in range(2):
                peer, _ = server.accept()
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-\x1b[31mOpenSSH\r\n")
                peer.close()

        thread = threading.Thread(target=babble)
        thread.start()
        name = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(RegistryUnavailable) as caught:
            client.registry(name).check()
        thread.join()
    assert str(caught.value).isprintable()  # one line, and nothing that a terminal obeys
    assert "HTTP" in caught.value.hint


def test_endless_headers_are_an_error(client: Client, rogue: Rogue) -> None:
    rogue.on("/h", Answer(200, b"", {f"X-{number}": "x" * 100 for number in range(500)}))
    with pytest.raises(RegistryUnavailable, match="headers"):
        client.transport.request("GET", origin(rogue), "/h", attempts=1)


def test_a_body_beyond_its_bound_is_not_read(client: Client, rogue: Rogue) -> None:
    for length in (True, False):
        rogue.on("/big", Answer(200, b"x" * 2000, length=length))
        response = client.transport.request("GET", origin(rogue), "/big")
        with response, pytest.raises(ProtocolError, match="larger than 1000 bytes"):
            response.read(1000, "it")


def test_a_body_that_ends_early_is_an_error(client: Client, rogue: Rogue) -> None:
    rogue.on("/cut", Answer(200, b"x" * 2000, cut=100))
    response = client.transport.request("GET", origin(rogue), "/cut")
    with response, pytest.raises(TransferInterrupted):
        response.read(10_000, "it")


def test_a_body_is_sent_again_whole(client: Client, rogue: Rogue) -> None:
    answers = iter([Answer(503), Answer(201)])
    rogue.on("/put", lambda _: next(answers))
    client.transport.request("PUT", origin(rogue), "/put", body=b"all of it").close()
    assert [seen.body for seen in rogue.seen] == [b"all of it"] * 2


def test_only_what_keeps_the_method_redirects_a_put(client: Client, rogue: Rogue) -> None:
    def there(status: int) -> Callable[[Seen], Answer]:
        return lambda _: Answer(status, b"", {"Location": "/there"})

    rogue.on("/there", Answer(201))
    rogue.on("/302", there(302))
    rogue.on("/307", there(307))
    with client.transport.request("PUT", origin(rogue), "/302", body=b"x") as response:
        assert response.status == 302  # not turned into a GET
    with client.transport.request("PUT", origin(rogue), "/307", body=b"x") as response:
        assert response.status == 201
    assert rogue.seen[-1].method == "PUT" and rogue.seen[-1].body == b"x"


def test_no_cookie_and_no_compression(client: Client, rogue: Rogue) -> None:
    rogue.on("/c", Answer(200, b"", {"Set-Cookie": "session=1"}))
    for _ in range(2):
        client.transport.request("GET", origin(rogue), "/c").close()
    assert all("Cookie" not in seen.headers for seen in rogue.seen)
    assert rogue.seen[0].headers["Accept-Encoding"] == "identity"


def test_an_upload_that_arrived_without_an_answer_is_not_sent_again(
    client: Client, rogue: Rogue
) -> None:
    made = make(b"layer")
    put(client.store, made, f"{rogue.host}/x:1")
    stored: set[str] = set()

    def take(seen: Seen) -> Answer:
        stored.add(Digest.of(seen.body).encoded)
        return Answer(504)  # a proxy lost patience; the registry behind it did not

    def look(blob: bytes) -> Callable[[Seen], Answer]:
        return lambda _: Answer(200 if Digest.of(blob).encoded in stored else 404, blob)

    for blob in made.blobs:
        rogue.on(f"/v2/x/blobs/{Digest.of(blob)}", look(blob))
    rogue.on("/v2/x/blobs/uploads/", Answer(202, b"", {"Location": "/v2/x/blobs/uploads/1"}))
    rogue.on("/v2/x/blobs/uploads/1", take)
    rogue.on("/v2/x/manifests/1", Answer(201))
    client.push(f"{rogue.host}/x:1")
    assert len(rogue.requests("PUT", "/v2/x/blobs/")) == len(made.blobs)


def test_a_connection_that_is_gone_before_a_file_is_sent(tmp_path: Path) -> None:
    """As when a server is killed: an error of the connection, which the next try may mend."""
    path = tmp_path / "blob"
    path.write_bytes(bytes(1 << 20))
    ours, theirs = socket.socketpair()
    theirs.close()
    body = BlobBody(lambda offset: _FileStream(path.open("rb"), offset), 1 << 20)
    with ours, pytest.raises(ConnectionError):
        body.send(ours)
