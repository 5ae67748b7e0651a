"""`pyreg serve`: run the registry server."""

from __future__ import annotations

from pyreg.cli import BOOL, NUMBER, TEXT, Command, Flag
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="serve",
    usage="[OPTIONS]",
    summary="Run the registry server",
    flags=(
        *WHERE,
        Flag("host", "", TEXT, "Address to listen on (default localhost)"),
        Flag("port", "", NUMBER, "Port to listen on (default 5000)"),
        Flag("access-log", "", BOOL, "Log every request to standard error"),
    ),
    details=(
        "The first start creates the database and a user `admin`, whose random password is shown\n"
        "once. Every setting of the [registry] table can also be given as PYREG_<NAME>."
    ),
)


def run(options: Options, context: Context) -> int:
    """Serve until SIGTERM or SIGINT."""
    import asyncio
    import logging
    import signal

    from pyreg.registry_settings import registry_settings
    from registry.app import create_app
    from registry.auth.login import FIRST_ADMIN
    from registry.first_start import prepare, upgrade_apart
    from registry.server.run import Listening, ServerOptions, serve

    console = context.console
    flags: dict[str, object] = {}
    if options.given("host"):
        flags["host"] = options.text("host")
    if options.given("port"):
        flags["port"] = options.number("port")
    if options.given("access-log"):
        flags["access_log"] = "text" if options.flag("access-log") else "off"
    settings = registry_settings(options, context, flags)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # A wrong byte from a client is answered to the client; it is no news for the operator.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    _allow_many_connections()
    _return_large_memory()
    upgrade_apart(settings)
    password = asyncio.run(prepare(settings))
    if password:
        console.note(f"Created the user '{FIRST_ADMIN}' with the password  {password}")
        console.note("It is not shown again; change it with: pyreg user passwd admin")

    def announce(listening: Listening) -> None:
        host = "localhost" if listening.host in ("127.0.0.1", "::1") else listening.host
        shown = f"[{host}]" if ":" in host else host
        console.out(f"pyreg registry ready at {listening.scheme}://{shown}:{listening.port}")
        console.stdout.flush()

    # The server stops gracefully and then raises the signal anew; that ends nothing but the wait.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        serve(
            create_app(settings),
            ServerOptions(host=settings.host, port=settings.port, graceful_s=settings.graceful_s),
            announce,
        )
    except SystemExit as stopped:  # uvicorn's way to say that the start failed; the log says why
        return 1 if stopped.code else 0
    return 0


# A download is a connection, a duplicate of it and a file.
_DESCRIPTORS = 65536


def _allow_many_connections() -> None:
    """Take the descriptors we may have: the usual 1024 are for programs that use select()."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


_M_MMAP_THRESHOLD = -3
_LARGE = 256 << 10


def _return_large_memory() -> None:
    """Give large pieces of memory back to the system as soon as they are free.

    A password's hash takes 19 MiB for a moment. glibc learns from the first that such sizes are
    usual and keeps them in its heaps from then on, in one for each thread: 40 MiB for nothing.
    """
    import ctypes

    try:
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
    except AttributeError:
        pass  # another C library, which does not do this
