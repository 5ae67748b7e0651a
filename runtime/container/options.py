"""The options of `run` as values, and the parsers of those that have a syntax of their own."""

from __future__ import annotations

import os

from ocispec.runtime.config import Mount, Rlimit
from ocispec.value import value
from runtime.cgroups.limits import Limits
from runtime.errors import EngineError
from runtime.linux.rlimits import ResourceLimit

NETWORKS = ("none", "host")
SMALLEST_MEMORY = 6 << 20  # docker's: with less, not even our own last step fits

PROPAGATION = frozenset(("private", "rprivate", "slave", "rslave", "shared", "rshared"))
_VOLUME_WORDS = PROPAGATION | frozenset(("ro", "rw", "z", "Z", "nocopy", "cached", "delegated"))
_VOLUME_WORDS |= frozenset(("consistent", "bind", "rbind"))


@value
class VolumeRequest:
    """One `-v`: a bind of a host path, or a named or anonymous volume."""

    destination: str
    source: str = ""  # absolute host path, a volume's name, or empty for an anonymous volume
    read_only: bool = False
    copy: bool = True  # fill an empty volume with what the image has there
    propagation: str = "rprivate"
    recursive: bool = True

    @property
    def is_bind(self) -> bool:
        return self.source.startswith("/")


@value
class RunOptions:
    """What the user asked for, beside the image. Empty means: as the image or Docker has it."""

    command: tuple[str, ...] = ()
    entrypoint: str | None = None  # "" removes the image's
    env: tuple[str, ...] = ()
    user: str = ""
    working_directory: str = ""
    hostname: str = ""
    name: str = ""
    network: str = "none"
    volumes: tuple[VolumeRequest, ...] = ()
    tmpfs: tuple[Mount, ...] = ()
    read_only: bool = False
    privileged: bool = False
    no_new_privileges: bool = False
    seccomp_unconfined: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    ulimits: tuple[Rlimit, ...] = ()
    shm_bytes: int = 0
    extra_hosts: tuple[tuple[str, str], ...] = ()  # name, address
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    limits: Limits = Limits()
    tty: bool = False
    interactive: bool = False
    detach: bool = False
    auto_remove: bool = False

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise EngineError(
                f"network {self.network!r} not found", hint="use --network none or --network host"
            )
        if self.hostname and not _is_hostname(self.hostname):
            raise EngineError(f"invalid hostname format: {self.hostname!r}")


def _is_hostname(text: str) -> bool:
    labels = text.split(".")
    return len(text) <= 64 and all(
        label and label.replace("-", "a").replace("_", "a").isalnum() and label.isascii()
        for label in labels
    )


def parse_volume(text: str, *, directory: str) -> VolumeRequest:
    """Read `[SOURCE:]DESTINATION[:OPTIONS]`; `directory` is where a relative `./x` begins.

    Raises: EngineError when the form or an option is not known.
    """
    parts = text.split(":")
    if not text or len(parts) > 3 or not all(parts):
        raise EngineError(
            f"invalid volume specification: {text!r}", hint="write -v SOURCE:/PATH[:ro]"
        )
    words: list[str] = parts[2].split(",") if len(parts) == 3 else []
    source = "" if len(parts) == 1 else parts[0]
    destination = parts[0] if len(parts) == 1 else parts[1]
    for word in words:
        if word not in _VOLUME_WORDS:
            raise EngineError(f"invalid volume option {word!r} in {text!r}")
    if "ro" in words and "rw" in words:
        raise EngineError(f"invalid volume {text!r}: it is both ro and rw")
    if not destination.startswith("/"):
        raise EngineError(
            f"invalid volume specification: {text!r}: {destination!r} is not absolute"
        )
    if source.startswith((".", "~")) or ("/" in source and not source.startswith("/")):
        if not source.startswith("."):
            raise EngineError(
                f"{source!r} includes invalid characters for a local volume name",
                hint="write ./name or an absolute path for a directory of the host",
            )
        source = os.path.normpath(os.path.join(directory, source))
    elif source and not source.startswith("/"):
        check_volume_name(source)
    chosen = [word for word in words if word in PROPAGATION]
    return VolumeRequest(
        destination=destination,
        source=os.path.normpath(source) if source.startswith("/") else source,
        read_only="ro" in words,
        copy="nocopy" not in words,
        propagation=chosen[0] if chosen else "rprivate",
        recursive="bind" not in words,
    )


def check_volume_name(name: str) -> None:
    plain = name.replace("_", "a").replace(".", "a").replace("-", "a")
    if len(name) < 2 or not name[0].isalnum() or not plain.isalnum() or not name.isascii():
        raise EngineError(
            f"{name!r} includes invalid characters for a local volume name",
            hint="use letters, digits, '_', '.' and '-', at least two",
        )


def is_signal(text: str) -> bool:
    """A signal's number, or its name with or without SIG."""
    if text.isascii() and text.isdigit():
        return len(text) < 3 and 0 < int(text) < 65
    import signal

    return "SIG" + text.upper().removeprefix("SIG") in signal.Signals.__members__


_TMPFS_FLAGS = frozenset(
    ("ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev", "noatime", "sync")
)
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"))


def parse_tmpfs(text: str) -> Mount:
    """Read `--tmpfs /PATH[:size=64m,exec,...]`; Docker's noexec, nosuid and nodev unless told."""
    destination, _, words = text.partition(":")
    given = [word for word in words.split(",") if word]
    for word in given:
        name, equals, _ = word.partition("=")
        if name not in (_TMPFS_VALUES if equals else _TMPFS_FLAGS):
            raise EngineError(f"invalid tmpfs option {word!r} in {text!r}")
    if not destination.startswith("/"):
        raise EngineError(f"invalid tmpfs path: {destination!r} is not absolute")
    negated = {"noexec": "exec", "nosuid": "suid", "nodev": "dev"}
    defaults = [flag for flag, opposite in negated.items() if opposite not in given]
    return Mount(destination, "tmpfs", "tmpfs", tuple(dict.fromkeys((*defaults, *given))))


def parse_extra_host(text: str) -> tuple[str, str]:
    """Read `--add-host NAME:ADDRESS` or `NAME=ADDRESS`; the address may be IPv6."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    address = address.removeprefix("[").removesuffix("]")
    digits = frozenset("0123456789abcdefABCDEF:.")
    if not found or not name or not address or not set(address) <= digits:
        raise EngineError(
            f"bad format for add-host: {text!r}", hint="write --add-host NAME:ADDRESS"
        )
    if any(letter.isspace() for letter in name):
        raise EngineError(f"bad format for add-host: {text!r}")
    return name, address


def parse_ulimit(text: str) -> Rlimit:
    """Read `--ulimit NAME=SOFT[:HARD]`; -1 is unlimited. Raises: InvalidLimit."""
    limit = ResourceLimit.parse(text)
    unlimited = (1 << 64) - 1  # as runtime-spec writes it
    soft, hard = (unlimited if number < 0 else number for number in (limit.soft, limit.hard))
    return Rlimit(limit.name, soft, hard)


_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(text: str) -> int:
    """Read a size as Docker writes it: `64m`, `1g`, `1024`, `64mb`, `1.5g`."""
    lowered = text.strip().lower().removesuffix("ib") if len(text) > 3 else text.strip().lower()
    if lowered[-2:-1] in _UNITS and lowered.endswith("b"):
        lowered = lowered[:-1]
    number, unit = (lowered[:-1], lowered[-1]) if lowered[-1:] in _UNITS else (lowered, "b")
    plain = number.replace(".", "", 1)
    if not (plain.isascii() and plain.isdigit() and len(plain) < 19):
        raise EngineError(f"invalid size: {text!r}", hint="for example 64m or 1g")
    return int(float(number) * _UNITS[unit]) if "." in number else int(number) * _UNITS[unit]


def parse_label(text: str) -> tuple[str, str]:
    """Read `--label KEY[=VALUE]`."""
    key, _, content = text.partition("=")
    if not key:
        raise EngineError(f"invalid label {text!r}")
    return key, content
