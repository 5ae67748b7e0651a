"""Running the registry's application: a listening socket, uvicorn, and what it is told.

Everything is an argument; nothing here reads the environment or a file other than the certificate.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

import uvicorn

from registry.errors import RegistryError
from registry.server.protocol import RegistryProtocol, missing_names
from registry.server.threads import RECEIVE_NICENESS, RECEIVERS, SEND_NICENESS, SENDERS

LOGGER = logging.getLogger("registry.server")


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
    #: "auto" is uvloop when it is installed.
    loop: Literal["auto", "asyncio", "uvloop"] = "auto"
    #: False keeps to plain ASGI messages, for comparison and for trouble.
    fast_paths: bool = True
    #: Connections and requests at once beyond which 503 is answered; 0 is no limit.
    limit_concurrency: int = 0
    #: Connections that the kernel keeps waiting.
    backlog: int = 2048
    #: Seconds an unused connection is kept. Longer than a proxy's own limit avoids broken reuse.
    keep_alive_s: int = 75
    #: Seconds that running requests get at shutdown before they are cancelled.
    graceful_s: int = 30
    #: Seconds a transfer may go without a byte.
    idle_s: float = 60.0
    #: Added to the niceness of threads that send, and of those that receive, bulk bytes; 0 is off.
    send_niceness: int = SEND_NICENESS
    receive_niceness: int = RECEIVE_NICENESS
    #: Proxies whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or networks.
    trusted_proxies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where the server can be reached from now on."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def serve(
    application: Any,
    options: ServerOptions,
    on_ready: Callable[[Listening], None] = lambda listening: None,
) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` is called once, when requests are accepted.

    Raises: CannotListen; whatever the application's lifespan raises ends in SystemExit(3).
    """
    sockets = listen(options)
    try:
        make_server(application, options, on_ready).run(sockets=sockets)
    finally:
        for sock in sockets:
            sock.close()


def make_server(
    application: Any,
    options: ServerOptions,
    on_ready: Callable[[Listening], None] = lambda listening: None,
) -> RegistryServer:
    """The uvicorn server for these options, to be run with `run(sockets=[…])`."""
    SENDERS.configure(niceness=options.send_niceness)
    RECEIVERS.configure(niceness=options.receive_niceness)
    LOGGER.info("%s", describe(options))
    config = uvicorn.Config(
        application,
        http=protocol_for(options),
        loop=_loop(options),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(options.trusted_proxies),
        forwarded_allow_ips=list(options.trusted_proxies) or None,
        ssl_certfile=options.certificate or None,
        ssl_keyfile=options.private_key or None,
        limit_concurrency=options.limit_concurrency or None,
        backlog=options.backlog,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=options.graceful_s,
    )
    return RegistryServer(config, on_ready)


class RegistryServer(uvicorn.Server):
    """Uvicorn's server, which says when it is ready and where."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[Listening], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            address = self.servers[0].sockets[0].getsockname()
            scheme = "https" if self.config.is_ssl else "http"
            self._on_ready(Listening(scheme, address[0], address[1]))


def protocol_for(options: ServerOptions) -> type[RegistryProtocol]:
    """The protocol class with these options; uvicorn makes one instance a connection."""

    class ConfiguredProtocol(RegistryProtocol):
        fast_paths = options.fast_paths
        idle_s = options.idle_s

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
