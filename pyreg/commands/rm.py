"""pyreg rm: remove containers that do not run, or all the same with --force."""

from __future__ import annotations

import os

from pyreg.cli import BOOL, Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyreg.__main__ import Context
    from pyreg.cli import Options

COMMAND = Command(
    name="rm",
    usage="[OPTIONS] CONTAINER [CONTAINER...]",
    summary="Remove one or more containers",
    flags=(
        Flag("force", "f", BOOL, "Force the removal of a running container (uses SIGKILL)"),
        Flag("volumes", "v", BOOL, "Remove anonymous volumes associated with the container"),
    ),
    minimum=1,
    maximum=None,
)


def run(options: Options, context: Context) -> int:
    from runtime.engine import Engine
    from runtime.errors import ContainerUnknown, EngineError
    from runtime.paths import Paths

    env = context.environment
    engine = Engine(Paths(env.root, env.run), rootless=os.geteuid() != 0)
    engine.containers.collect()
    status = 0
    for wanted in options.arguments:
        try:
            engine.containers.remove(
                wanted, force=options.flag("force"), volumes=options.flag("volumes")
            )
        except EngineError as error:
            context.console.error(str(error), error.hint)
            if not (isinstance(error, ContainerUnknown) and options.flag("force")):
                status = 1
            continue
        context.console.out(wanted)
    return status
