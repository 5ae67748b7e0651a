"""From settings to a server: sockets, database, processes, in an order where nothing is left half.

certificate → sockets → database (in a child process) → workers → ready
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGTERM

from registry.app import create_app
from registry.first_start import DataUnusable, prepare_apart
from registry.metadata.location import Location
from registry.server.notify import Notifier
from registry.server.run import Listening, ServerOptions, describe, listen, serve
from registry.server.supervisor import Supervisor
from registry.server.tls import Certificates
from registry.settings import Settings
from registry.worker import Worker

NOBODY = Notifier("")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process was given beside its settings."""

    #: For what does not outlive a server; made if it does not exist.
    run_root: Path
    #: Sockets that listen already, in place of host and port.
    sockets: Sequence[socket.socket] = ()
    notifier: Notifier = NOBODY


def launch(
    settings: Settings,
    surroundings: Surroundings,
    *,
    on_first_admin: Callable[[str], None],
    on_ready: Callable[[Listening, list[str]], None],
) -> int:
    """Serve until a signal says stop; the exit status.

    `on_first_admin` gets the password of a new `admin`; `on_ready` where we listen and a few lines
    about the server. To be called while there is one thread.

    Raises: CertificateUnusable; CannotListen; StartFailed; DataUnusable.
    """
    options = server_options(settings)
    if options.certificate:
        Certificates(options.certificate, options.private_key, options.client_ca)
    sockets = list(surroundings.sockets) or listen(options)
    notifier = surroundings.notifier
    try:
        where = _where(options, sockets)
        password = prepare_apart(settings)
        if password:
            on_first_admin(password)

        def ready() -> None:
            on_ready(where, describe_server(settings, options))
            notifier.ready()

        with run_directory(surroundings.run_root) as directory:
            alone = Worker(run_directory=directory)
            if settings.workers == 1:
                return _serve(
                    settings, options, sockets, alone, ready, on_stopping=notifier.stopping
                )

            def work(number: int, worker_ready: Callable[[], None]) -> int:
                worker = replace(alone, number=number, count=settings.workers)
                # SIGINT is the supervisor's.
                mine = replace(options, stop_signals=(SIGTERM,))
                return _serve(settings, mine, sockets, worker, worker_ready)

            def reloaded() -> None:
                notifier.reloading()
                notifier.ready()

            return Supervisor(
                settings.workers,
                work,
                sockets,
                graceful_s=settings.graceful_s,
                on_ready=ready,
                on_stopping=notifier.stopping,
                on_reload=reloaded,
            ).run()
    finally:
        for sock in sockets:
            sock.close()


def _serve(
    settings: Settings,
    options: ServerOptions,
    sockets: list[socket.socket],
    worker: Worker,
    ready: Callable[[], None],
    *,
    on_stopping: Callable[[], None] = lambda: None,
) -> int:
    application = create_app(settings, worker)

    def stopping() -> None:
        application.drain()
        on_stopping()

    try:
        serve(
            application,
            options,
            lambda _: ready(),
            sockets=sockets,
            on_stopping=stopping,
        )
    except SystemExit as stopped:  # uvicorn's way to say that the start failed
        if application.failure is not None:
            raise application.failure from None
        return 1 if stopped.code else 0
    return 0


def server_options(settings: Settings) -> ServerOptions:
    return ServerOptions(
        host=settings.host,
        port=settings.port,
        certificate=settings.tls_certificate,
        private_key=settings.tls_key,
        client_ca=settings.tls_client_ca,
        max_connections=settings.max_connections,
        graceful_s=settings.graceful_s,
    )


def describe_server(settings: Settings, options: ServerOptions) -> list[str]:
    """What an operator wants to see once at the start, a line each, without secrets."""
    tls = "off"
    if options.certificate:
        tls = f"on, {options.certificate}"
        if options.client_ca:
            tls += f", clients need a certificate of {options.client_ca}"
    database = str(settings.data / "metadata.db")
    if settings.database:
        database = str(Location.parse(settings.database))
    blobs = str(settings.data)
    if settings.storage == "s3":
        blobs = f"s3://{settings.s3_bucket}/{settings.s3_prefix}"
        if settings.s3_endpoint:
            blobs += f" at {settings.s3_endpoint}"
    return [
        f"blobs: {blobs}",
        f"database: {database}",
        f"TLS: {tls}",
        f"workers: {settings.workers}",
        describe(options),
    ]


def _where(options: ServerOptions, sockets: Sequence[socket.socket]) -> Listening:
    address = sockets[0].getsockname()
    return Listening("https" if options.certificate else "http", address[0], address[1])


@contextlib.contextmanager
def run_directory(root: Path) -> Iterator[Path]:
    """A new directory that the processes of this server share; what a killed one left goes."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(root)
        path = root / f"serve-{os.getpid()}"
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        # Held by this process and those it forks: free when the last of them is gone.
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as error:
        raise DataUnusable(
            f"cannot make a directory in {root}: {error.strerror}",
            hint="choose another place for all data with --root",
        ) from error
    owner = os.getpid()
    try:
        yield path
    finally:
        if os.getpid() == owner:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _remove_abandoned(root: Path) -> None:
    for path in root.glob("serve-*"):
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # a server that runs
        finally:
            os.close(lock)
