from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.linux import capabilities, seccomp
from runtime.linux.seccomp import ALLOW, ERRNO, KILL_THREAD, Condition, ProfileError, Rule
from runtime.linux.seccomp_profile import kernel_version, parse_profile
from tests.runtime.linux.bpf_machine import run

X86_64 = 0xC000003E


def _parse(document: Any, held: tuple[str, ...] = (), **settings: Any) -> seccomp.Profile:
    settings = {"machine": "x86_64", "kernel": (6, 1)} | settings
    return parse_profile(json.dumps(document).encode(), held, **settings)


def _one(**entry: Any) -> dict[str, Any]:
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"} | entry],
    }


def test_a_small_profile() -> None:
    profile = _parse(
        {
            "defaultAction": "SCMP_ACT_KILL",
            "archMap": [
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            ],
            "syscalls": [
                {
                    "names": ["socket"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 22,
                    "args": [{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"}],
                },
            ],
        }
    )
    assert profile.default_action == KILL_THREAD and profile.architectures == ("x86_64", "x86")
    assert profile.rules == (Rule(("socket",), ERRNO | 22, (Condition(0, "EQ", 16),)),)


@pytest.mark.parametrize(
    ("entry", "held", "applies"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, ("CAP_SYS_ADMIN",), True),
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, (), False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, ("CAP_SYS_ADMIN",), False),
        ({"includes": {"arches": ["amd64", "x32"]}}, (), True),
        ({"includes": {"arches": ["s390"]}}, (), False),
        ({"excludes": {"arches": ["amd64"]}}, (), False),
        ({"includes": {"minKernel": "4.8"}}, (), True),
        ({"includes": {"minKernel": "6.2"}}, (), False),
        ({"excludes": {"minKernel": "6.1"}}, (), False),
        ({"includes": {}, "excludes": None, "args": None}, (), True),
    ],
)
def test_what_a_rule_depends_on(
    entry: dict[str, Any], held: tuple[str, ...], applies: bool
) -> None:
    assert bool(_parse(_one(**entry), held).rules) is applies


def test_several_conditions_on_one_argument_are_alternatives_as_in_runc() -> None:
    args = [{"index": 0, "value": n, "op": "SCMP_CMP_EQ"} for n in (1, 2)]
    program = seccomp.compile_filter(_parse(_one(args=args)), "x86_64")
    assert [run(program, X86_64, 0, (n,)) for n in (0, 1, 2, 3)] == [
        ERRNO | errno.EPERM, ALLOW, ALLOW, ERRNO | errno.EPERM,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "document",
    [
        [], 1, {}, {"defaultAction": "SCMP_ACT_FLY"}, {"defaultAction": "SCMP_ACT_NOTIFY"},
        _one(args=[{"index": 9, "value": 0, "op": "SCMP_CMP_EQ"}]),
        _one(args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]),
        _one(args=[{"index": 0, "value": 1.5, "op": "SCMP_CMP_EQ"}]),
        _one(args=[{"index": 0, "value": 1, "op": "SCMP_CMP_ALMOST"}]),
        _one(action="SCMP_ACT_ERRNO", errnoRet=99999), _one(names=[1]), _one(names=None),
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]},
    ],
)  # fmt: skip
def test_what_does_not_follow_the_format_is_refused(document: Any) -> None:
    with pytest.raises(ProfileError):
        _parse(document)


@given(st.binary(max_size=100))
def test_arbitrary_bytes_raise_only_the_declared_error(document: bytes) -> None:
    with pytest.raises(ProfileError):
        parse_profile(document, ())


def test_bombs_are_refused() -> None:
    for document in (b"[" * 100_000, b" " * (2 << 20)):
        with pytest.raises(ProfileError):
            parse_profile(document, ())


@pytest.mark.parametrize(
    ("release", "expected"),
    [("6.1.0-25-amd64", (6, 1)), ("4.8", (4, 8)), ("6.18-rc1", (6, 18)), ("odd", (0, 0))],
)
def test_kernel_versions(release: str, expected: tuple[int, int]) -> None:
    assert kernel_version(release) == expected


PODMAN = Path("/usr/share/containers/seccomp.json")


@pytest.mark.skipif(not PODMAN.exists(), reason="containers-common is not installed")
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_profile_of_podman_compiles_and_means_what_it_says(machine: str) -> None:
    profile = parse_profile(PODMAN.read_bytes(), capabilities.DEFAULT, machine=machine)
    program = seccomp.compile_filter(profile, machine)
    audit = dict(seccomp.ARCHITECTURES[machine])[machine]

    def verdict(name: str, *arguments: int) -> int:
        return run(program, audit, seccomp.numbers(machine)[name][0], arguments)

    assert verdict("mount") == ALLOW and verdict("clone3") == ALLOW
    assert verdict("fanotify_init") == ERRNO | errno.EPERM
    assert verdict("swapon") == ERRNO | errno.EPERM
    assert verdict("io_uring_setup") == ERRNO | errno.ENOSYS
    assert verdict("personality", 8) == ALLOW
    assert verdict("personality", 9) == ERRNO | errno.ENOSYS
    assert verdict("socket", 16, 3, 9) == ALLOW  # the default capabilities hold AUDIT_WRITE
    without = parse_profile(PODMAN.read_bytes(), (), machine=machine)
    refusing = seccomp.compile_filter(without, machine)
    number = seccomp.numbers(machine)["socket"][0]
    assert run(refusing, audit, number, (16, 3, 9)) == ERRNO | errno.EINVAL
    assert run(refusing, audit, number, (2, 1, 0)) == ALLOW
