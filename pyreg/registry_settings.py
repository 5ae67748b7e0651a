"""Where `pyreg serve` and `pyreg user` find the registry: file, variables and flags."""

from __future__ import annotations

from pyreg.cli import TEXT, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyreg.__main__ import Context
    from pyreg.cli import Options
    from registry.configuration import Layer
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
    from registry.configuration import settings_of

    return settings_of(registry_layers(options, context, flags))


def registry_layers(
    options: Options, context: Context, flags: Mapping[str, object], *, file: str = ""
) -> list[Layer]:
    """The same before it is put together. `file` is read in place of the usual one.

    A secret may be in a file whose name is in PYREG_<NAME>_FILE, as containers get them.
    Raises: InvalidSettings if the file cannot be read.
    """
    from dataclasses import fields
    from os.path import isfile
    from pathlib import Path

    from pyreg.environment import read
    from registry.configuration import Layer, read_layer
    from registry.settings import SECRETS, Settings

    environment = context.environment
    usual_file = environment.config_file if isfile(environment.config_file) else ""
    usual = read(environment.variables, config_file=usual_file, lenient=True).root
    layers = [Layer({"root": usual})]
    file = file or options.text("config")
    if file or isfile(environment.config_file):
        layers.append(read_layer(Path(file or environment.config_file)))
    given: dict[str, object] = {}
    places: dict[str, str] = {}
    if environment.root != usual or "PYREG_ROOT" in environment.variables:
        given["root"] = environment.root
        places["root"] = "PYREG_ROOT" if environment.root == usual else "--root"
    names = [field.name for field in fields(Settings) if field.name != "root"]
    for name in (*names, *(f"{secret}_file" for secret in sorted(SECRETS))):
        variable = f"PYREG_{name.upper()}"
        if variable in environment.variables:
            given[name] = environment.variables[variable]
            places[name] = variable
    layers.append(Layer(given, places=places))
    typed = dict(flags)
    if options.given("root"):
        typed["root"] = options.text("root")
    flag_places = {name: f"--{name.replace('_', '-')}" for name in typed}
    return [*layers, Layer(typed, places=flag_places)]
