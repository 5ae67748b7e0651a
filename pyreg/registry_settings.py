"""Where `pyreg serve` and `pyreg user` find the registry: file, variables and flags."""

from __future__ import annotations

from pyreg.cli import TEXT, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.settings import Settings

# The flags that both commands have, beside the global ones of the same names.
WHERE = (
    Flag("config", "", TEXT, "Configuration file; its [registry] table counts", metavar="FILE"),
    Flag("root", "", TEXT, "Directory of all data", metavar="DIR"),
)


def registry_settings(options: Options, context: Context, flags: Mapping[str, object]) -> Settings:
    """The [registry] table of the file, then PYREG_<NAME> variables, then flags.

    The directory of all data is the one every command uses, unless the file names another and
    nobody asked for one.

    Raises: InvalidSettings of the registry.
    """
    from dataclasses import fields
    from os.path import isfile
    from pathlib import Path

    from pyreg.environment import read
    from registry.settings import Settings, load_settings

    environment = context.environment
    overrides: dict[str, object] = {}
    usual = read(environment.variables).root
    if environment.root != usual or "PYREG_ROOT" in environment.variables:
        overrides["root"] = environment.root
    for field in fields(Settings):
        given = environment.variables.get(f"PYREG_{field.name.upper()}")
        if given is not None and field.name != "root":
            overrides[field.name] = given
    if options.given("root"):
        overrides["root"] = options.text("root")
    file = options.text("config")
    if not file and isfile(environment.config_file):
        file = environment.config_file
    return load_settings(
        Path(file) if file else None, {**overrides, **flags}, defaults={"root": usual}
    )
