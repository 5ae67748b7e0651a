"""Device rules: the text for v1, and the program for v2 run in a small machine."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.cgroups.devices import (
    ALLOW_ALL,
    ANY,
    DEFAULT_RULES,
    DeviceRule,
    InvalidDeviceRule,
    is_allowed,
    v1_writes,
    v2_program,
)


def run(program: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """The little of eBPF that device programs use."""
    bits = sum({"m": 1, "r": 2, "w": 4}[letter] for letter in access)
    context = {0: bits << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    code = [struct.unpack_from("=BBhi", program, at) for at in range(0, len(program), 8)]
    registers = [0] * 11
    here = 0
    while True:
        opcode, operands, offset, number = code[here]
        target, source = operands & 15, operands >> 4
        here += 1
        if opcode == 0x61:
            assert source == 1
            registers[target] = context[offset]
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0xB7:
            registers[target] = number
        elif opcode == 0x57:
            registers[target] &= number
        elif opcode == 0x77:
            registers[target] >>= number
        elif opcode == 0x55:
            here += offset if registers[target] != number else 0
        elif opcode == 0x15:
            here += offset if registers[target] == number else 0
        elif opcode == 0x95:
            assert registers[0] in (0, 1)
            return bool(registers[0])
        else:
            raise AssertionError(f"opcode {opcode:#x}")


ATTEMPTS = [
    ("c", 1, 3, "rw", True, "null"),
    ("c", 1, 9, "r", True, "urandom"),
    ("c", 5, 2, "rw", True, "ptmx"),
    ("c", 136, 77, "rw", True, "a terminal"),
    ("c", 1, 11, "r", False, "kmsg"),
    ("c", 10, 200, "rw", False, "tun"),
    ("c", 10, 229, "rw", False, "fuse"),
    ("b", 8, 0, "r", False, "a disk"),
    ("b", 8, 0, "m", True, "making a node of a disk, which cannot be opened then"),
    ("b", 8, 0, "rm", False, "both"),
]


@pytest.mark.parametrize(("kind", "major", "minor", "access", "expected", "what"), ATTEMPTS)
def test_the_default_is_a_list_of_what_is_allowed(
    kind: str, major: int, minor: int, access: str, expected: bool, what: str
) -> None:
    """GHSA-g54h-m393-cpwq: a list of what is denied would leave all other devices open."""
    assert is_allowed(DEFAULT_RULES, kind, major, minor, access) is expected, what
    assert run(v2_program(DEFAULT_RULES), kind, major, minor, access) is expected, what


def test_v1_text() -> None:
    rules = (*DEFAULT_RULES[:4], DeviceRule(False, "c", 10, 229, "rw"))
    assert v1_writes(rules) == (
        ("devices.deny", "a"),
        ("devices.allow", "c *:* m"),
        ("devices.allow", "b *:* m"),
        ("devices.allow", "c 1:3 rwm"),
        ("devices.deny", "c 10:229 rw"),
    )
    assert v1_writes(ALLOW_ALL) == (("devices.allow", "a"),)


numbers = st.sampled_from([ANY, 0, 1, 3, 255, (1 << 31) - 1])
access = st.sampled_from(["r", "w", "m", "rw", "rm", "wm", "rwm"])
rules = st.builds(
    DeviceRule,
    allow=st.booleans(),
    kind=st.sampled_from("abc"),
    major=numbers,
    minor=numbers,
    access=access,
)


@settings(max_examples=300)
@given(st.lists(rules, max_size=10), st.lists(st.tuples(numbers, numbers, access), min_size=1))
def test_the_v2_program_decides_as_the_rules_say(
    some: list[DeviceRule], attempts: list[tuple[int, int, str]]
) -> None:
    program = v2_program(some)
    for major, minor, wanted in attempts:
        for kind in "bc":
            found = run(program, kind, abs(major), abs(minor), wanted)
            assert found == is_allowed(some, kind, abs(major), abs(minor), wanted)


@given(rules)
def test_text_is_parsed_back(rule: DeviceRule) -> None:
    assert DeviceRule.parse(str(rule), allow=rule.allow) == rule


@pytest.mark.parametrize(
    "text",
    ["", "c", "c 1:3", "x 1:3 rwm", "c 1 rwm", "c 1:3 q", "c -1:3 r", "c 1:3: r",
     "c 9999999999:0 r", "c 1:3 rwm\nb"],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(InvalidDeviceRule):
        DeviceRule.parse(text)
