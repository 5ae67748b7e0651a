"""What the process was given from outside: the one place that reads environment variables.

Everything below `pyreg` gets these as arguments. Directories follow the FHS for root and the XDG
base directory specification for everybody else; `PYREG_ROOT` (or `--root`) puts all data elsewhere.
"""

from __future__ import annotations

import os

from ocispec.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DEFAULT_REGISTRY = "localhost:5000"


class ConfigurationError(Exception):
    """The configuration file or a variable cannot be used."""

    exit_status = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@value
class Environment:
    """Where things are and what the user configured."""

    root: str  # data: registry, images, layers, containers, volumes
    run: str  # what does not survive a reboot: locks, sockets
    config_file: str  # may not exist
    default_registry: str  # where a reference without a host goes
    insecure_registries: tuple[str, ...]  # hosts that may be reached without TLS
    ca_file: str  # certificates to trust beside the system's, PEM; or empty
    trusted_realms: tuple[str, ...]  # hosts that may ask for any registry's credentials
    foreign_layers: bool  # fetch layers that a manifest says are elsewhere
    home: str
    docker_config: str  # directory of Docker's config.json
    docker_auth_config: str  # content of DOCKER_AUTH_CONFIG, or empty
    auth_files: tuple[str, ...]  # further credential files (podman's), in order
    proxies: Mapping[str, str]  # http, https, all, no → value
    variables: Mapping[str, str]  # for `run -e NAME`, which takes the caller's value
    debug: bool


def read(
    variables: Mapping[str, str], *, root: str = "", config_file: str = "", lenient: bool = False
) -> Environment:
    """Read the environment once, with `--root` and `--config` of the command line on top.

    Raises: ConfigurationError if the configuration file is broken. If `lenient`, such a file counts
    as empty: for commands that tell what is wrong with it.
    """
    is_root = os.geteuid() == 0
    home = variables.get("HOME") or ("/root" if is_root else "/")
    root = root or variables.get("PYREG_ROOT", "")
    if root:
        root = os.path.abspath(root)
        run = os.path.join(root, "run")
    elif is_root:
        root, run = "/var/lib/pyreg", "/run/pyreg"
    else:
        data = variables.get("XDG_DATA_HOME") or os.path.join(home, ".local/share")
        root = os.path.join(data, "pyreg")
        runtime = variables.get("XDG_RUNTIME_DIR", "")
        run = os.path.join(runtime or root, "pyreg" if runtime else "run")
    config_file = config_file or variables.get("PYREG_CONFIG", "")
    if config_file and not os.path.exists(config_file):
        raise ConfigurationError(f"the configuration file {config_file} does not exist")
    if not config_file:
        config_home = variables.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        config_file = (
            "/etc/pyreg/pyreg.toml" if is_root else os.path.join(config_home, "pyreg/pyreg.toml")
        )
    try:
        settings = _settings(config_file)
    except ConfigurationError:
        if not lenient:
            raise
        settings = {}
    auth_files = [variables.get("REGISTRY_AUTH_FILE", "")]
    if variables.get("XDG_RUNTIME_DIR"):
        auth_files.append(os.path.join(variables["XDG_RUNTIME_DIR"], "containers/auth.json"))
    auth_files.append(os.path.join(home, ".config/containers/auth.json"))
    proxies = {
        name: found
        for name in ("http", "https", "all", "no")
        if (found := variables.get(f"{name}_proxy") or variables.get(f"{name.upper()}_PROXY"))
    }
    return Environment(
        root=root,
        run=run,
        config_file=config_file,
        default_registry=variables.get("PYREG_DEFAULT_REGISTRY")
        or settings.get("default_registry", DEFAULT_REGISTRY),
        insecure_registries=tuple(settings.get("insecure_registries", ())),
        ca_file=settings.get("ca_file", ""),
        trusted_realms=tuple(settings.get("trusted_realms", ())),
        foreign_layers=settings.get("foreign_layers", False),
        home=home,
        docker_config=variables.get("DOCKER_CONFIG") or os.path.join(home, ".docker"),
        docker_auth_config=variables.get("DOCKER_AUTH_CONFIG", ""),
        auth_files=tuple(name for name in auth_files if name),
        proxies=proxies,
        variables=variables,
        debug=bool(variables.get("PYREG_DEBUG")),
    )


KEYS = {
    "default_registry": str,
    "insecure_registries": list,
    "ca_file": str,
    "trusted_realms": list,
    "foreign_layers": bool,
}
DESCRIPTIONS = {
    "default_registry": "Where a name without a host goes.",
    "insecure_registries": "Hosts that may be reached without TLS; loopback always may.",
    "ca_file": "Certificate authorities to trust beside the system's, PEM.",
    "trusted_realms": "Token servers on other hosts that get a registry's credentials.",
    "foreign_layers": "Fetch layers that a manifest says are elsewhere.",
}
KINDS = {str: "text in quotes", list: "a list of texts", bool: "true or false"}


def _settings(path: str) -> dict[str, Any]:
    """The client's keys of the configuration file; the `[registry]` table is the server's."""
    try:
        with open(path, "rb") as file:
            raw = file.read(1 << 20)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    import tomllib  # only who has a file pays for the parser

    try:
        settings = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    settings.pop("registry", None)
    for _, problem in key_problems(settings):
        raise ConfigurationError(
            f"{path}: {problem}", hint=f"known keys: {', '.join(KEYS)}, [registry]"
        )
    return settings


def key_problems(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the client's keys: (key, message) for each."""
    found = []
    for key, given in settings.items():
        kind = KEYS.get(key)
        if kind is None:
            found.append((key, f"unknown key '{key}'"))
            continue
        fits = isinstance(given, kind)
        if not fits or (kind is list and not all(isinstance(item, str) for item in given)):
            found.append((key, f"'{key}' must be {KINDS[kind]}"))
    return found
