"""pyreg logout: forget a registry's credential."""

from __future__ import annotations

from pyreg.cli import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(name="logout", usage="[SERVER]", summary="Log out from a registry", maximum=1)


def run(options: Options, context: Context) -> int:
    from client.credentials import FileKeychain
    from pyreg.remotes import client_options

    env = context.environment
    server = options.arguments[0] if options.arguments else env.default_registry
    if FileKeychain(client_options(env)).erase(server):
        context.console.out(f"Removing login credentials for {server}")
    else:
        context.console.out(f"Not logged in to {server}")
    return 0
