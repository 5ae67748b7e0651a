"""`pyreg serve`: run the registry server."""

from __future__ import annotations

from pyreg.cli import BOOL, NUMBER, TEXT, Command, Flag
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.server.run import Listening

COMMAND = Command(
    name="serve",
    usage="[OPTIONS]",
    summary="Run the registry server",
    flags=(
        *WHERE,
        Flag("host", "", TEXT, "Address to listen on (default localhost)"),
        Flag("port", "", NUMBER, "Port to listen on (default 5000)"),
        Flag("workers", "", NUMBER, "Processes that serve (default 1)"),
        Flag(
            "tls-certificate", "", TEXT, "Certificate and chain, PEM; serves https", metavar="FILE"
        ),
        Flag("tls-key", "", TEXT, "The certificate's key, PEM", metavar="FILE"),
        Flag("access-log", "", BOOL, "Log every request to standard error"),
        Flag(
            "no-upgrade", "", BOOL, "Refuse to start on an older database instead of upgrading it"
        ),
    ),
    details=(
        "The first start creates the database and a user `admin`, whose random password is shown\n"
        "once. Every setting of the [registry] table can also be given as PYREG_<NAME>; see\n"
        "`pyreg config schema`.\n\n"
        "SIGTERM ends it when running requests are done, a second one at once; SIGHUP reads the\n"
        "certificate again."
    ),
)


def run(options: Options, context: Context) -> int:
    """Serve until SIGTERM or SIGINT."""
    import os
    from pathlib import Path

    from pyreg.registry_settings import registry_settings
    from registry.launch import Surroundings, launch
    from registry.server.notify import Notifier, inherited_sockets

    console, variables = context.console, context.environment.variables
    settings = registry_settings(options, context, _flags(options))
    _set_up_logging()
    _allow_many_connections()
    _return_large_memory()

    def first_admin(password: str) -> None:
        console.note(f"Created the user 'admin' with the password  {password}")
        console.note("It is not shown again; change it with: pyreg user passwd admin")

    def ready(listening: Listening, lines: list[str]) -> None:
        host = "localhost" if listening.host in ("127.0.0.1", "::1") else listening.host
        shown = f"[{host}]" if ":" in host else host
        for line in lines:
            console.note(line)
        console.out(f"pyreg registry ready at {listening.scheme}://{shown}:{listening.port}")
        console.stdout.flush()

    surroundings = Surroundings(
        run_root=Path(os.path.join(context.environment.run, "registry")),
        sockets=inherited_sockets(variables.get("LISTEN_FDS", ""), variables.get("LISTEN_PID", "")),
        notifier=Notifier(variables.get("NOTIFY_SOCKET", "")),
    )
    return launch(settings, surroundings, on_first_admin=first_admin, on_ready=ready)


def _flags(options: Options) -> dict[str, object]:
    """The settings that were given on the command line."""
    flags: dict[str, object] = {}
    for name in ("host", "tls-certificate", "tls-key"):
        if options.given(name):
            flags[name.replace("-", "_")] = options.text(name)
    for name in ("port", "workers"):
        if options.given(name):
            flags[name] = options.number(name)
    if options.given("access-log"):
        flags["access_log"] = "text" if options.flag("access-log") else "off"
    if options.given("no-upgrade"):
        flags["upgrade"] = not options.flag("no-upgrade")
    return flags


def _set_up_logging() -> None:
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # A wrong byte from a client is answered to the client; it is no news for the operator.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


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
