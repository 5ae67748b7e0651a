"""What an operator may choose: one flat table of settings with a default each.

A TOML file gives some, the command line or `PYREG_*` variables override them (only the `pyreg`
command reads those and passes them in). An unknown or wrong one is an error that names it.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from registry.errors import InvalidSettings

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings of one server.

    root: directory of pyreg's data; the registry keeps its own under `registry/`.
    host, port: where to listen; port 0 takes a free one.
    public_url: how clients reach us, e.g. "https://registry.example.com"; empty: taken from the
        request's Host, and from X-Forwarded-Proto and -Host of trusted proxies.
    trusted_proxies: addresses or networks whose X-Forwarded-* headers are believed.
    auth: whether callers need rights; off, everybody may do everything.
    anonymous_pull: whether callers without credentials may pull every repository.
    service: our name in tokens and challenges.
    token_lifetime_s: how long an access token lasts; at least 60, clients assume that much.
    delete_enabled: whether tags, manifests and blobs can be deleted over HTTP.
    allow_sparse_index: whether an index may name manifests that the repository does not hold.
    allow_sparse_image: whether an image may name layers that the repository does not hold, as
        partial mirrors push them. Layers pushed after their manifest are not kept by it.
    max_manifest_bytes: a larger manifest is refused with 413; at least 4 MiB, the spec's minimum.
    max_blob_bytes: a larger upload is refused with 413.
    upload_expiry_s: how long an upload may rest before it is forgotten.
    page_size: most tags or repositories in one page of a listing.
    access_log: whether each request is logged to standard error.
    graceful_s: how long running requests may finish after SIGTERM.
    """

    root: str = "/var/lib/pyreg"
    host: str = "localhost"
    port: int = 5000
    public_url: str = ""
    trusted_proxies: tuple[str, ...] = ()
    auth: bool = True
    anonymous_pull: bool = False
    service: str = "pyreg"
    token_lifetime_s: int = 900
    delete_enabled: bool = True
    allow_sparse_index: bool = False
    allow_sparse_image: bool = False
    max_manifest_bytes: int = 4 * MIB
    max_blob_bytes: int = 512 * GIB
    upload_expiry_s: int = 7 * 24 * 3600
    page_size: int = 1000
    access_log: bool = False
    graceful_s: int = 30

    def __post_init__(self) -> None:
        problems = [problem for check in _CHECKS if (problem := check(self))]
        if problems:
            raise InvalidSettings("; ".join(problems))

    @property
    def data(self) -> Path:
        """The registry's own directory."""
        return Path(self.root) / "registry"


def load_settings(
    file: Path | None,
    overrides: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """Settings from the [registry] table of a TOML file, if any, between defaults and overrides.

    Other tables and keys of the file belong to others. Overrides may be text (from the environment
    or the command line), which is converted.
    Raises: InvalidSettings for a missing or broken file, an unknown key or a wrong value.
    """
    given: dict[str, Any] = {}
    if file is not None:
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8")).get("registry", {})
        except OSError as error:
            raise InvalidSettings(
                f"cannot read the configuration {file}: {error.strerror}",
                hint="name an existing TOML file with --config",
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidSettings(f"{file} is not valid TOML: {error}") from error
        if not isinstance(given, dict):
            raise InvalidSettings(f"'registry' in {file} must be a table", hint="write [registry]")
    return parse_settings({**defaults, **given, **overrides}, where=str(file) if file else "")


def parse_settings(given: Mapping[str, Any], *, where: str = "") -> Settings:
    """Turn raw values into settings, telling every problem at once."""
    known = {field.name: field.default for field in fields(Settings)}
    place = f" in {where}" if where else ""
    problems = []
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            problems.append(f"unknown setting {key!r}{place}")
            continue
        try:
            values[key] = _convert(value, known[key])
        except ValueError as error:
            problems.append(f"setting {key!r}{place} {error}")
    if problems:
        raise InvalidSettings("; ".join(problems), hint="known: " + ", ".join(sorted(known)))
    return Settings(**values)


def _convert(value: Any, default: Any) -> Any:
    if isinstance(default, bool):
        if isinstance(value, str) and value.lower() in ("true", "1", "yes", "on"):
            return True
        if isinstance(value, str) and value.lower() in ("false", "0", "no", "off"):
            return False
        if isinstance(value, bool):
            return value
        raise ValueError(f"must be true or false, not {value!r}")
    if isinstance(default, int):
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise ValueError(f"must be a whole number, not {value!r}")
    if isinstance(default, tuple):
        items = value.replace(",", " ").split() if isinstance(value, str) else value
        if isinstance(items, list | tuple) and all(isinstance(item, str) for item in items):
            return tuple(items)
        raise ValueError(f"must be a list of texts, not {value!r}")
    if isinstance(value, str):
        return value
    raise ValueError(f"must be text, not {value!r}")


def _at_least(key: str, minimum: int, maximum: int) -> Any:
    def check(settings: Settings) -> str:
        value = getattr(settings, key)
        if minimum <= value <= maximum:
            return ""
        return f"setting {key!r} must be between {minimum} and {maximum}, not {value}"

    return check


def _public_url(settings: Settings) -> str:
    if not settings.public_url:
        return ""
    try:
        url = urlsplit(settings.public_url)
        port_is_valid = url.port is None or url.port > 0
    except ValueError:
        port_is_valid = False
    if port_is_valid and url.scheme in ("http", "https") and url.hostname and not url.query:
        return ""
    return f"setting 'public_url' must look like https://host[:port], not {settings.public_url!r}"


def _proxies(settings: Settings) -> str:
    for text in settings.trusted_proxies:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            return f"setting 'trusted_proxies' holds {text!r}, which is no address or network"
    return ""


def _service(settings: Settings) -> str:
    if re.fullmatch(r"[A-Za-z0-9._:/ -]{1,255}", settings.service):
        return ""
    return "setting 'service' must be plain text without quotes"


_CHECKS = (
    _at_least("port", 0, 65535),
    _at_least("token_lifetime_s", 60, 24 * 3600),
    _at_least("max_manifest_bytes", 4 * MIB, 64 * MIB),
    _at_least("max_blob_bytes", 1, 1 << 50),
    _at_least("upload_expiry_s", 60, 365 * 24 * 3600),
    _at_least("page_size", 1, 10_000),
    _at_least("graceful_s", 0, 3600),
    _public_url,
    _proxies,
    _service,
)
