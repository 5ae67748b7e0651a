"""System call filters: a profile as values, compiled to BPF, installed on this process.

The compiler turns the allowed numbers of an architecture into intervals and decides by binary
search: about 8 comparisons a call and half the size of a linear filter. No libseccomp is needed.

What a profile means, where libseccomp leaves a choice: a rule without conditions beats all rules
with conditions for the same call; among those with conditions the first that matches wins. Calls
newer than the newest one that a profile names get ENOSYS instead of its default error, because
programs fall back on ENOSYS and give up on EPERM (runc does the same). A foreign architecture is
killed.
"""

from __future__ import annotations

import errno

from ocispec.value import value
from runtime.errors import EngineError
from runtime.linux import bpf, syscall_tables, syscalls
from runtime.linux import seccomp_default as default

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KILL_PROCESS = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
ERRNO = 0x00050000  # | errno
TRACE = 0x7FF00000  # | number for the tracer
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000

OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")

# machine → architectures it can run: (name, AUDIT_ARCH_*), the native one first.
ARCHITECTURES = {
    "x86_64": (("x86_64", 0xC000003E), ("x86", 0x40000003)),
    "aarch64": (("aarch64", 0xC00000B7), ("arm", 0x40000028)),
}
_ALL_64 = (1 << 64) - 1
_X32_BIT = 0x40000000
_NONE = 1 << 32  # above every call: a profile that names none has no newest one


class ProfileError(EngineError):
    """A profile that cannot be turned into a filter."""


@value
class Condition:
    """A comparison of one argument, seen as an unsigned 64-bit number.

    `op` is one of OPERATORS; MASKED_EQ means argument & number == second.
    """

    index: int
    op: str
    number: int
    second: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.index <= 5 or self.op not in OPERATORS:
            raise ProfileError(f"invalid condition on argument {self.index}: {self.op}")
        if not 0 <= self.number <= _ALL_64 or not 0 <= self.second <= _ALL_64:
            raise ProfileError(f"argument {self.index}: not a 64-bit number: {self.number}")


@value
class Rule:
    """An action for some calls, taken if all conditions hold."""

    names: tuple[str, ...]  # as in the kernel's tables; unknown ones are ignored
    action: int
    conditions: tuple[Condition, ...] = ()


@value
class Profile:
    """What to do with every call."""

    default_action: int
    rules: tuple[Rule, ...]
    architectures: tuple[str, ...] = ("x86_64", "x86", "x32", "aarch64", "arm")


def default_profile(capabilities: Iterable[str], machine: str = syscalls.MACHINE) -> Profile:
    """Docker's default profile for a container with these capabilities (full names)."""
    held = set(capabilities)
    names = default.ALWAYS.split() + default.BY_MACHINE.get(machine, "").split()
    for capability, unlocked in default.BY_CAPABILITY.items():
        if capability in held:
            names += unlocked.split()
    rules = [
        Rule(tuple(names), ALLOW),
        Rule(("socket",), ALLOW, (Condition(0, "LT", default.SOCKET_FAMILIES_BELOW),)),
    ]
    rules += (Rule(("socket",), ALLOW, (Condition(0, "EQ", n),)) for n in default.SOCKET_FAMILIES)
    rules += (
        Rule(("personality",), ALLOW, (Condition(0, "EQ", n),)) for n in default.PERSONALITIES
    )
    if "CAP_SYS_ADMIN" not in held:
        no_namespace = Condition(0, "MASKED_EQ", default.CLONE_NAMESPACE_FLAGS, 0)
        rules.append(Rule(("clone",), ALLOW, (no_namespace,)))
        rules.append(Rule(("clone3",), ERRNO | errno.ENOSYS))
    return Profile(ERRNO | errno.EPERM, tuple(rules))


def compile_filter(profile: Profile, machine: str = syscalls.MACHINE) -> bytes:
    """The BPF program of a profile for a machine, 8 bytes an instruction.

    Raises: ProfileError, also if it has more instructions than the kernel takes.
    """
    if machine not in ARCHITECTURES:
        raise ProfileError(
            f"no system call table for {machine}", hint="run with --security-opt seccomp=unconfined"
        )
    plain: dict[str, int] = {}
    guarded: dict[str, list[Rule]] = {}
    for rule in profile.rules:
        for name in rule.names:
            if rule.conditions:
                guarded.setdefault(name, []).append(rule)
            else:
                plain.setdefault(name, rule.action)
    otherwise = bpf.give(profile.default_action)
    guards = {
        name: _guard(rules, otherwise) for name, rules in guarded.items() if name not in plain
    }
    program = bpf.load(bpf.ARCH_OFFSET)
    for name, audit_number in ARCHITECTURES[machine]:
        if name in profile.architectures:
            body = _decide(profile, name, plain, guards, otherwise)
            program += bpf.only_if_equal(audit_number, body)
    program += bpf.give(KILL_PROCESS)
    if len(program) // 8 > bpf.MAX_INSTRUCTIONS:
        raise ProfileError(
            f"the profile needs {len(program) // 8} instructions, the kernel takes "
            f"{bpf.MAX_INSTRUCTIONS}"
        )
    return program


def install(program: bytes) -> None:
    """Put the filter on this thread for good; children and what they exec inherit it.

    Needs CAP_SYS_ADMIN, or no_new_privs set.
    """
    syscalls.seccomp_set_mode_filter(program)


def numbers(architecture: str) -> dict[str, tuple[int, ...]]:
    """The numbers of each call; x86_64 includes x32's own ones, without the x32 bit."""
    words, extra = {
        "x86_64": (syscall_tables.X86_64, syscall_tables.X32),
        "x86": (syscall_tables.I386, {}),
        "aarch64": (syscall_tables.AARCH64, {}),
        "arm": (syscall_tables.ARM, syscall_tables.ARM_PRIVATE),
    }[architecture]
    table: dict[str, tuple[int, ...]] = {
        name: (number,) for number, name in enumerate(words.split()) if name != "-"
    }
    for name, number in extra.items():
        table[name] = (*table.get(name, ()), number)
    return table


def _decide(
    profile: Profile,
    architecture: str,
    plain: dict[str, int],
    guards: dict[str, bytes],
    otherwise: bytes,
) -> bytes:
    """The decision on the call's number for one architecture."""
    table = numbers(architecture)
    codes: dict[int, bytes] = {}
    returns = {action: bpf.give(action) for action in set(plain.values())}
    for name, action in plain.items():
        for number in table.get(name, ()):
            codes[number] = returns[action]
    for name, code in guards.items():
        for number in table.get(name, ()):
            codes[number] = code
    newest = max((number for number in codes if number < 512), default=_NONE)
    unknown = otherwise
    if profile.default_action & 0xFFFF0000 == ERRNO:
        unknown = bpf.give(ERRNO | errno.ENOSYS)
    bounds: list[tuple[int, bytes]] = []
    expected = 0
    for number in sorted(codes):
        if number > expected:
            bounds.append((expected, unknown if expected > newest else otherwise))
        bounds.append((number, codes[number]))
        expected = number + 1
    bounds.append((expected, unknown if expected > newest else otherwise))
    # An x32 call is judged like the x86_64 call of that number; those that x32 does not have are
    # refused by the kernel itself.
    x32 = architecture == "x86_64" and "x32" in profile.architectures
    masked = bpf.mask(~_X32_BIT & 0xFFFFFFFF) if x32 else b""
    return bpf.load(bpf.NR_OFFSET) + masked + bpf.search(bpf.merge(bounds))


def _guard(rules: Sequence[Rule], otherwise: bytes) -> bytes:
    """The decision on the arguments of one call."""
    intervals = _as_intervals(rules, otherwise)
    if intervals is not None:
        return bpf.search_argument(rules[0].conditions[0].index, intervals)
    out = b""
    for rule in rules:
        tests = [bpf.test_argument(c.index, c.op, c.number, c.second) for c in rule.conditions]
        out += bpf.chain(tests, bpf.give(rule.action))
    return out + otherwise


def _as_intervals(rules: Sequence[Rule], otherwise: bytes) -> list[tuple[int, bytes]] | None:
    """If all rules allow ranges of the same single argument alike, those ranges; else None."""
    index, action = rules[0].conditions[0].index, rules[0].action
    ranges: list[tuple[int, int]] = []
    for rule in rules:
        first = rule.conditions[0]
        if len(rule.conditions) > 1 or first.index != index or rule.action != action:
            return None
        if first.op == "MASKED_EQ":
            return None
        ranges += _ranges(first)
    give = bpf.give(action)
    bounds: list[tuple[int, bytes]] = []
    expected = 0
    for start, stop in sorted(ranges):
        if stop <= expected and bounds:
            continue
        if start > expected:
            bounds.append((expected, otherwise))
        bounds.append((max(start, expected), give))
        expected = max(stop, expected)
    if expected <= _ALL_64:
        bounds.append((expected, otherwise))
    return bpf.merge(bounds)


def _ranges(condition: Condition) -> list[tuple[int, int]]:
    """The numbers that satisfy a condition, as [start, stop) pairs."""
    n, end = condition.number, _ALL_64 + 1
    found = {
        "EQ": [(n, n + 1)],
        "NE": [(0, n), (n + 1, end)],
        "LT": [(0, n)],
        "LE": [(0, n + 1)],
        "GT": [(n + 1, end)],
        "GE": [(n, end)],
    }[condition.op]
    return [(start, stop) for start, stop in found if start < stop]
