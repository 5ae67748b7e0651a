"""The compiled filters decide as the rules say: in a machine for every call, and in the kernel."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import socket
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.linux import capabilities, flags, seccomp, seccomp_default, syscalls
from runtime.linux.seccomp import ALLOW, ERRNO, KILL_PROCESS, Condition, Profile, Rule
from tests.runtime.linux.bpf_machine import run
from tests.runtime.linux.forked import errno_of, in_child

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
MACHINES = ["x86_64", "aarch64"]
X32 = 0x40000000


def holds(condition: Condition, arguments: tuple[int, ...]) -> bool:
    argument, number = arguments[condition.index], condition.number
    return {
        "EQ": argument == number,
        "NE": argument != number,
        "LT": argument < number,
        "LE": argument <= number,
        "GT": argument > number,
        "GE": argument >= number,
        "MASKED_EQ": argument & number == condition.second,
    }[condition.op]


def expected(profile: Profile, architecture: str, nr: int, arguments: tuple[int, ...]) -> int:
    """The rules read one by one, with no cleverness."""
    table = seccomp.numbers(architecture)
    if architecture == "x86_64":
        nr &= ~X32
    named = {n for rule in profile.rules for name in rule.names for n in table.get(name, ())}
    rules = [r for r in profile.rules if any(nr in table.get(name, ()) for name in r.names)]
    for rule in rules:
        if not rule.conditions:
            return rule.action
    for rule in rules:
        if all(holds(condition, arguments) for condition in rule.conditions):
            return rule.action
    newest = max((n for n in named if n < 512), default=1 << 32)
    if not rules and nr > newest and profile.default_action & 0xFFFF0000 == ERRNO:
        return ENOSYS
    return profile.default_action


INTERESTING = [
    *range(48),
    *(8, 0x20000, 0x20008, 0xFFFFFFFF, 0x7E020000, 0x02000000, 0x10000000, 0x20000000, 0x1200011),
    *(1 << 32, (1 << 32) + 38, (1 << 32) + 2, (1 << 63), (1 << 64) - 1, (1 << 32) + 0x10000000),
]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    "held",
    [(), capabilities.DEFAULT, (*capabilities.DEFAULT, "CAP_SYS_ADMIN"), capabilities.NAMES],
    ids=["none", "default", "admin", "all"],
)
def test_every_call_is_decided_as_the_rules_say(machine: str, held: tuple[str, ...]) -> None:
    profile = seccomp.default_profile(held, machine)
    program = seccomp.compile_filter(profile, machine)
    chance = random.Random(1)
    for architecture, audit in seccomp.ARCHITECTURES[machine]:
        numbers = [*range(600), 0x0F0001, 0x0F0005, 0x0F0006, 0xFFFFFFFF, X32, X32 + 1, X32 + 520]
        guarded = {
            n
            for name in ("socket", "clone", "personality", "clone3")
            for n in seccomp.numbers(architecture).get(name, ())
        }
        for nr in numbers:
            firsts = INTERESTING if nr in guarded else [0, chance.choice(INTERESTING)]
            for first in firsts:
                arguments = (first, chance.choice(INTERESTING), chance.choice(INTERESTING), 0, 0, 0)
                found = run(program, audit, nr, arguments)
                assert found == expected(profile, architecture, nr, arguments), (
                    architecture,
                    nr,
                    arguments,
                )


@pytest.mark.parametrize("machine", MACHINES)
def test_a_foreign_architecture_is_killed(machine: str) -> None:
    program = seccomp.compile_filter(seccomp.default_profile((), machine), machine)
    for arch in (0, 0xC00000B7 if machine == "x86_64" else 0xC000003E, 0x80000016, 0xFFFFFFFF):
        assert run(program, arch, 0, ()) == KILL_PROCESS


def test_garbage_in_the_upper_half_of_a_socket_family_does_not_slip_past() -> None:
    """CVE-2026-31431: the kernel looks at 32 bits; 64 bits compared with "not 38" would allow."""
    program = seccomp.compile_filter(seccomp.default_profile((), "x86_64"), "x86_64")
    for family in (38, 40, (1 << 32) + 38, (7 << 32) + 40):
        assert run(program, 0xC000003E, 41, (family, 5, 0)) == EPERM
    for family in (1, 2, 10, 16, 17):
        assert run(program, 0xC000003E, 41, (family, 1, 0)) == ALLOW


def test_an_x32_call_is_judged_like_its_number() -> None:
    program = seccomp.compile_filter(seccomp.default_profile((), "x86_64"), "x86_64")
    assert run(program, 0xC000003E, X32 | 0, ()) == ALLOW  # read
    assert run(program, 0xC000003E, X32 | 165, ()) == EPERM  # mount
    assert run(program, 0xC000003E, X32 | 521, ()) == ALLOW  # ptrace by x32's own number


def test_a_profile_without_x32_refuses_it() -> None:
    profile = Profile(EPERM, (Rule(("read",), ALLOW),), ("x86_64",))
    program = seccomp.compile_filter(profile, "x86_64")
    assert run(program, 0xC000003E, 0, ()) == ALLOW
    assert run(program, 0xC000003E, X32 | 0, ()) == ENOSYS
    assert run(program, 0x40000003, 3, ()) == KILL_PROCESS


conditions = st.builds(
    Condition,
    index=st.integers(0, 5),
    op=st.sampled_from(seccomp.OPERATORS),
    number=st.sampled_from(INTERESTING) | st.integers(0, (1 << 64) - 1),
    second=st.sampled_from(INTERESTING),
)
rules = st.builds(
    Rule,
    names=st.lists(
        st.sampled_from(["read", "write", "socket", "clone", "removexattrat", "nonsense"]),
        min_size=1,
        max_size=3,
    ).map(tuple),
    action=st.sampled_from([ALLOW, EPERM, KILL_PROCESS, seccomp.LOG, ERRNO | 22]),
    conditions=st.lists(conditions, max_size=3).map(tuple),
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(rules, max_size=8),
    st.sampled_from([EPERM, ALLOW, KILL_PROCESS]),
    st.lists(st.tuples(*[st.sampled_from(INTERESTING)] * 6), min_size=1, max_size=8),
)
def test_any_profile_is_decided_as_its_rules_say(
    some: list[Rule], default_action: int, attempts: list[tuple[int, ...]]
) -> None:
    profile = Profile(default_action, tuple(some))
    program = seccomp.compile_filter(profile, "x86_64")
    for rule in some:  # and right at the edges
        for c in rule.conditions:
            for near in (c.number - 1, c.number, c.number + 1):
                attempts.append((near & ((1 << 64) - 1),) * 6)
    for arguments in attempts:
        for nr in (0, 1, 2, 41, 56, 466, 467, 511, 512):
            assert run(program, 0xC000003E, nr, arguments) == expected(
                profile, "x86_64", nr, arguments
            )


def test_a_profile_too_large_for_the_kernel_is_refused() -> None:
    many = tuple(
        Rule(("read",), ALLOW, (Condition(0, "EQ", n), Condition(1, "EQ", n))) for n in range(600)
    )
    with pytest.raises(seccomp.ProfileError, match="4096"):
        seccomp.compile_filter(Profile(EPERM, many), "x86_64")


def test_an_unknown_machine_is_refused_with_advice() -> None:
    with pytest.raises(seccomp.ProfileError) as failure:
        seccomp.compile_filter(seccomp.default_profile((), "riscv64"), "riscv64")
    assert "unconfined" in failure.value.hint


PODMAN = Path("/usr/share/containers/seccomp.json")


@pytest.mark.skipif(not PODMAN.exists(), reason="containers-common is not installed")
def test_against_the_profile_of_podman_that_debian_ships() -> None:
    """Podman allows more (mount, unshare, clone3 …, which Docker ties to CAP_SYS_ADMIN); what we
    allow and it does not are newer calls and three that Docker added."""
    theirs: set[str] = set()
    for rule in json.loads(PODMAN.read_text())["syscalls"]:
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule["includes"].get("caps"):
            theirs |= set(rule["names"])
    ours = set(seccomp_default.ALWAYS.split()) | {"socket", "personality", "clone"}
    newer = (
        "cachestat fchmodat2 futex_requeue futex_wait futex_waitv futex_wake getxattrat "
        "io_pgetevents io_pgetevents_time64 listmount listxattrat map_shadow_stack mseal "
        "removexattrat setxattrat statmount uretprobe vmsplice"
    )
    assert ours - theirs == set(newer.split())
    assert {"mount", "unshare", "clone3", "setns", "keyctl", "pivot_root"} <= theirs - ours


# --- in the kernel -------------------------------------------------------------------------------


def _confined(*actions: object) -> list[int]:
    program = seccomp.compile_filter(seccomp.default_profile(capabilities.DEFAULT))

    def inside() -> list[int]:
        syscalls.prctl(flags.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(program)
        return [errno_of(action) for action in actions]  # type: ignore[arg-type]

    return in_child(inside)


def test_cve_2022_0492_and_kin_a_container_cannot_mount_unshare_or_open_file_systems() -> None:
    assert (
        _confined(
            lambda: syscalls.mount("none", "/mnt", "tmpfs"),
            lambda: syscalls.unshare(flags.CLONE_NEWUSER),
            lambda: syscalls.unshare(flags.CLONE_NEWNS),
            lambda: syscalls.fsopen("ext4"),
            lambda: syscalls.setns(0, 0),
            lambda: syscalls.bpf(0, bytes(16)),
            lambda: syscalls.join_session_keyring("x"),
        )
        == [errno.EPERM] * 7
    )


def test_clone3_pretends_not_to_exist_so_that_the_c_library_falls_back() -> None:
    assert _confined(lambda: syscalls.clone3(), os.getpid) == [errno.ENOSYS, 0]


def test_cve_2026_31431_af_alg_cannot_be_opened() -> None:
    assert _confined(
        lambda: socket.socket(38, socket.SOCK_SEQPACKET),
        lambda: socket.socket(40, socket.SOCK_STREAM),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close(),
    ) == [errno.EPERM, errno.EPERM, 0, 0]


def test_personality_may_be_asked_but_not_made_executable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def personality(number: int) -> None:
        if libc.personality(ctypes.c_ulong(number)) == -1:
            raise OSError(ctypes.get_errno(), "personality")

    found = _confined(
        lambda: personality(0xFFFFFFFF),
        lambda: personality(0),
        lambda: personality(0x0400000),  # READ_IMPLIES_EXEC
        lambda: personality(0x0040000),  # ADDR_NO_RANDOMIZE
    )
    assert found == [0, 0, errno.EPERM, errno.EPERM]


def test_ordinary_programs_run() -> None:
    assert _confined(lambda: os.posix_spawn("/bin/true", ["true"], {}), os.fork) == [0, 0]
