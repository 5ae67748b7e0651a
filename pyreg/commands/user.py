"""`pyreg user`: who may log in to the registry of this machine.

Works on the registry's database, so it needs no password, and takes effect in a running server
at once.
"""

from __future__ import annotations

from pyreg.cli import BOOL, TEXT, Command, Flag
from pyreg.registry_settings import WHERE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.auth.passwords import Passwords
    from registry.metadata.base import Accounts

_STDIN = Flag("password-stdin", "", BOOL, "Read the password from standard input")
_ROLE = Flag(
    "role", "", TEXT, "admin, writer (pull, push, delete) or reader (pull)", default="writer"
)

ADD = Command(
    name="user add",
    usage="[OPTIONS] NAME",
    summary="Add a user of the registry",
    flags=(_STDIN, _ROLE, *WHERE),
    minimum=1,
    maximum=1,
)
PASSWD = Command(
    name="user passwd",
    usage="[OPTIONS] NAME",
    summary="Change a user's password; ends the user's logins",
    flags=(_STDIN, *WHERE),
    minimum=1,
    maximum=1,
)
LIST = Command(
    name="user list",
    usage="[OPTIONS]",
    summary="List the users of the registry",
    flags=WHERE,
)
REMOVE = Command(
    name="user remove",
    usage="[OPTIONS] NAME",
    summary="Remove a user; tokens end at once",
    flags=WHERE,
    minimum=1,
    maximum=1,
)


def add(options: Options, context: Context) -> int:
    """Add an account with a password from the terminal or standard input."""
    from registry.metadata.accounts import check_name, check_role

    name = check_name(options.arguments[0])
    role = check_role(options.text("role"))
    password = _new_password(options, context, name)

    async def work(accounts: Accounts, passwords: Passwords) -> None:
        await accounts.add(name, await passwords.hash(password), role)

    _on_accounts(options, context, work, begins_registry=True)
    context.console.out(f"Added {role} {name}")
    return 0


def passwd(options: Options, context: Context) -> int:
    """Give an account another password."""
    from registry.errors import AccountUnknown

    name = options.arguments[0]

    async def check(accounts: Accounts, passwords: Passwords) -> None:
        if await accounts.find(name) is None:
            raise AccountUnknown(name)

    _on_accounts(options, context, check)  # before somebody types a password for nobody
    password = _new_password(options, context, name)

    async def work(accounts: Accounts, passwords: Passwords) -> None:
        await accounts.set_password(name, await passwords.hash(password))

    _on_accounts(options, context, work)
    context.console.out(f"Changed the password of {name}")
    return 0


def list_(options: Options, context: Context) -> int:
    """Print the accounts as a table."""
    import time

    async def work(accounts: Accounts, passwords: Passwords) -> None:
        rows = [
            (
                account.name,
                account.role,
                "disabled" if account.disabled else "active",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(account.created_at)),
            )
            for account in await accounts.all()
        ]
        context.console.table(("NAME", "ROLE", "STATUS", "CREATED"), rows)

    _on_accounts(options, context, work)
    return 0


def remove(options: Options, context: Context) -> int:
    """Remove an account and everything it could log in with."""
    name = options.arguments[0]

    async def work(accounts: Accounts, passwords: Passwords) -> None:
        await accounts.remove(name)

    _on_accounts(options, context, work)
    context.console.out(f"Removed {name}")
    return 0


SUBCOMMANDS = {
    "add": (ADD, add),
    "passwd": (PASSWD, passwd),
    "list": (LIST, list_),
    "ls": (LIST, list_),
    "remove": (REMOVE, remove),
    "rm": (REMOVE, remove),
}


def _on_accounts(
    options: Options,
    context: Context,
    work: Callable[[Accounts, Passwords], Awaitable[None]],
    *,
    begins_registry: bool = False,
) -> None:
    """Run `work` on the accounts of the registry that the options and the environment name.

    A registry that does not exist yet is made if `begins_registry`, else it is an error.
    """
    import asyncio

    from pyreg.registry_settings import registry_settings
    from registry.app import open_database
    from registry.auth.passwords import Passwords
    from registry.first_start import make_directory, require_registry

    settings = registry_settings(options, context, {})
    if begins_registry:
        make_directory(settings)
    else:
        require_registry(settings)

    async def run() -> None:
        metadata = open_database(settings)
        passwords = Passwords()
        try:
            await work(metadata.accounts, passwords)
        finally:
            passwords.close()
            metadata.close()

    asyncio.run(run())


def _new_password(options: Options, context: Context, name: str) -> str:
    """A password from standard input or twice from the terminal; never from the command line,
    where every user of the machine could read it."""
    import sys

    from pyreg.cli import UsageError
    from registry.auth.passwords import MAX_CHARACTERS, check_password

    if options.flag("password-stdin"):
        return check_password(sys.stdin.readline(MAX_CHARACTERS + 2).rstrip("\r\n"))
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask for a password; use --password-stdin")
    try:
        password = check_password(context.console.ask_secret(f"Password for {name}: "))
        if context.console.ask_secret("Again: ") != password:
            raise UsageError("the two passwords differ")
    except EOFError:
        raise UsageError("no password was given") from None
    return password
