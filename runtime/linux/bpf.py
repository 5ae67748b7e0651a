"""Classic BPF for seccomp, as bytes: instructions, and decisions by binary search.

A program here is `bytes`, eight an instruction. Every piece ends in `ret` on all its paths, so
pieces are put together by laying them one after the other; that keeps the search tree simple.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_pack = struct.Struct("=HBBI").pack

_LOAD = 0x20  # A = 32 bits of struct seccomp_data at k
_AND = 0x54
_JUMP = 0x05
_JUMP_EQ, _JUMP_GT, _JUMP_GE = 0x15, 0x25, 0x35
_RETURN = 0x06

_LOW = 0xFFFFFFFF

# struct seccomp_data: nr, arch, instruction pointer (64 bits), six arguments of 64 bits.
NR_OFFSET = 0
ARCH_OFFSET = 4

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


def load(offset: int) -> bytes:
    return _pack(_LOAD, 0, 0, offset)


def load_argument(index: int, *, high: bool) -> bytes:
    """The upper or lower half of an argument; both machines we know are little-endian."""
    return _pack(_LOAD, 0, 0, 16 + 8 * index + 4 * high)


def mask(bits: int) -> bytes:
    return _pack(_AND, 0, 0, bits)


def give(action: int) -> bytes:
    """`ret action`."""
    return _pack(_RETURN, 0, 0, action)


def only_if_equal(number: int, body: bytes) -> bytes:
    """Run `body` if A == number, else go on behind it."""
    return _pack(_JUMP_EQ, 1, 0, number) + _pack(_JUMP, 0, 0, len(body) // 8) + body


def search(bounds: Sequence[tuple[int, bytes]]) -> bytes:
    """Decide on A: each pair is the first number of an interval and the code that decides it.

    Sorted, the first starts at 0, the last goes on to the end.
    """
    if len(bounds) == 1:
        return bounds[0][1]
    middle = len(bounds) // 2
    below, above = search(bounds[:middle]), search(bounds[middle:])
    distance = len(below) // 8
    if distance <= 255:
        return _pack(_JUMP_GE, distance, 0, bounds[middle][0]) + below + above
    skip = _pack(_JUMP_GE, 0, 1, bounds[middle][0]) + _pack(_JUMP, 0, 0, distance)
    return skip + below + above


def search_argument(index: int, bounds: Sequence[tuple[int, bytes]]) -> bytes:
    """The same decision on a whole 64-bit argument: first its upper half, then the lower one."""
    halves: list[tuple[int, bytes]] = []
    lower: list[tuple[int, bytes]] = []
    current, in_force = -1, b""

    def close(next_upper: int) -> None:
        """Emit what was gathered for one upper half, then what holds until the next one."""
        if current >= 0:
            code = lower[0][1]
            if len(lower) > 1:
                code = load_argument(index, high=False) + search(lower)
            halves.append((current, code))
            if current + 1 < next_upper:
                halves.append((current + 1, in_force))

    for start, code in bounds:
        upper, low = start >> 32, start & _LOW
        if upper != current:
            close(upper)
            lower = [] if low == 0 else [(0, in_force)]
            current = upper
        lower.append((low, code))
        in_force = code
    close(1 << 32)
    return load_argument(index, high=True) + search(halves)


def merge(bounds: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Join neighbours that decide alike."""
    merged: list[tuple[int, bytes]] = []
    for bound in bounds:
        if not merged or merged[-1][1] != bound[1]:
            merged.append(bound)
    return merged


def test_argument(
    index: int, op: str, number: int, second: int = 0
) -> list[tuple[int, int, int, int]]:
    """One comparison of a 64-bit argument as (code, if true, if false, k).

    The targets are instruction distances, or PASS and FAIL, which `chain` resolves.
    """
    high, low = number >> 32, number & _LOW
    load_high = (_LOAD, 0, 0, 16 + 8 * index + 4)
    load_low = (_LOAD, 0, 0, 16 + 8 * index)
    if op == "MASKED_EQ":  # argument & number == second
        return [
            load_high,
            (_AND, 0, 0, high),
            (_JUMP_EQ, 0, FAIL, second >> 32),
            load_low,
            (_AND, 0, 0, low),
            (_JUMP_EQ, PASS, FAIL, second & _LOW),
        ]
    if op == "EQ":
        return [load_high, (_JUMP_EQ, 0, FAIL, high), load_low, (_JUMP_EQ, PASS, FAIL, low)]
    if op == "NE":
        return [load_high, (_JUMP_EQ, 0, PASS, high), load_low, (_JUMP_EQ, FAIL, PASS, low)]
    compare = _JUMP_GT if op in ("GT", "LE") else _JUMP_GE
    yes, no = (PASS, FAIL) if op in ("GT", "GE") else (FAIL, PASS)
    return [
        load_high,
        (_JUMP_GT, yes, 0, high),
        (_JUMP_EQ, 0, no, high),
        load_low,
        (compare, yes, no, low),
    ]


PASS, FAIL = -1, -2


def chain(tests: Sequence[list[tuple[int, int, int, int]]], body: bytes) -> bytes:
    """Run `body` if all tests pass, else go on behind it."""
    flat = [(item, number) for number, test in enumerate(tests) for item in test]
    ends = []  # position behind each test
    position = 0
    for test in tests:
        position += len(test)
        ends.append(position)
    behind = position + len(body) // 8
    out = b""
    for here, ((code, yes, no, k), number) in enumerate(flat):
        passed, failed = ends[number] - here - 1, behind - here - 1
        targets = {PASS: passed, FAIL: failed}
        out += _pack(code, targets.get(yes, yes), targets.get(no, no), k)
    return out + body
