"""Connections to one or more origins: opened, reused, through a proxy where one is configured.

http.client does the protocol: it bounds header lines and counts, decodes chunks, and lets a body
be read straight into a large buffer, which is what a registry's blobs need (see the README).
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading

from client.errors import ClientError, RegistryUnavailable
from client.origin import Origin, may_be_plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.options import ClientOptions

# Sent through a TLS connection in pieces of this size; a plain one uses sendfile.
BLOCK = 1 << 20
MAX_IDLE = 8  # connections kept per origin


class Connection:
    """One open connection. `prefix` goes before a path: a proxy for plain http wants whole URLs."""

    __slots__ = ("http", "is_used", "origin", "prefix")

    def __init__(self, origin: Origin, link: http.client.HTTPConnection, prefix: str) -> None:
        self.origin = origin
        self.http = link
        self.prefix = prefix
        self.is_used = False  # has carried a request before, so it may turn out to be dead

    def close(self) -> None:
        self.http.close()


class Connections:
    """A pool. Safe with threads: a connection belongs to one request until it is given back."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._idle: dict[Origin, list[Connection]] = {}
        self._lock = threading.Lock()
        self._contexts: dict[bool, ssl.SSLContext] = {}

    def take(self, origin: Origin) -> Connection:
        """An idle connection to the origin, or a new one. Raises RegistryUnavailable."""
        with self._lock:
            idle = self._idle.get(origin)
            if idle:
                return idle.pop()
        return self._open(origin)

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose last answer was read to its end."""
        connection.is_used = True
        with self._lock:
            idle = self._idle.setdefault(connection.origin, [])
            if len(idle) < MAX_IDLE:
                idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            connections = [c for idle in self._idle.values() for c in idle]
            self._idle.clear()
        for connection in connections:
            connection.close()

    def _open(self, origin: Origin) -> Connection:
        options = self._options
        proxy = find_proxy(origin, options)
        server = proxy.origin if proxy else origin
        link: http.client.HTTPConnection
        prefix = ""
        if origin.scheme == "https":
            link = http.client.HTTPSConnection(
                server.host,
                server.port,
                timeout=options.connect_timeout_s,
                context=self._context(origin),
                blocksize=BLOCK,
            )
            if proxy is not None:
                link.set_tunnel(origin.host, origin.port, headers=proxy.headers)
        else:
            link = http.client.HTTPConnection(
                server.host, server.port, timeout=options.connect_timeout_s, blocksize=BLOCK
            )
            prefix = str(origin) if proxy else ""
        try:
            link.connect()
        except (OSError, http.client.HTTPException) as error:
            link.close()
            raise _unreachable(origin, proxy, error) from error
        link.sock.settimeout(options.read_timeout_s)
        link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Connection(origin, link, prefix)

    def _context(self, origin: Origin) -> ssl.SSLContext:
        trusting = may_be_plain(origin, self._options)
        with self._lock:
            context = self._contexts.get(trusting)
            if context is None:
                context = ssl.create_default_context()
                if self._options.ca_file:
                    _trust(context, self._options.ca_file)
                if trusting:
                    # Listed as insecure, or this machine: a certificate adds nothing to plain http.
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                self._contexts[trusting] = context
            return context


def _trust(context: ssl.SSLContext, ca_file: str) -> None:
    try:
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:  # an SSLError, for a file with something else in it, is one too
        reason = "not certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ClientError(f"cannot trust the certificates in {ca_file}: {reason}") from error


class Proxy:
    """An http proxy and what it wants to hear: its own credentials, never a registry's."""

    __slots__ = ("headers", "origin")

    def __init__(self, origin: Origin, headers: dict[str, str]) -> None:
        self.origin = origin
        self.headers = headers


def find_proxy(origin: Origin, options: ClientOptions) -> Proxy | None:
    """The proxy for this origin. Loopback never goes through one.

    Raises: ClientError if the configured proxy is not an http URL.
    """
    proxies = options.proxies
    url = proxies.get(origin.scheme) or proxies.get("all")
    if not url or origin.is_loopback or _is_excluded(origin, proxies.get("no", "")):
        return None
    scheme, _, rest = url.rpartition("://")
    user, _, address = rest.rpartition("@")
    headers = {}
    if user:
        from base64 import b64encode
        from urllib.parse import unquote

        word = b64encode(unquote(user).encode()).decode()
        headers["Proxy-Authorization"] = f"Basic {word}"
    try:
        server, _ = Origin.parse(f"{scheme or 'http'}://{address}")
    except ValueError as error:
        raise ClientError(
            f"the proxy for {origin} cannot be used: it must be http://host:port",
            hint="see the variables http_proxy, https_proxy and no_proxy",
        ) from error
    if server.scheme != "http":
        raise ClientError(f"the proxy for {origin} cannot be used: only http:// proxies are known")
    return Proxy(server, headers)


def _is_excluded(origin: Origin, names: str) -> bool:
    for name in names.replace(" ", ",").split(","):
        name = name.lower().lstrip("*").lstrip(".")
        host, _, port = name.partition(":")
        if port and port != str(origin.port):
            continue
        if name == "*" or (host and (origin.host == host or origin.host.endswith("." + host))):
            return True
    return names.strip() == "*"


def _unreachable(origin: Origin, proxy: Proxy | None, error: Exception) -> RegistryUnavailable:
    where = f"{origin} through the proxy {proxy.origin}" if proxy else str(origin)
    hint = "is it running, and is the name right?"
    is_final = False
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted: {error.verify_message}"
        hint = "add its authority to the system's certificates"
        is_final = True
    elif isinstance(error, ssl.SSLError):
        reason = f"TLS failed: {error.reason or error}"
        hint = f'if it speaks plain http: insecure_registries = ["{origin.netloc}"]'
    elif isinstance(error, socket.gaierror):
        reason = "no such host"
        is_final = error.errno == socket.EAI_NONAME
    elif isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:
        reason = str(error)
    return RegistryUnavailable(f"cannot reach {where}: {reason}", is_final=is_final, hint=hint)
