"""Resource limits by the names of setrlimit(2) and of `--ulimit`."""

from __future__ import annotations

import resource

from ocispec.value import value
from runtime.errors import EngineError

UNLIMITED = resource.RLIM_INFINITY  # -1 in Python

# setrlimit(2); the numbers are alike on every architecture we run on.
NUMBERS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}


class InvalidLimit(EngineError):
    """A `--ulimit` that cannot be understood or whose soft limit is above the hard one."""


@value
class ResourceLimit:
    """One limit. `name` is the kernel's (`RLIMIT_NOFILE`); -1 is unlimited.

    The constructor checks the name and that soft is not above hard.
    """

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        if self.name not in NUMBERS:
            raise InvalidLimit(f"unknown resource limit {self.name}", hint=_known())
        if self.soft < -1 or self.hard < -1:
            raise InvalidLimit(f"{self.name}: limits are numbers or -1 for unlimited")
        if self.hard != UNLIMITED and (self.soft == UNLIMITED or self.soft > self.hard):
            raise InvalidLimit(
                f"{self.name}: the soft limit {self.soft} is above the hard limit {self.hard}"
            )

    @classmethod
    def of(cls, name: str, soft: int, hard: int) -> ResourceLimit:
        """From unsigned 64-bit numbers as runtime-spec writes them (2^64-1 is unlimited)."""
        return cls(name, _signed(soft), _signed(hard))

    @classmethod
    def parse(cls, text: str) -> ResourceLimit:
        """From `nofile=1024` or `nofile=1024:4096`; the hard limit defaults to the soft one."""
        short, separator, numbers = text.partition("=")
        soft, _, hard = numbers.partition(":")
        if not separator or not _is_number(soft) or not (_is_number(hard) or hard == ""):
            raise InvalidLimit(
                f"invalid ulimit {text!r}", hint="write name=soft[:hard], for example nofile=1024"
            )
        return cls(f"RLIMIT_{short.upper()}", int(soft), int(hard or soft))


def _known() -> str:
    return "known are " + ", ".join(name[7:].lower() for name in NUMBERS)


def _is_number(text: str) -> bool:
    digits = text[1:] if text == "-1" else text
    return digits.isascii() and digits.isdigit() and len(digits) < 20


def _signed(number: int) -> int:
    return UNLIMITED if number >= (1 << 63) - 1 else number


def apply(limit: ResourceLimit, pid: int = 0) -> None:
    """Set the limit of a process (0 is this one).

    Raises: EngineError that says so, if the kernel refuses: raising a hard limit needs
    CAP_SYS_RESOURCE, which a host may have taken away even from root.
    """
    try:
        resource.prlimit(pid, NUMBERS[limit.name], (limit.soft, limit.hard))
    except (PermissionError, ValueError) as error:
        raise EngineError(
            f"cannot set {limit.name} to {_text(limit.soft)}:{_text(limit.hard)}: {error}",
            hint="without CAP_SYS_RESOURCE a hard limit can only be lowered",
        ) from error


def _text(number: int) -> str:
    return "unlimited" if number == UNLIMITED else str(number)
