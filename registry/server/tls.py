"""The server's certificate, read again while it serves.

New connections get the certificate that was read last; those that are open keep theirs. A pair that
cannot be used changes nothing: the one before stays, and one line of the log says why.
"""

from __future__ import annotations

import os
import ssl

from registry.errors import RegistryError

# TLS 1.3 has its own suites, all of them good. For 1.2: forward secrecy and authenticated
# encryption only, which every client since 2015 has. Spec: RFC 9325, 4.2.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


class CertificateUnusable(RegistryError):
    """The certificate or its key cannot be read, or they do not belong together."""


class Certificates:
    """Certificate, key and, where clients must have one too, their authorities: PEM files."""

    def __init__(self, certificate: str, key: str, client_ca: str = "") -> None:
        """Raises: CertificateUnusable."""
        self._files = (certificate, key, client_ca)
        self._seen = self._signature()
        self._loaded = self._seen
        self._current = load_context(*self._files)
        #: What to listen with; every handshake asks it for the certificate of that moment.
        self.context = load_context(*self._files)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str, _: ssl.SSLContext) -> None:
        # Called for clients that name no server as well.
        connection.context = self._current

    def reload(self) -> None:
        """Use the files as they are now, from the next handshake on.

        Raises: CertificateUnusable; then nothing changed.
        """
        self._loaded = self._seen = self._signature()
        self._current = load_context(*self._files)

    def settled_change(self) -> bool:
        """Whether the files are others than those last read, and have been so since the last call.

        The second half waits for whoever has written the certificate and is about to write the key.
        """
        before, self._seen = self._seen, self._signature()
        return self._seen == before and self._seen != self._loaded

    def _signature(self) -> tuple[object, ...]:
        return tuple(_identity(name) for name in self._files if name)


def load_context(certificate: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """A server's context of these files. Raises: CertificateUnusable."""
    for name in filter(None, (certificate, key, client_ca)):
        try:
            with open(name, "rb") as file:
                file.read(1)
        except OSError as error:
            raise CertificateUnusable(
                f"cannot read {name}: {error.strerror}",
                hint="the settings are tls_certificate, tls_key and tls_client_ca",
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        # The function stands for a passphrase: without it OpenSSL would ask the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise CertificateUnusable(
            f"{certificate} and {key} cannot be used: {_reason(error)}",
            hint="both must be PEM, belong together, and the key must have no passphrase",
        ) from error
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise CertificateUnusable(
                f"{client_ca} holds no certificates: {_reason(error)}", hint="it must be PEM"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(error: ssl.SSLError) -> str:
    words = (error.reason or "not PEM").replace("_", " ").lower()
    return {
        "key values mismatch": "the key is another certificate's",
        "bad decrypt": "the key has a passphrase",
        "bad password read": "the key has a passphrase",
        "problems getting password": "the key has a passphrase",
    }.get(words, words)


def _identity(name: str) -> tuple[int, ...]:
    """Changes when a file is written or replaced, also behind a symbolic link."""
    try:
        found = os.stat(name)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
