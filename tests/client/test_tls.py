"""TLS: who is verified, who is not, and that bytes arrive the same through it."""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.connection import Connections
from client.errors import ClientError, RegistryUnavailable
from client.origin import Origin
from ocispec.digest import Digest
from tests.client.conftest import Client, make, put
from tests.client.rogue import Answer, Rogue, rogue_registry


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_registry(certificate: Path) -> Iterator[Rogue]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with rogue_registry(context) as rogue:
        yield rogue


def test_a_tls_registry_on_loopback_is_found_pulled_from_and_pushed_to(
    client: Client, tls_registry: Rogue
) -> None:
    layer = os.urandom(3_000_000)
    made = make(layer)
    tls_registry.serve_image("x", "1", made.manifest, *made.blobs)
    client.pull(f"{tls_registry.host}/x:1")
    for path in list(tls_registry.answers):
        del tls_registry.answers[path]
    tls_registry.on("/v2/x/blobs/uploads/", Answer(202, b"", {"Location": "/upload"}))
    tls_registry.on("/upload", Answer(201))
    tls_registry.on("/v2/x/manifests/1", Answer(201))
    client.push(f"{tls_registry.host}/x:1")
    bodies = [seen.body for seen in tls_registry.requests("PUT", "/upload")]
    assert layer in bodies and made.config.raw in bodies


@pytest.mark.parametrize(
    "page",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<title>400 The plain HTTP request was sent to HTTPS port</title>",
    ],
)
def test_a_tls_server_that_answers_plain_http_is_asked_through_tls(
    client: Client, rogue: Rogue, page: bytes
) -> None:
    rogue.on("/v2/", Answer(400, page))
    with pytest.raises(RegistryUnavailable, match="TLS failed"):
        client.registry(rogue.host).check()  # through TLS, which this one does not speak in truth


def test_every_other_registrys_certificate_is_verified(
    client: Client, another_client: Callable[..., Client]
) -> None:
    elsewhere = Origin("https", "reg.example", 443)
    context = Connections(client.options)._context(elsewhere)
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    trusting = another_client(insecure_registries=("reg.example",)).options
    assert Connections(trusting)._context(elsewhere).verify_mode == ssl.CERT_NONE
    other = Origin("https", "other.example", 443)
    assert Connections(trusting)._context(other).verify_mode == ssl.CERT_REQUIRED


def test_a_further_authority_is_trusted(
    client: Client, another_client: Callable[..., Client], certificate: Path, tmp_path: Path
) -> None:
    elsewhere = Origin("https", "reg.example", 443)
    trusting = another_client(ca_file=str(certificate)).options
    usual = Connections(client.options)._context(elsewhere).cert_store_stats()
    with_ours = Connections(trusting)._context(elsewhere).cert_store_stats()
    assert with_ours["x509"] == usual["x509"] + 1
    (tmp_path / "text").write_text("no certificate")
    for name, said in (("missing", "No such file"), ("text", "not certificates")):
        options = another_client(ca_file=str(tmp_path / name)).options
        with pytest.raises(ClientError, match=said):
            Connections(options)._context(elsewhere)


def test_a_redirect_out_of_tls_is_not_followed(client: Client, tls_registry: Rogue) -> None:
    from client.errors import ProtocolError

    made = make(b"layer")
    tls_registry.serve_image("x", "1", made.manifest, *made.blobs)
    there = Answer(307, b"", {"Location": "http://127.0.0.1:9/blob"})
    tls_registry.on(f"/v2/x/blobs/{Digest.of(b'layer')}", there)
    with pytest.raises(ProtocolError, match="from TLS"):
        client.pull(f"{tls_registry.host}/x:1")
    assert put(client.store, made, "x").names
