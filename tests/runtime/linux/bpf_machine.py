"""A machine for seccomp's classic BPF, to compare what a program decides with what it should."""

from __future__ import annotations

import struct


def run(program: bytes, arch: int, nr: int, arguments: tuple[int, ...]) -> int:
    """What the program returns for one call. Raises: AssertionError for an invalid program."""
    data = struct.pack("=IIQ6Q", nr, arch, 0, *arguments, *([0] * (6 - len(arguments))))
    code = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, here = 0, 0
    while True:
        assert here < len(code), "ran off the end"
        opcode, yes, no, k = code[here]
        here += 1
        if opcode == 0x20:
            assert k % 4 == 0 and k < len(data), "invalid load"
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif opcode == 0x54:
            accumulator &= k
        elif opcode == 0x05:
            here += k
        elif opcode == 0x15:
            here += yes if accumulator == k else no
        elif opcode == 0x25:
            here += yes if accumulator > k else no
        elif opcode == 0x35:
            here += yes if accumulator >= k else no
        elif opcode == 0x06:
            return int(k)
        else:
            raise AssertionError(f"opcode {opcode:#x}")
