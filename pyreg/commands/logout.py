"""pyreg logout: forget a registry's credential, and end the session that it belongs to."""

from __future__ import annotations

from pyreg.cli import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(name="logout", usage="[SERVER]", summary="Log out from a registry", maximum=1)


def run(options: Options, context: Context) -> int:
    from client.login import logout
    from pyreg.remotes import Remotes

    env = context.environment
    server = options.arguments[0] if options.arguments else env.default_registry
    with Remotes(env) as remotes:
        done = logout(server, remotes.transport, remotes.keychain)
    if done.was_in:
        context.console.out(f"Removing login credentials for {server}")
    else:
        context.console.out(f"Not logged in to {server}")
    if done.problem:
        context.console.warn(
            f"{server} was not told, and accepts the login until it expires: {done.problem}"
        )
    return 0
