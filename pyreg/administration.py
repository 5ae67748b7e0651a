"""What every command on the administration API shares: the registry it talks to, and its manners.

Without `--registry` it is the registry of this machine, if there is one: the same API in process,
over its database, with the rights of whoever may open that. Else it is the default registry, with
the login that is stored for it.
"""

from __future__ import annotations

from pyreg.cli import BOOL, TEXT, Flag, UsageError
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from typing import Any

    from client.admin import Admin, Reply
    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.settings import Settings

REGISTRY = Flag(
    "registry", "", TEXT, "Registry to ask over HTTP, with the stored login", metavar="HOST"
)
AT = (REGISTRY, *WHERE)
FORMAT = Flag("format", "", TEXT, "'table', 'table TEMPLATE', 'json', or a Go template")
QUIET = Flag("quiet", "q", BOOL, "Only show names")
YES = Flag("yes", "y", BOOL, "Do not ask")
STDIN = Flag("password-stdin", "", BOOL, "Read the password from standard input")

LISTED = (FORMAT, QUIET, *AT)


def administration(
    options: Options, context: Context, *, begins: bool = False
) -> AbstractContextManager[Admin]:
    """The API of the registry that the options name, for a `with`.

    begins: a registry that does not exist yet on this machine is made.
    """
    from contextlib import contextmanager

    @contextmanager
    def opened() -> Iterator[Admin]:
        from client.admin import Admin, HttpCarrier

        host = options.text("registry")
        settings = None if host else _settings_here(options, context, begins)
        if settings is None:
            from pyreg.remotes import Remotes

            with Remotes(context.environment) as remotes:
                name = (host or context.environment.default_registry).lower()
                admin = Admin(HttpCarrier(remotes.registry(name)))
                yield admin
        else:
            with LocalCarrier(settings) as carrier:
                admin = Admin(carrier)
                yield admin
        for warning in admin.warnings:
            context.console.warn(warning)

    return opened()


def _settings_here(options: Options, context: Context, begins: bool) -> Settings | None:
    """Of the registry of this machine; None if there is none and another one can be asked."""
    try:
        from pyreg.registry_settings import registry_settings
        from registry.first_start import DataUnusable, make_directory, require_registry
    except ModuleNotFoundError:
        return None  # the server's parts are not installed: this is a client
    settings = registry_settings(options, context, {})
    if begins:
        make_directory(settings)
        return settings
    try:
        require_registry(settings)
    except DataUnusable as error:
        from pyreg.environment import DEFAULT_REGISTRY

        asked = options.given("root") or "PYREG_ROOT" in context.environment.variables
        default = context.environment.default_registry
        if asked or default == DEFAULT_REGISTRY:
            error.hint = "name another directory with --root, or a registry with --registry HOST"
            raise
        return None
    return settings


class LocalCarrier:
    """Calls the server's own code, in an event loop of its own. A context manager."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.where = str(settings.data)

    def __enter__(self) -> LocalCarrier:
        import asyncio

        from registry.api.v1.local import open_local_api

        self._runner: asyncio.Runner = asyncio.Runner()
        try:
            self._opened = open_local_api(self._settings)
            self._app = self._runner.run(self._opened.__aenter__())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._runner.run(self._opened.__aexit__(None, None, None))
        finally:
            self._runner.close()

    def send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes | None
    ) -> Reply:
        return self._runner.run(self._send(method, target, headers, body or b""))

    async def _send(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        from urllib.parse import unquote

        from client.admin import Reply

        path, _, query = target.partition("?")
        fields = {**headers, **({"Content-Length": str(len(body))} if body else {})}
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode("ascii"),
            "query_string": query.encode("ascii"),
            "headers": [
                (name.lower().encode("ascii"), text.encode("latin-1"))
                for name, text in fields.items()
            ],
        }
        status, answered, parts = 0, {}, []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, text in message["headers"]:
                    answered[name.decode("latin-1")] = text.decode("latin-1")
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return Reply(status, answered, b"".join(parts))


def account_of(options: Options, admin: Admin) -> str:
    """Whom `--user` names, else whoever is logged in. Raises: UsageError where nobody is."""
    named = options.text("user")
    if named:
        return named
    me = admin.get("/me")
    if not me["name"]:
        raise UsageError("on the registry's own machine nobody is logged in; use --user NAME")
    return str(me["name"])


def show_list(
    options: Options,
    context: Context,
    rows: Sequence[Mapping[str, Any]],
    headings: Mapping[str, str],
    *,
    columns: Sequence[str] = (),
    name: str = "Name",
) -> None:
    """Print rows as `docker ... ls` does: a table, `--quiet` names, or what `--format` says."""
    from pyreg.listing import show

    if options.flag("quiet"):
        for row in rows:
            context.console.out(str(row[name]))
        return
    show(
        context.console,
        rows,
        columns=columns or tuple(headings),
        headings=headings,
        template=options.text("format"),
    )


def show_document(options: Options, context: Context, document: Any) -> None:
    """Print what `inspect` gives: JSON with two blanks, or what `--format` says."""
    import json

    template = options.text("format")
    if template and template != "json":
        from pyreg.template import Template

        for each in document if isinstance(document, list) else [document]:
            context.console.out(Template(template).render(each))
        return
    context.console.out(json.dumps(document, indent=2, ensure_ascii=False))


def confirmed(options: Options, context: Context, question: str) -> bool:
    """Whether the person says yes, or said `--yes`. Raises: UsageError without a terminal."""
    import sys

    if options.flag("yes"):
        return True
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask; use --yes")
    return context.console.ask(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def when(seconds: int | None) -> str:
    """A time in local words; a dash for none."""
    import time

    if seconds is None:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def new_password(options: Options, context: Context, name: str) -> str:
    """A password from standard input or twice from the terminal; never from the command line,
    where every user of the machine could read it."""
    import sys

    if options.flag("password-stdin"):
        return _text(sys.stdin.readline(MAX_PASSWORD + 2).rstrip("\r\n"))
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a password; use --password-stdin")
    try:
        password = context.console.ask_secret(f"Password for {name}: ")
        if context.console.ask_secret("Again: ") != password:
            raise UsageError("the two passwords differ")
    except EOFError:
        raise UsageError("no password was given") from None
    return _text(password)


def _text(password: str) -> str:
    try:
        password.encode()
    except UnicodeEncodeError:
        raise UsageError("a password must be text in UTF-8") from None
    return password


MAX_PASSWORD = 1024


def read_text(name: str, limit: int = 1 << 20) -> str:
    """A file that a command was given by name; `-` is standard input. `limit` in characters.

    Raises: UsageError.
    """
    import sys

    try:
        if name == "-":
            text = sys.stdin.read(limit + 1)
        else:
            with open(name, encoding="utf-8") as file:
                text = file.read(limit + 1)
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not text in UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
    if len(text) > limit:
        raise UsageError(f"{name} is longer than it may be ({limit} characters)")
    return text
