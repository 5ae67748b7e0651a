"""Write `runtime/linux/syscall_tables.py` from the kernel's headers.

Run by a developer, never by pyreg; needs gcc and Debian's linux-libc-dev and its -arm64-cross and
-armhf-cross packages (unpacked anywhere):

    python deploy/syscall_tables.py X86_INCLUDE ARM64_INCLUDE ARM_INCLUDE > FILE

where X86_INCLUDE is /usr/include/x86_64-linux-gnu and the others end in `-linux-gnu*/include`.
"""

from __future__ import annotations

import re
import subprocess
import sys

# Calls newer than Debian 12's headers (Linux 6.1); from 424 on all architectures share the numbers.
NEWER = (
    "cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount "
    "lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat "
    "removexattrat open_tree_attr file_getattr file_setattr"
)
FIRST_NEWER = 451
UNIFIED_END = 1000  # arm's private calls are far above; they are written by hand below
X32_BIT = 0x40000000

HEAD = '''"""System call numbers: the word at index n is the name of call n, `-` is no call.

Written by `deploy/syscall_tables.py` from the kernel's headers; do not edit.
"""

from __future__ import annotations
'''

ARM_PRIVATE = """
# Calls of 32-bit arm outside its table (__ARM_NR_BASE is 0x0f0000).
ARM_PRIVATE = {"breakpoint": 0x0F0001, "cacheflush": 0x0F0002, "set_tls": 0x0F0005}
"""


def preprocess(text: str, *options: str) -> str:
    command = ["gcc", "-E", "-P", *options, "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def numbers(*options: str) -> dict[str, int]:
    """Every __NR_ macro of <asm/unistd.h> and what it expands to."""
    include = "#include <asm/unistd.h>\n"
    names = re.findall(r"#define __NR_(\w+) ", preprocess(include, "-dM", *options))
    lines = "".join(f"@ {name} __NR_{name}\n" for name in sorted(names))
    found = {}
    for line in preprocess(include + lines, *options).splitlines():
        match = re.fullmatch(r"@ (\w+) \(?(?:(0x\d+|\d+) ?\+ ?)?(\d+)\)?", line.strip())
        if match:
            found[match[1]] = int(match[2] or "0", 0) + int(match[3])
    return {name: number for name, number in found.items() if name not in ("syscalls",)}


def listing(name: str, table: dict[str, int]) -> str:
    newer = {word: FIRST_NEWER + index for index, word in enumerate(NEWER.split())}
    by_number = {n: word for word, n in (table | newer).items() if n < UNIFIED_END}
    lines, line = [], ""
    for number in range(max(by_number) + 1):
        word = by_number.get(number, "-")
        if len(line) + len(word) > 94:
            lines.append(line.rstrip())
            line = ""
        line += word + " "
    body = "\n".join([*lines, line.rstrip()])
    return f'{name} = """\n{body}\n"""\n'


def main() -> None:
    x86, arm64, arm = (f"-I{argument}" for argument in sys.argv[1:4])
    kernel_x32 = numbers("-mx32", x86)
    x32 = {n: k - X32_BIT for n, k in kernel_x32.items() if k - X32_BIT >= 512}
    lines = "".join(f'    "{name}": {x32[name]},\n' for name in sorted(x32, key=lambda n: x32[n]))
    print(HEAD)
    print(listing("X86_64", numbers("-m64", x86) | {"uretprobe": 335}))
    print("# Under the x32 bit these have numbers of their own.\nX32 = {\n" + lines + "}\n")
    print(listing("I386", numbers("-m32", x86)))
    print(listing("AARCH64", numbers("-nostdinc", "-U__x86_64__", arm64)))
    print(listing("ARM", numbers("-nostdinc", "-D__ARM_EABI__", arm)), end="")
    print(ARM_PRIVATE, end="")


if __name__ == "__main__":
    main()
