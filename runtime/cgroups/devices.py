"""Which devices a container may open or make: rules, and both forms the kernel takes them in.

Rules are applied in order and the last one that fits decides; nothing fits means no. v1 reads them
from files; v2 asks a BPF program attached to the cgroup, which is assembled here.
"""

from __future__ import annotations

import ctypes
import os
import struct

from ocispec.value import value
from runtime.errors import EngineError
from runtime.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ANY = -1

_ACCESS_BITS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_KIND_NUMBERS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_PROG_LOAD, _PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2


class InvalidDeviceRule(EngineError):
    """A device rule that cannot be understood."""


@value
class DeviceRule:
    """`kind` is c, b or a (both); major and minor may be ANY; `access` is some of r, w, m."""

    allow: bool
    kind: str
    major: int = ANY
    minor: int = ANY
    access: str = "rwm"

    def __post_init__(self) -> None:
        known = self.kind in ("a", "b", "c") and self.access
        if not known or not set(self.access) <= set("rwm") or min(self.major, self.minor) < ANY:
            raise InvalidDeviceRule(f"invalid device rule {self}", hint="write c 1:3 rwm")
        if max(self.major, self.minor) >= 1 << 31:
            raise InvalidDeviceRule(f"device number out of range in {self}")

    def __str__(self) -> str:
        """As v1 and `--device-cgroup-rule` write it: `c 1:3 rwm`, `b *:* m`."""
        major, minor = ("*" if n == ANY else str(n) for n in (self.major, self.minor))
        return f"{self.kind} {major}:{minor} {self.access}"

    @classmethod
    def parse(cls, text: str, *, allow: bool = True) -> DeviceRule:
        """From `c 1:3 rwm`. Raises: InvalidDeviceRule."""
        words = text.split()
        numbers = words[1].split(":") if len(words) == 3 else []
        if len(numbers) != 2 or not all(_is_number(n) for n in numbers):
            raise InvalidDeviceRule(f"invalid device rule {text!r}", hint="write c 1:3 rwm")
        major, minor = (ANY if n == "*" else int(n) for n in numbers)
        return cls(allow, words[0], major, minor, words[2])


def _is_number(text: str) -> bool:
    return text == "*" or (text.isascii() and text.isdigit() and len(text) <= 10)


# Nothing; then making any node (opening it is another matter); then what every container has.
DEFAULT_RULES = (
    DeviceRule(False, "a"),
    DeviceRule(True, "c", access="m"),
    DeviceRule(True, "b", access="m"),
    DeviceRule(True, "c", 1, 3),  # null
    DeviceRule(True, "c", 1, 5),  # zero
    DeviceRule(True, "c", 1, 7),  # full
    DeviceRule(True, "c", 1, 8),  # random
    DeviceRule(True, "c", 1, 9),  # urandom
    DeviceRule(True, "c", 5, 0),  # tty
    DeviceRule(True, "c", 5, 1),  # console
    DeviceRule(True, "c", 5, 2),  # ptmx
    DeviceRule(True, "c", 136, ANY),  # pts
)

ALLOW_ALL = (DeviceRule(True, "a"),)


def is_allowed(rules: Iterable[DeviceRule], kind: str, major: int, minor: int, access: str) -> bool:
    """What the rules say of one attempt. A denial of part of the access denies all of it."""
    verdict = False
    wanted = set(access)
    for rule in rules:
        fits = (
            rule.kind in ("a", kind) and rule.major in (ANY, major) and rule.minor in (ANY, minor)
        )
        if fits and (wanted <= set(rule.access) if rule.allow else wanted & set(rule.access)):
            verdict = rule.allow
    return verdict


def v1_writes(rules: Iterable[DeviceRule]) -> tuple[tuple[str, str], ...]:
    """(file, line) pairs; a rule for all kinds and numbers resets the kernel's list."""
    out = []
    for rule in rules:
        file = "devices.allow" if rule.allow else "devices.deny"
        whole = rule.kind == "a" and rule.major == rule.minor == ANY and len(rule.access) == 3
        out.append((file, "a" if whole else str(rule)))
    return tuple(out)


def v2_program(rules: Sequence[DeviceRule]) -> bytes:
    """The rules as an eBPF program of type CGROUP_DEVICE: 1 in r0 allows.

    r2 is the kind, r3 the access asked for, r4 and r5 the device number. Later rules are asked
    first, and the first that fits ends the program.
    """
    out = [
        _instruction(0x61, 2, 1, 0, 0),  # r2 = ctx->access_type
        _instruction(0xBF, 3, 2, 0, 0),  # r3 = r2
        _instruction(0x57, 2, 0, 0, 0xFFFF),  # r2 &= 0xffff
        _instruction(0x77, 3, 0, 0, 16),  # r3 >>= 16
        _instruction(0x61, 4, 1, 4, 0),  # r4 = ctx->major
        _instruction(0x61, 5, 1, 8, 0),  # r5 = ctx->minor
    ]
    for rule in reversed(rules):
        out += _rule_instructions(rule)
        if rule.kind == "a" and rule.major == rule.minor == ANY and set(rule.access) == set("rwm"):
            return b"".join(out)  # decides everything; the kernel refuses code nobody can reach
    return b"".join([*out, *_verdict(False)])


def _rule_instructions(rule: DeviceRule) -> list[bytes]:
    """Tests that jump behind the verdict; built from the end, where the distances are known."""
    bits = sum(_ACCESS_BITS[letter] for letter in set(rule.access))
    tests: list[tuple[int, int, int]] = []  # opcode, register, operand; jumps leave the rule
    if rule.kind != "a":
        tests.append((0x55, 2, _KIND_NUMBERS[rule.kind]))  # if r2 != kind
    if bits != 7:
        tests.append((0xBF, 0, 3))  # r0 = r3
        if rule.allow:
            tests += (0x57, 0, ~bits & 7), (0x55, 0, 0)  # something asked for is not in the rule
        else:
            tests += (0x57, 0, bits), (0x15, 0, 0)  # nothing asked for is in the rule
    if rule.major != ANY:
        tests.append((0x55, 4, rule.major))
    if rule.minor != ANY:
        tests.append((0x55, 5, rule.minor))
    out = []
    for position, (code, register, operand) in enumerate(tests):
        if code == 0xBF:
            out.append(_instruction(code, register, operand, 0, 0))
        else:
            is_jump = code in (0x55, 0x15)
            distance = len(tests) - position - 1 + 2 if is_jump else 0
            out.append(_instruction(code, register, 0, distance, operand))
    return [*out, *_verdict(rule.allow)]


def _verdict(allow: bool) -> list[bytes]:
    return [_instruction(0xB7, 0, 0, 0, int(allow)), _instruction(0x95, 0, 0, 0, 0)]


def _instruction(code: int, target: int, source: int, offset: int, number: int) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, number)


def attach(cgroup_fd: int, program: bytes) -> None:
    """Load a device program and attach it to a v2 cgroup; it lives as long as the cgroup.

    Programs of the cgroup and of its ancestors must all allow. Raises: OSError.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQIIQII16s",
        _PROG_TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(code),
        ctypes.addressof(licence),
        0,
        0,
        0,
        0,
        0,
        b"pyreg_devices",
    )
    program_fd = syscalls.bpf(_PROG_LOAD, attributes)
    try:
        attributes = struct.pack("=IIII", cgroup_fd, program_fd, _CGROUP_DEVICE, _ALLOW_MULTI)
        syscalls.bpf(_PROG_ATTACH, attributes)
    finally:
        os.close(program_fd)
