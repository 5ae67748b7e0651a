"""Capabilities: names, sets as bit masks, and the calls that give them up.

A set is an `int` with bit n for capability n, as the kernel has it. Docker's rules for a
container: bounding, permitted and effective hold the same set; inheritable and ambient stay empty,
otherwise a program with file capabilities could raise more than its user was given (CVE-2022-24769
and its kin).
"""

from __future__ import annotations

import errno

from runtime.errors import EngineError
from runtime.linux import flags, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# In the kernel's order: the index is the number.
NAMES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
]

NUMBERS = {name: number for number, name in enumerate(NAMES)}

# What Docker leaves to a container that asks for nothing.
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


class CapabilityUnknown(EngineError):
    """A name that is no capability of Linux."""


def parse(name: str) -> str:
    """The full name of a capability: `net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` are the same."""
    full = name.strip().upper()
    if not full.startswith("CAP_"):
        full = f"CAP_{full}"
    if full not in NUMBERS:
        raise CapabilityUnknown(
            f"unknown capability {name!r}",
            hint="names are those of capabilities(7), for example NET_ADMIN, or ALL",
        )
    return full


def mask(names: Iterable[str]) -> int:
    """The set of these capabilities. Raises: CapabilityUnknown."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[parse(name)]
    return bits


def names(bits: int) -> tuple[str, ...]:
    """The names in a set, in the kernel's order; bits newer than our table as `CAP_<number>`."""
    return tuple(
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(bits.bit_length())
        if bits >> number & 1
    )


def adjust(base: Iterable[str], add: Iterable[str], drop: Iterable[str]) -> tuple[str, ...]:
    """`base` after `--cap-add` and `--cap-drop`, by Docker's rules, in the kernel's order.

    Adding ALL gives everything but what is dropped; dropping ALL leaves only what is added; a name
    in both is kept (as Docker does), except that adding ALL still lets single names be dropped.
    """
    added, dropped = [a.upper() for a in add], [d.upper() for d in drop]
    add_all, drop_all = _takes_all(added), _takes_all(dropped)
    plus, minus = mask(a for a in added if a not in _ALL), mask(d for d in dropped if d not in _ALL)
    if add_all:
        return names(((1 << len(NAMES)) - 1) & ~minus)
    if drop_all:
        return names(plus)
    return names(mask(base) & ~minus | plus)


_ALL = ("ALL", "CAP_ALL")


def _takes_all(listed: list[str]) -> bool:
    return any(name in _ALL for name in listed)


def last_cap() -> int:
    """The number of the running kernel's newest capability, asked without /proc."""
    number = len(NAMES) - 1
    while number > 0 and not _exists(number):
        number -= 1
    while number < 63 and _exists(number + 1):
        number += 1
    return number


def _exists(number: int) -> bool:
    try:
        syscalls.prctl(flags.PR_CAPBSET_READ, number)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    return True


def bounding() -> int:
    """This thread's bounding set."""
    return sum(syscalls.prctl(flags.PR_CAPBSET_READ, n) << n for n in range(last_cap() + 1))


def drop_bounding(keep: int) -> None:
    """Take every capability not in `keep` out of the bounding set, those we cannot name included.

    Needs CAP_SETPCAP. A capability that was not there before stays away.
    """
    for number in range(last_cap() + 1):
        if not keep >> number & 1:
            syscalls.prctl(flags.PR_CAPBSET_DROP, number)


def set_all(effective: int, permitted: int, inheritable: int = 0, ambient: int = 0) -> None:
    """Set all four sets of this thread. What the thread does not hold now cannot be gained.

    Ambient is emptied first; raising it needs the bits in permitted and inheritable too.
    """
    clear_ambient()
    syscalls.capset(effective, permitted, inheritable)
    for number in range(ambient.bit_length()):
        if ambient >> number & 1:
            syscalls.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_RAISE, number)


def clear_ambient() -> None:
    syscalls.prctl(flags.PR_CAP_AMBIENT, flags.PR_CAP_AMBIENT_CLEAR_ALL)


def confine(keep: int) -> int:
    """Become a process with exactly `keep` (less what it never had) and nothing to inherit.

    Returns the set it ended up with. Call it before changing to an unprivileged user together with
    PR_SET_KEEPCAPS, or after, as the last thing: bounding needs CAP_SETPCAP, which goes away here.
    """
    drop_bounding(keep)
    _, permitted, _ = syscalls.capget()
    kept = keep & permitted
    set_all(kept, kept)
    return kept
