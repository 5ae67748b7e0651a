"""Seccomp profiles as files: Docker's JSON format and the `linux.seccomp` object of runtime-spec.

Docker's has `archMap`, and rules that depend on capabilities, the machine and the kernel; they are
settled here, so a `Profile` no longer depends on anything.
"""

from __future__ import annotations

import errno
import json
import os

from runtime.linux import seccomp, syscalls
from runtime.linux.seccomp import Condition, Profile, ProfileError, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from typing import Any

MAX_BYTES = 1024 * 1024  # Docker's own profile has 17 kB

_ACTIONS = {
    "SCMP_ACT_KILL": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": seccomp.KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": seccomp.KILL_PROCESS,
    "SCMP_ACT_TRAP": seccomp.TRAP,
    "SCMP_ACT_ERRNO": seccomp.ERRNO,
    "SCMP_ACT_TRACE": seccomp.TRACE,
    "SCMP_ACT_ALLOW": seccomp.ALLOW,
    "SCMP_ACT_LOG": seccomp.LOG,
}
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": "x86_64",
    "SCMP_ARCH_X86": "x86",
    "SCMP_ARCH_X32": "x32",
    "SCMP_ARCH_AARCH64": "aarch64",
    "SCMP_ARCH_ARM": "arm",
}
# Go's names, by which rules include and exclude machines.
_GO_NAMES = {"x86_64": ("amd64", "x86_64"), "aarch64": ("arm64", "aarch64")}


def parse_profile(
    document: bytes,
    capabilities: Collection[str],
    *,
    machine: str = syscalls.MACHINE,
    kernel: tuple[int, int] | None = None,
) -> Profile:
    """The profile for a container with these capabilities (full names) on this machine.

    `kernel` is the running kernel's (major, minor) unless told. Raises: ProfileError.
    """
    if len(document) > MAX_BYTES:
        raise ProfileError(f"the seccomp profile is longer than {MAX_BYTES} bytes")
    try:
        read = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"the seccomp profile is not JSON: {error}") from error
    if not isinstance(read, dict):
        raise ProfileError("the seccomp profile is not a JSON object")
    kernel = kernel or kernel_version(os.uname().release)
    try:
        return _profile(read, set(capabilities), machine, kernel)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ProfileError(
            f"the seccomp profile does not follow its format: {type(error).__name__} {error}",
            hint="compare it with Docker's default profile",
        ) from error


def kernel_version(release: str) -> tuple[int, int]:
    """(6, 1) of `6.1.0-25-amd64`; (0, 0) if it cannot be read."""
    parts = release.replace("-", ".").split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        return 0, 0
    return int(parts[0]), int(parts[1])


def _profile(
    read: Mapping[str, Any], held: set[str], machine: str, kernel: tuple[int, int]
) -> Profile:
    default = _action(read["defaultAction"], read.get("defaultErrnoRet"))
    rules: list[Rule] = []
    for entry in read.get("syscalls") or ():
        if _applies(entry, held, machine, kernel):
            rules += _rules(entry)
    return Profile(default, tuple(rules), _architectures(read, machine))


def _architectures(read: Mapping[str, Any], machine: str) -> tuple[str, ...]:
    """Always the machine's own; the others as `archMap` or `architectures` say."""
    named: list[str] = list(read.get("architectures") or ())
    for entry in read.get("archMap") or ():
        if _ARCHITECTURES.get(entry["architecture"]) == machine:
            named += entry.get("subArchitectures") or ()
    known = [_ARCHITECTURES[name] for name in named if name in _ARCHITECTURES]
    return tuple(dict.fromkeys([machine, *known]))


def _applies(
    entry: Mapping[str, Any], held: set[str], machine: str, kernel: tuple[int, int]
) -> bool:
    """All of what a rule includes must hold and none of what it excludes."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    here = _GO_NAMES.get(machine, (machine,))
    wanted, unwanted = includes.get("arches") or (), excludes.get("arches") or ()
    if wanted and not set(wanted) & set(here):
        return False
    if set(unwanted) & set(here) or set(excludes.get("caps") or ()) & held:
        return False
    if not set(includes.get("caps") or ()) <= held:
        return False
    minimum, maximum = includes.get("minKernel"), excludes.get("minKernel")
    if minimum and kernel < kernel_version(minimum):
        return False
    return not (maximum and kernel >= kernel_version(maximum))


def _rules(entry: Mapping[str, Any]) -> list[Rule]:
    names = entry.get("names") or [entry["name"]]
    if not all(isinstance(name, str) for name in names):
        raise ValueError("the name of a system call is not text")
    action = _action(entry["action"], entry.get("errnoRet"))
    conditions = tuple(_condition(argument) for argument in entry.get("args") or ())
    indexes = [condition.index for condition in conditions]
    if len(set(indexes)) < len(indexes):
        # As runc has it: several conditions on one argument are alternatives.
        return [Rule(tuple(names), action, (condition,)) for condition in conditions]
    return [Rule(tuple(names), action, conditions)]


def _condition(argument: Mapping[str, Any]) -> Condition:
    op = str(argument["op"]).removeprefix("SCMP_CMP_")
    first, second = argument.get("value", 0), argument.get("valueTwo", 0)
    if not all(isinstance(n, int) and not isinstance(n, bool) for n in (first, second)):
        raise ValueError("the value of an argument is not a whole number")
    return Condition(int(argument["index"]), op, first, second)


def _action(name: str, number: int | None) -> int:
    if name == "SCMP_ACT_NOTIFY":
        raise ProfileError(
            "seccomp profiles that ask a supervisor (SCMP_ACT_NOTIFY) do not work here"
        )
    if name not in _ACTIONS:
        raise ProfileError(f"unknown seccomp action {name!r}")
    action = _ACTIONS[name]
    if action not in (seccomp.ERRNO, seccomp.TRACE):
        return action
    if number is None:
        number = errno.EPERM
    if not isinstance(number, int) or not 0 <= number <= 4095:
        raise ProfileError(f"invalid error number {number!r} in the seccomp profile")
    return action | number
