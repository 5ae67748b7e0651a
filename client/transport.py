"""One HTTP request, from a method and a path to a checked answer.

    attempt        take a connection, send, read the status      (client.connection)
      redirect     at most a few, credentials stay with their origin
      challenge    at most twice: no token yet, then a wider one (client.auth)
    retry          429, 5xx and lost connections, with growing pauses

Every answer is read through a bound. A body to send must be able to start again.
"""

from __future__ import annotations

import http.client
import random
import ssl
import time
from typing import cast
from urllib.parse import urljoin

from client.connection import BLOCK, Connection, Connections, find_proxy
from client.errors import (
    Denied,
    NotFound,
    ProtocolError,
    RegistryError,
    RegistryUnavailable,
    TooManyRequests,
    TransferInterrupted,
    Unauthorized,
)
from client.origin import Origin, require_allowed
from ocispec.distribution.errors import parse_problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import BinaryIO, Protocol

    from client.options import ClientOptions
    from client.source import BlobStream

    class Authorizer(Protocol):
        """Supplies the Authorization header of one registry's requests."""

        def header(self, scopes: frozenset[str]) -> str | None: ...

        def answer(
            self, challenges: Iterable[str], scopes: frozenset[str], sent: str | None
        ) -> bool:
            """Take in a 401; True if the request should be sent again."""


MAX_REDIRECTS = 5
MAX_ERROR_BYTES = 64 << 10
RETRIED = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
KEEPING_METHOD = frozenset({307, 308})


class Response:
    """An answer whose body has not been read. A context manager; closing twice is harmless."""

    def __init__(
        self,
        pool: Connections,
        connection: Connection,
        answer: http.client.HTTPResponse,
        target: str,
    ) -> None:
        self._pool = pool
        self._connection = connection
        self._answer = answer
        self._is_closed = False
        self._is_broken = False
        self.status = answer.status
        self.origin = connection.origin
        self.target = target
        if answer.length == 0:
            answer.read()  # nothing to come, of a HEAD for one: the connection is free already

    @property
    def length(self) -> int | None:
        """Bytes of body announced, None when the server did not say."""
        return self._answer.length

    def header(self, name: str) -> str:
        """One header, empty when absent."""
        return self._answer.headers.get(name) or ""

    def all(self, name: str) -> list[str]:
        found: list[str] = self._answer.headers.get_all(name) or []
        return found

    def readinto(self, buffer: memoryview) -> int:
        """Fill as much of the buffer as the body still has; 0 at its end.

        Raises TransferInterrupted if the connection ends before the announced length.
        """
        before = self._answer.length
        try:
            count = self._answer.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            self._is_broken = True
            self.close()
            raise TransferInterrupted(f"{self.origin} stopped in the middle: {error}") from error
        if count == 0 and before:
            self._is_broken = True
            self.close()
            raise TransferInterrupted(
                f"{self.origin} closed the connection with {before} bytes missing"
            )
        return count

    def read(self, limit: int, what: str, timeout_s: float = 120.0) -> bytes:
        """The whole of a small body.

        Raises: ProtocolError if it is larger than `limit`; TransferInterrupted if it ends early or
        trickles for longer than `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        if (self.length or 0) > limit:
            self.close()
            raise self._too_large(what, limit)
        parts: list[bytes] = []
        total = 0
        try:
            while True:
                before = self._answer.length
                part = self._answer.read1(64 << 10)
                if not part:
                    if before:
                        raise TransferInterrupted(f"{self.origin} sent only part of {what}")
                    break
                parts.append(part)
                total += len(part)
                if total > limit:
                    raise self._too_large(what, limit)
                if time.monotonic() > deadline:
                    raise TransferInterrupted(f"{self.origin} sends {what} too slowly")
        except (OSError, http.client.HTTPException) as error:
            self._is_broken = True
            raise TransferInterrupted(
                f"{self.origin} stopped in the middle of {what}: {error}"
            ) from error
        finally:
            self.close()
        return b"".join(parts)

    def _too_large(self, what: str, limit: int) -> ProtocolError:
        return ProtocolError(
            f"{what} from {self.origin} is larger than {limit} bytes",
            registry=self.origin.netloc,
            status=self.status,
        )

    def finish(self) -> None:
        """Drop a short body and keep the connection; a long one costs the connection."""
        if self._is_closed:
            return
        try:
            if (self._answer.length or 0) <= MAX_ERROR_BYTES:
                self._answer.read(MAX_ERROR_BYTES)
        except (OSError, http.client.HTTPException):
            self._is_broken = True  # nothing of it was wanted
        self.close()

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        # `isclosed` is also true of a body that ended early; its missing length tells.
        whole = self._answer.isclosed() and not self._answer.length
        reusable = whole and not self._is_broken and not self._answer.will_close
        self._answer.close()
        if reusable:
            self._pool.give_back(self._connection)
        else:
            self._connection.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class BlobBody:
    """A blob, from an offset on, as a request body. Opened anew for every try.

    A file is sent by sendfile where the connection is plain; anything else through a buffer.
    `sent` is told the position in the blob.
    """

    def __init__(
        self,
        open_stream: Callable[[int], BlobStream],
        size: int,
        *,
        offset: int = 0,
        sent: Callable[[int], None] = lambda position: None,
    ) -> None:
        self._open = open_stream
        self._sent = sent
        self._offset = offset
        self.size = size - offset

    def send(self, sock: socket.socket) -> None:
        with self._open(self._offset) as stream:
            if stream.offset != self._offset:
                raise TransferInterrupted("the source cannot continue in the middle of a blob")
            if hasattr(stream, "fileno") and not isinstance(sock, ssl.SSLSocket):
                # Not the stream itself: where the connection is gone, sendfile goes on to read().
                with open(stream.fileno(), "rb", buffering=0, closefd=False) as file:
                    self._send_file(sock, cast("BinaryIO", file))
            else:
                self._send_stream(sock, stream)

    def _send_file(self, sock: socket.socket, file: BinaryIO) -> None:
        offset, end = self._offset, self._offset + self.size
        while offset < end:
            count = sock.sendfile(file, offset, min(8 * BLOCK, end - offset))
            if not count:
                break  # shorter than it was: the server will miss the rest and say so
            offset += count
            self._sent(offset)

    def _send_stream(self, sock: socket.socket, stream: BlobStream) -> None:
        offset, end = self._offset, self._offset + self.size
        buffer = memoryview(bytearray(min(BLOCK, max(self.size, 1))))
        while offset < end:
            count = stream.readinto(buffer[: end - offset])
            if not count:
                break
            sock.sendall(buffer[:count])
            offset += count
            self._sent(offset)


class Transport:
    """Requests to any origin, through one pool of connections. Safe with threads."""

    def __init__(
        self, options: ClientOptions, *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.options = options
        self._pool = Connections(options)
        self._sleep = sleep
        self._answered: set[Origin] = set()

    def close(self) -> None:
        self._pool.close()

    def pause(self, attempt: int) -> None:
        """Wait as long as before the next try of a request that failed `attempt` times."""
        self._sleep(self._pause(attempt, ""))

    def request(
        self,
        method: str,
        origin: Origin,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BlobBody | None = None,
        authorizer: Authorizer | None = None,
        authorization: str | None = None,
        scopes: frozenset[str] = frozenset(),
        follow: bool = True,
        attempts: int | None = None,
    ) -> Response:
        """Send a request until there is an answer worth returning, which may be an error status.

        `authorizer` signs requests to `origin` only, and is asked again after a 401;
        `authorization` is a fixed header instead. `follow` allows redirects. `attempts` bounds the
        tries; 1 means no retry.

        Raises: RegistryUnavailable, ProtocolError (redirects), what the authorizer raises.
        """
        limit = attempts or self.options.attempts
        given = dict(headers or {})
        for attempt in range(1, limit + 1):
            try:
                if authorizer is None:
                    response = self._redirected(
                        method, origin, target, given, body, authorization, follow
                    )
                else:
                    response = self._challenged(
                        method, origin, target, given, body, authorizer, scopes, follow
                    )
            except RegistryUnavailable as error:
                # A host that has never answered is more likely a wrong name than a hiccup.
                if attempt == limit or error.is_final or origin not in self._answered:
                    raise
                self._sleep(self._pause(attempt, ""))
                continue
            if response.status not in RETRIED or attempt == limit:
                return response
            wait = self._pause(attempt, response.header("Retry-After"))
            if wait > self.options.longest_wait_s:
                return response
            response.finish()
            self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _challenged(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: dict[str, str],
        body: bytes | BlobBody | None,
        authorizer: Authorizer,
        scopes: frozenset[str],
        follow: bool,
    ) -> Response:
        for remaining in (2, 1, 0):
            sent = authorizer.header(scopes)
            response = self._redirected(method, origin, target, headers, body, sent, follow)
            if response.status != 401 or response.origin != origin or not remaining:
                break
            try:
                if not authorizer.answer(response.all("WWW-Authenticate"), scopes, sent):
                    break
            except BaseException:
                response.close()
                raise
            response.finish()
        return response

    def _redirected(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: dict[str, str],
        body: bytes | BlobBody | None,
        authorization: str | None,
        follow: bool,
    ) -> Response:
        home = origin
        for _ in range(MAX_REDIRECTS + 1):
            require_allowed(origin, self.options)
            signed = dict(headers)
            # The rule that a dozen advisories are about: credentials go to their origin, which is
            # scheme, host and port, and nowhere else.
            if authorization is not None and origin == home:
                signed["Authorization"] = authorization
            response = self._send(method, origin, target, signed, body)
            # 301 to 303 would turn a PUT into a GET: they are an answer then, not a redirect.
            followed = REDIRECTS if method in ("GET", "HEAD") else KEEPING_METHOD
            if not follow or response.status not in followed:
                return response
            location = response.header("Location")
            response.finish()
            origin, target = self.resolve(origin, target, location)
        raise ProtocolError(
            f"{home} redirected more than {MAX_REDIRECTS} times", registry=home.netloc
        )

    def resolve(self, origin: Origin, target: str, location: str) -> tuple[Origin, str]:
        """Where a Location or Link of an answer points. From TLS it may not lead out of TLS."""
        try:
            found, path = Origin.parse(urljoin(f"{origin}{target}", location))
        except ValueError as error:
            raise ProtocolError(
                f"{origin} answered with an unusable location", registry=origin.netloc
            ) from error
        if not location or (origin.scheme == "https" and found.scheme != "https"):
            raise ProtocolError(
                f"{origin} leads from TLS to {found}, which is not followed",
                registry=origin.netloc,
            )
        return found, path

    def _send(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: dict[str, str],
        body: bytes | BlobBody | None,
    ) -> Response:
        while True:
            connection = self._pool.take(origin)
            try:
                response = self._exchange(connection, method, target, headers, body)
                self._answered.add(origin)
                return response
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if connection.is_used and not isinstance(error, TimeoutError):
                    continue  # an idle connection that the server had closed: not a failure yet
                raise _unusable(origin, error) from error
            except BaseException:
                connection.close()
                raise

    def _exchange(
        self,
        connection: Connection,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | BlobBody | None,
    ) -> Response:
        link = connection.http
        link.putrequest(
            method, connection.prefix + target, skip_host=True, skip_accept_encoding=True
        )
        # http.client writes the port into Host even where it is the scheme's own; signatures and
        # realms are compared with what other clients send.
        link.putheader("Host", connection.origin.netloc)
        link.putheader("User-Agent", self.options.user_agent)
        link.putheader("Accept-Encoding", "identity")
        for name, text in headers.items():
            link.putheader(name, text)
        if connection.prefix:
            proxy = find_proxy(connection.origin, self.options)
            for name, text in (proxy.headers if proxy else {}).items():
                link.putheader(name, text)
        if body is not None or method in ("POST", "PUT", "PATCH"):
            size = body.size if isinstance(body, BlobBody) else len(body or b"")
            link.putheader("Content-Length", str(size))
        try:
            link.endheaders(body if isinstance(body, bytes) and body else None)
            if isinstance(body, BlobBody):
                body.send(link.sock)
        except (BrokenPipeError, ConnectionResetError):
            if connection.is_used:
                raise
            # A server that refuses early answers and closes; its answer says more than the pipe.
        return Response(self._pool, connection, link.getresponse(), target)

    def _pause(self, attempt: int, retry_after: str) -> float:
        if retry_after.isascii() and retry_after.strip().isdigit():
            return float(min(int(retry_after), 10**6))
        if retry_after:
            from email.utils import parsedate_to_datetime

            try:
                until = parsedate_to_datetime(retry_after).timestamp()
                return max(0.0, until - time.time())
            except ValueError:
                pass
        return min(8.0, 0.25 * 2.0 ** (attempt - 1)) * random.uniform(0.75, 1.25)


def _unusable(origin: Origin, error: Exception) -> RegistryUnavailable:
    """The error for a connection that was made and then brought no answer."""
    hint = "the registry may be overloaded or restarting; try again"
    reason = str(error) or type(error).__name__
    if isinstance(error, TimeoutError):
        reason = "no answer in time"
    elif isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
        # It carries the peer's first line; one that hung up without a word is an OSError as well.
        line = str(error).strip()[:60]
        reason = f"it says {line!r}" if line else "it says nothing"
        hint = "that is not HTTP: is the port right?"
    return RegistryUnavailable(f"no usable answer from {origin}: {reason}", hint=hint)


def fail(response: Response, what: str, registry: str, account: str = "") -> RegistryError:
    """The error for an answer that refuses `what`; its body is read, within bounds.

    `account` is whom the registry's realm has accepted: a 401 then means that it wants rights
    which this account has not, and logging in again would change nothing.
    """
    status = response.status
    said = ""
    try:
        raw = response.read(MAX_ERROR_BYTES, "an error")
        said = "; ".join(dict.fromkeys(p.message or p.code for p in parse_problems(raw)))[:500]
    except (RegistryError, TransferInterrupted):
        pass  # an error page of something else; the status says enough
    detail = f": {said}" if said else ""
    if status == 401 and not account:
        return Unauthorized(
            f"{what}: authentication required{detail}",
            registry=registry,
            status=status,
            hint=f"log in first: pyreg login {registry}",
        )
    if status in (401, 403):
        whom = f" to {account}" if account else ""
        kind = Unauthorized if status == 401 else Denied
        return kind(
            f"{what}: access denied{whom}{detail}",
            registry=registry,
            status=status,
            hint=f"does this account of {registry} have the right?",
        )
    if status == 404:
        return NotFound(f"{what}: not found{detail}", registry=registry, status=status)
    if status == 429:
        return TooManyRequests(
            f"{what}: too many requests{detail}",
            registry=registry,
            status=status,
            hint=f"{registry} asks to wait {response.header('Retry-After') or 'a while'}",
        )
    return ProtocolError(
        f"{what}: {registry} answered {status}{detail}", registry=registry, status=status
    )
