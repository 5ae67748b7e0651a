"""pyreg login: prove who you are to a registry, and keep the credential."""

from __future__ import annotations

from pyreg.cli import BOOL, Command, Flag, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from client.credentials import Credential
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="login",
    usage="[OPTIONS] [SERVER]",
    summary="Authenticate to a registry",
    flags=(
        Flag("device", "", BOOL, "Confirm the login in a browser, on any device"),
        Flag("password", "p", help="Password or token (visible to others; prefer stdin)"),
        Flag("password-stdin", "", BOOL, "Take the password from stdin"),
        Flag("username", "u", help="Username"),
    ),
    maximum=1,
    details="Without SERVER the default registry is meant. Docker's config.json keeps the result.",
)
MAX_PASSWORD = 64 << 10


def run(options: Options, context: Context) -> int:
    from client.login import login
    from ocispec.distribution.reference import check_registry
    from pyreg.remotes import Remotes

    console, env = context.console, context.environment
    server = options.arguments[0] if options.arguments else env.default_registry
    server = _registry(server)
    check_registry(server)
    if options.flag("device"):
        return _by_device(options, context, server)
    with Remotes(env) as remotes:
        credential = _credential(options, context, server)
        outcome = login(server, credential, remotes.transport, remotes.keychain)
        if not outcome.is_token and not outcome.where.startswith("the credential helper"):
            console.warn(
                f"your password is stored unencrypted in {outcome.where}; "
                "a credential helper (credsStore) would keep it in a keyring"
            )
    console.out("Login Succeeded")
    return 0


def _by_device(options: Options, context: Context, server: str) -> int:
    from client.device import DeviceCode, login_by_device
    from pyreg.remotes import Remotes

    if options.text("username") or options.text("password") or options.flag("password-stdin"):
        raise UsageError("--device takes neither a username nor a password")

    def tell(told: DeviceCode) -> None:
        context.console.note(f"Open {told.page} and confirm the code {told.code}")

    with Remotes(context.environment) as remotes:
        login_by_device(server, remotes.transport, remotes.keychain, tell)
    context.console.out("Login Succeeded")
    return 0


def _registry(text: str) -> str:
    """`https://host/v1/`, as some write it, means `host`."""
    bare = text.partition("://")[2] or text
    host = bare.partition("/")[0].lower()
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host


def _credential(options: Options, context: Context, server: str) -> Credential:
    import sys

    from client.credentials import Credential

    console = context.console
    username, password = options.text("username"), options.text("password")
    if options.flag("password-stdin"):
        if password:
            raise UsageError("--password and --password-stdin are mutually exclusive")
        if not username:
            raise UsageError("Must provide --username with --password-stdin")
        password = sys.stdin.read(MAX_PASSWORD).rstrip("\r\n")
    elif password:
        console.warn("Using --password via the CLI is insecure. Use --password-stdin.")
    elif not sys.stdin.isatty():
        raise UsageError("Cannot perform an interactive login from a non TTY device")
    if not username:
        username = console.ask(f"Username for {server}: ").strip()
    if not username:
        raise UsageError("a username is required")
    if not password and not options.flag("password-stdin"):
        try:
            password = console.ask_secret("Password: ")
        except EOFError:
            pass
    if not password:
        raise UsageError("a password is required")
    if ":" in username or not (username + password).isprintable():
        raise UsageError("the username must not contain ':', nor either of them control characters")
    return Credential(username=username, password=password)
