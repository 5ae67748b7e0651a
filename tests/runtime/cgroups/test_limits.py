"""Limits as data: which file of v1 and of v2 each one becomes."""

from __future__ import annotations

import pytest

from runtime.cgroups.limits import (
    InvalidLimits,
    Limits,
    Throttle,
    cpu_weight,
    io_weight,
    v1_settings,
    v2_settings,
)

MIB = 1 << 20


def written(settings: object) -> dict[str, str]:
    return {s.file: s.text for s in settings}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("limits", "v1", "v2", "why"),
    [
        (Limits(), {}, {}, "nothing asked for"),
        (
            Limits(memory=64 * MIB),
            {
                "memory.limit_in_bytes": str(64 * MIB),
                "memory.memsw.limit_in_bytes": str(128 * MIB),
            },
            {"memory.max": str(64 * MIB), "memory.swap.max": str(64 * MIB)},
            "as much swap as memory, as Docker does",
        ),
        (
            Limits(memory=64 * MIB, memory_swap=64 * MIB),
            {
                "memory.limit_in_bytes": str(64 * MIB),
                "memory.memsw.limit_in_bytes": str(64 * MIB),
            },
            {"memory.max": str(64 * MIB), "memory.swap.max": "0"},
            "no swap",
        ),
        (
            Limits(memory=64 * MIB, memory_swap=-1),
            {"memory.limit_in_bytes": str(64 * MIB), "memory.memsw.limit_in_bytes": "-1"},
            {"memory.max": str(64 * MIB), "memory.swap.max": "max"},
            "any swap",
        ),
        (
            Limits(memory_reservation=MIB),
            {"memory.soft_limit_in_bytes": str(MIB)},
            {"memory.low": str(MIB)},
            "reservation",
        ),
        (
            Limits(cpu_quota=Limits.of_cpus(1.5)),
            {"cpu.cfs_quota_us": "150000"},
            {"cpu.max": "150000 100000"},
            "--cpus 1.5",
        ),
        (
            Limits(cpu_period=50_000, cpu_quota=-1),
            {"cpu.cfs_period_us": "50000", "cpu.cfs_quota_us": "-1"},
            {"cpu.max": "max 50000"},
            "period before quota",
        ),
        (Limits(cpu_shares=512), {"cpu.shares": "512"}, {"cpu.weight": "59"}, "shares"),
        (Limits(pids=100), {"pids.max": "100"}, {"pids.max": "100"}, "pids"),
        (Limits(pids=-1), {"pids.max": "max"}, {"pids.max": "max"}, "any number of pids"),
        (
            Limits(cpuset_cpus="0-1", cpuset_mems="0"),
            {"cpuset.cpus": "0-1", "cpuset.mems": "0"},
            {"cpuset.cpus": "0-1", "cpuset.mems": "0"},
            "cpuset",
        ),
        (
            Limits(blkio_weight=500),
            {"blkio.weight": "500", "blkio.bfq.weight": "500"},
            {"io.bfq.weight": "500", "io.weight": "default 4950"},
            "whichever the kernel has",
        ),
        (
            Limits(throttles=(Throttle("rbps", 8, 0, MIB),)),
            {"blkio.throttle.read_bps_device": f"8:0 {MIB}"},
            {"io.max": f"8:0 rbps={MIB}"},
            "read bytes per second",
        ),
        (
            Limits(throttles=(Throttle("wiops", 8, 16, 0),)),
            {"blkio.throttle.write_iops_device": "8:16 0"},
            {"io.max": "8:16 wiops=max"},
            "0 lifts the bound",
        ),
    ],
)
def test_each_limit(limits: Limits, v1: dict[str, str], v2: dict[str, str], why: str) -> None:
    assert written(v1_settings(limits)[0]) == v1, why
    assert written(v2_settings(limits)[0]) == v2, why


def test_order_matters_memory_before_the_sum_and_period_before_quota() -> None:
    settings, _ = v1_settings(Limits(memory=MIB, cpu_quota=5000, cpu_period=10000))
    assert [s.file for s in settings] == [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
    ]


def test_swap_accounting_may_be_missing_from_the_kernel() -> None:
    settings, _ = v1_settings(Limits(memory=MIB))
    assert [s.optional for s in settings] == [False, True]


@pytest.mark.parametrize(
    "limits",
    [Limits(swappiness=0), Limits(oom_kill_disable=True), Limits(cpu_rt_runtime=1)],
    ids=["swappiness", "oom", "realtime"],
)
def test_v2_says_what_it_does_not_have(limits: Limits) -> None:
    assert v1_settings(limits)[0] and not v1_settings(limits)[1]
    settings, warnings = v2_settings(limits)
    assert settings == () and len(warnings) == 1 and "ignored" in warnings[0]


@pytest.mark.parametrize(
    ("shares", "weight"),
    [(0, 1), (2, 1), (3, 2), (1024, 100), (2048, 174), (262144, 10000), (1 << 20, 10000)],
)
def test_shares_become_weights_by_the_new_curve(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_weights_never_fall_as_shares_rise() -> None:
    weights = [cpu_weight(shares) for shares in range(2, 5000)]
    assert weights == sorted(weights)


def test_block_weights() -> None:
    assert (io_weight(10), io_weight(1000)) == (1, 10000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": 2 * MIB, "memory_swap": MIB},
        {"memory_swap": MIB},
        {"blkio_weight": 5},
        {"blkio_weight": 1001},
        {"swappiness": 101},
        {"cpuset_cpus": "0;reboot"},
        {"cpuset_cpus": "0," * 1000},
    ],
)
def test_contradictions_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidLimits):
        Limits(**wrong)  # type: ignore[arg-type]
