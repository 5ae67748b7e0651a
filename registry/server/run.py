"""Running the registry's application: a listening socket, uvicorn, and what it is told.

Everything is an argument; nothing here reads the environment or a file other than the certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from types import FrameType
from typing import Any, Literal

import uvicorn

from registry.errors import RegistryError
from registry.server.immediate import Responder
from registry.server.protocol import RegistryProtocol, missing_names
from registry.server.shutdown import stop
from registry.server.threads import RECEIVE_NICENESS, RECEIVERS, SEND_NICENESS, SENDERS
from registry.server.tls import Certificates, CertificateUnusable

LOGGER = logging.getLogger("registry.server")

#: How often the certificate's files are looked at.
CERTIFICATE_EVERY_S = 2.0


class CannotListen(RegistryError):
    """The address is taken, not ours, or not allowed."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    host: str = "127.0.0.1"
    #: 0 takes any free port; `Listening.port` says which.
    port: int = 5000
    #: PEM files; with TLS the fast paths are off, a proxy in front that ends TLS keeps them.
    certificate: str = ""
    private_key: str = ""
    #: Authorities whose certificates clients must have; empty: clients need none.
    client_ca: str = ""
    #: "auto" is uvloop when it is installed.
    loop: Literal["auto", "asyncio", "uvloop"] = "auto"
    #: False keeps to plain ASGI messages, for comparison and for trouble.
    fast_paths: bool = True
    #: Connections beyond which requests are answered with 503; 0 is no limit.
    max_connections: int = 0
    #: Connections that the kernel keeps waiting.
    backlog: int = 2048
    #: Seconds an unused connection is kept. Longer than a proxy's own limit avoids broken reuse.
    keep_alive_s: int = 75
    #: Seconds that running requests get at shutdown before they are cancelled.
    graceful_s: int = 30
    #: What ends the server gracefully, and at once when it comes again.
    stop_signals: tuple[signal.Signals, ...] = (signal.SIGTERM, signal.SIGINT)
    #: Seconds a transfer may go without a byte.
    idle_s: float = 60.0
    #: Added to the niceness of threads that send, and of those that receive, bulk bytes; 0 is off.
    send_niceness: int = SEND_NICENESS
    receive_niceness: int = RECEIVE_NICENESS


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server can be reached from now on."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def _nothing(listening: Listening) -> None: ...


def _silence() -> None: ...


def serve(
    application: Any,
    options: ServerOptions,
    on_ready: Callable[[Listening], None] = _nothing,
    *,
    sockets: list[socket.socket] | None = None,
    on_stopping: Callable[[], None] = _silence,
) -> None:
    """Serve until SIGTERM or SIGINT; a second one ends it at once.

    `on_ready` is called once, when requests are accepted; `on_stopping` when they are no longer.
    `sockets` are used, and closed at the end, in place of those that the options would open.

    Raises: CannotListen; CertificateUnusable; whatever the application's lifespan raises ends in
    SystemExit(3).
    """
    sockets = listen(options) if sockets is None else sockets
    try:
        make_server(application, options, on_ready, on_stopping).run(sockets=sockets)
    finally:
        for sock in sockets:
            sock.close()


def make_server(
    application: Any,
    options: ServerOptions,
    on_ready: Callable[[Listening], None] = _nothing,
    on_stopping: Callable[[], None] = _silence,
) -> RegistryServer:
    """The uvicorn server for these options, to be run with `run(sockets=[…])`.

    Raises: CertificateUnusable.
    """
    SENDERS.configure(niceness=options.send_niceness)
    RECEIVERS.configure(niceness=options.receive_niceness)
    LOGGER.info("%s", describe(options))
    certificates = None
    if options.certificate:
        certificates = Certificates(options.certificate, options.private_key, options.client_ca)
    config = uvicorn.Config(
        application,
        http=protocol_for(options, getattr(application, "responder", None)),
        loop=_loop(options),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # X-Forwarded-* are the application's business, which knows our proxies.
        proxy_headers=False,
        ssl_context_factory=(lambda *_: certificates.context) if certificates else None,
        backlog=options.backlog,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=options.graceful_s,
    )
    return RegistryServer(config, options, certificates, on_ready, on_stopping)


class RegistryServer(uvicorn.Server):
    """Uvicorn's server, with our start, signals and end, and certificates that change."""

    def __init__(
        self,
        config: uvicorn.Config,
        options: ServerOptions,
        certificates: Certificates | None,
        on_ready: Callable[[Listening], None],
        on_stopping: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._options = options
        self._certificates = certificates
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            if self._certificates is not None:
                self._watching = asyncio.create_task(self._watch(self._certificates))
            address = self.servers[0].sockets[0].getsockname()
            scheme = "https" if self.config.is_ssl else "http"
            self._on_ready(Listening(scheme, address[0], address[1]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no connection any more; finish what runs, within limits; close the application."""
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        self._on_stopping()
        if self._watching is not None:
            self._watching.cancel()
        await stop(
            self.server_state, graceful_s=self._options.graceful_s, at_once=lambda: self.force_exit
        )
        await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to stop. The second one does not wait for anybody."""
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have the signals handled here; afterwards the handlers from before are back.

        Unlike uvicorn's, it does not raise them anew at the end: a server that was told to stop
        and did has ended well.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            each: signal.signal(each, self.handle_exit) for each in self._options.stop_signals
        }
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._reload_soon)
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _reload_soon(self, sig: int, frame: FrameType | None) -> None:
        if self._watching is not None:
            loop = self._watching.get_loop()
            loop.call_soon_threadsafe(self.reload_certificates)

    def reload_certificates(self) -> None:
        """Use the certificate's files as they are now; a broken pair leaves the old one."""
        if self._certificates is None:
            return
        try:
            self._certificates.reload()
        except CertificateUnusable as error:
            LOGGER.error("keeping the certificate in use: %s", error)
        else:
            LOGGER.warning("using the new certificate of %s", self._options.certificate)

    async def _watch(self, certificates: Certificates) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_EVERY_S)
            if certificates.settled_change():
                self.reload_certificates()


def protocol_for(
    options: ServerOptions, asked_first: Responder | None = None
) -> type[RegistryProtocol]:
    """The protocol class with these options; uvicorn makes one instance a connection."""

    class ConfiguredProtocol(RegistryProtocol):
        fast_paths = options.fast_paths
        idle_s = options.idle_s
        max_connections = options.max_connections
        responder = None if asked_first is None else staticmethod(asked_first)

    return ConfiguredProtocol


def describe(options: ServerOptions) -> str:
    """One line for the log: which way large bodies take, and why."""
    missing = missing_names()
    loop = _loop(options)
    if not options.fast_paths:
        reason = "switched off"
    elif options.certificate:
        reason = "TLS is on; a proxy in front that ends TLS keeps them"
    elif missing:
        reason = f"uvicorn {uvicorn.__version__} or this system lacks {', '.join(missing)}"
    else:
        return f"blob transfers: sendfile and socket intake in threads ({loop})"
    return f"blob transfers: 1 MiB messages ({loop}); fast paths are off: {reason}"


def _loop(options: ServerOptions) -> Literal["asyncio", "uvloop"]:
    if options.loop != "auto":
        return options.loop
    return "uvloop" if find_spec("uvloop") else "asyncio"


def listen(options: ServerOptions) -> list[socket.socket]:
    """A listening socket for every address of the host; `::` is IPv4 as well.

    `localhost` is 127.0.0.1 and ::1, whatever the resolver says of it: clients may try either
    first. An address that this machine does not have is left out as long as there is another.

    Raises: CannotListen.
    """
    sockets: list[socket.socket] = []
    port, absent = options.port, None
    try:
        for family, address in _addresses(options):
            try:
                sock = socket.create_server(
                    (address, port),
                    family=family,
                    backlog=options.backlog,
                    dualstack_ipv6=address == "::" and socket.has_dualstack_ipv6(),
                )
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error
                continue
            sock.setblocking(False)
            sockets.append(sock)
            port = sock.getsockname()[1]  # of port 0 the one that was free
        if absent is not None and not sockets:
            raise absent
    except OSError as error:
        for sock in sockets:
            sock.close()
        # create_server adds the address to the text; it is named already.
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise CannotListen(
            f"cannot listen on {options.host}:{options.port}: {reason or error}",
            hint="choose another host or port, or stop the program that has it",
        ) from error
    return sockets


def _addresses(options: ServerOptions) -> list[tuple[int, str]]:
    if options.host == "localhost":
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    found = socket.getaddrinfo(
        options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((int(family), str(place[0])) for family, _, _, _, place in found))
