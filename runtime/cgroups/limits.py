"""What a container may use, and which file of either cgroup version says so.

Pure: limits in, a list of settings out. A driver writes them; tests compare them.
"""

from __future__ import annotations

from ocispec.value import value
from runtime.errors import EngineError

UNLIMITED = -1
DEFAULT_PERIOD_US = 100_000


class InvalidLimits(EngineError):
    """Limits that contradict each other."""


@value
class Throttle:
    """A bound on one block device. `kind` is rbps, wbps, riops or wiops (bytes or operations/s)."""

    kind: str
    major: int
    minor: int
    rate: int

    def __post_init__(self) -> None:
        if self.kind not in _V1_THROTTLES or min(self.major, self.minor, self.rate) < 0:
            raise InvalidLimits(f"invalid device limit {self.kind} on {self.major}:{self.minor}")


@value
class Limits:
    """All optional: 0 and "" mean not asked for; -1 means explicitly without limit."""

    memory: int = 0  # bytes
    memory_swap: int = 0  # bytes of memory and swap together; 0 with memory set is twice memory
    memory_reservation: int = 0  # bytes kept under pressure
    swappiness: int = -1  # 0 to 100; -1 is not asked for
    oom_kill_disable: bool = False
    cpu_quota: int = 0  # microseconds per period
    cpu_period: int = 0  # microseconds; 0 is 100,000
    cpu_shares: int = 0  # relative weight, 1024 is normal
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cpuset_cpus: str = ""  # "0-3,5"
    cpuset_mems: str = ""
    pids: int = 0
    blkio_weight: int = 0  # 10 to 1000
    throttles: tuple[Throttle, ...] = ()

    def __post_init__(self) -> None:
        if self.memory > 0 and 0 < self.memory_swap < self.memory:
            raise InvalidLimits(
                "the limit of memory and swap together is below the memory limit",
                hint="--memory-swap is the sum of both; -1 is unlimited",
            )
        if self.memory_swap > 0 and self.memory <= 0:
            raise InvalidLimits("a swap limit needs a memory limit", hint="add --memory")
        if self.blkio_weight and not 10 <= self.blkio_weight <= 1000:
            raise InvalidLimits(f"block weight {self.blkio_weight} is not between 10 and 1000")
        if not -1 <= self.swappiness <= 100:
            raise InvalidLimits(f"swappiness {self.swappiness} is not between 0 and 100")
        for text in (self.cpuset_cpus, self.cpuset_mems):
            if not all(c in "0123456789,-" for c in text) or len(text) > 1024:
                raise InvalidLimits(f"invalid processor list {text[:80]!r}", hint="write 0-3,5")

    @classmethod
    def of_cpus(cls, cpus: float) -> int:
        """The quota of `--cpus 1.5` for the default period."""
        return round(cpus * DEFAULT_PERIOD_US)

    @property
    def swap_total(self) -> int:
        """The sum of memory and swap in force: -1 unlimited, 0 not limited by us."""
        if self.memory_swap:
            return self.memory_swap
        return 2 * self.memory if self.memory > 0 else 0

    @property
    def needs_cpuset(self) -> bool:
        return bool(self.cpuset_cpus or self.cpuset_mems)


@value
class Setting:
    """One write. An optional one may fail: the kernel was built without it."""

    controller: str
    file: str
    text: str
    optional: bool = False


_V1_THROTTLES = {
    "rbps": "read_bps",
    "wbps": "write_bps",
    "riops": "read_iops",
    "wiops": "write_iops",
}


def v1_settings(limits: Limits) -> tuple[tuple[Setting, ...], tuple[str, ...]]:
    """The writes for cgroup v1, in order, and sentences on what cannot be done."""
    out = []

    def add(controller: str, file: str, number: int | str, *, optional: bool = False) -> None:
        out.append(Setting(controller, file, str(number), optional))

    if limits.memory:
        add("memory", "memory.limit_in_bytes", limits.memory)
    if limits.swap_total:  # after the memory limit, which must not be above it
        add("memory", "memory.memsw.limit_in_bytes", limits.swap_total, optional=True)
    if limits.memory_reservation:
        add("memory", "memory.soft_limit_in_bytes", limits.memory_reservation)
    if limits.swappiness >= 0:
        add("memory", "memory.swappiness", limits.swappiness)
    if limits.oom_kill_disable:
        add("memory", "memory.oom_control", 1)
    if limits.cpu_period:
        add("cpu", "cpu.cfs_period_us", limits.cpu_period)
    if limits.cpu_quota:
        add("cpu", "cpu.cfs_quota_us", limits.cpu_quota)
    if limits.cpu_shares:
        add("cpu", "cpu.shares", limits.cpu_shares)
    if limits.cpu_rt_period:
        add("cpu", "cpu.rt_period_us", limits.cpu_rt_period)
    if limits.cpu_rt_runtime:
        add("cpu", "cpu.rt_runtime_us", limits.cpu_rt_runtime)
    if limits.cpuset_cpus:
        add("cpuset", "cpuset.cpus", limits.cpuset_cpus)
    if limits.cpuset_mems:
        add("cpuset", "cpuset.mems", limits.cpuset_mems)
    if limits.pids:
        add("pids", "pids.max", _or_max(limits.pids))
    if limits.blkio_weight:
        add("blkio", "blkio.weight", limits.blkio_weight, optional=True)
        add("blkio", "blkio.bfq.weight", limits.blkio_weight, optional=True)
    for throttle in limits.throttles:
        file = f"blkio.throttle.{_V1_THROTTLES[throttle.kind]}_device"
        add("blkio", file, f"{throttle.major}:{throttle.minor} {throttle.rate}")
    return tuple(out), ()


def v2_settings(limits: Limits) -> tuple[tuple[Setting, ...], tuple[str, ...]]:
    """The writes for cgroup v2, in order, and sentences on what v2 does not have."""
    out = []

    def add(controller: str, file: str, number: int | str, *, optional: bool = False) -> None:
        out.append(Setting(controller, file, str(number), optional))

    if limits.memory:
        add("memory", "memory.max", _or_max(limits.memory))
    if limits.swap_total:
        total = limits.swap_total
        swap = total if total < 0 else total - limits.memory
        add("memory", "memory.swap.max", _or_max(swap, zero_is_max=False), optional=True)
    if limits.memory_reservation:
        add("memory", "memory.low", _or_max(limits.memory_reservation))
    if limits.cpu_quota or limits.cpu_period:
        quota = _or_max(limits.cpu_quota)
        add("cpu", "cpu.max", f"{quota} {limits.cpu_period or DEFAULT_PERIOD_US}")
    if limits.cpu_shares:
        add("cpu", "cpu.weight", cpu_weight(limits.cpu_shares))
    if limits.cpuset_cpus:
        add("cpuset", "cpuset.cpus", limits.cpuset_cpus)
    if limits.cpuset_mems:
        add("cpuset", "cpuset.mems", limits.cpuset_mems)
    if limits.pids:
        add("pids", "pids.max", _or_max(limits.pids))
    if limits.blkio_weight:
        add("io", "io.bfq.weight", limits.blkio_weight, optional=True)
        add("io", "io.weight", f"default {io_weight(limits.blkio_weight)}", optional=True)
    for throttle in limits.throttles:
        device = f"{throttle.major}:{throttle.minor}"
        add("io", "io.max", f"{device} {throttle.kind}={throttle.rate or 'max'}")
    warnings = []
    if limits.swappiness >= 0:
        warnings.append("cgroup v2 has no swappiness per container; it is ignored")
    if limits.oom_kill_disable:
        warnings.append("cgroup v2 cannot switch the OOM killer off; it is ignored")
    if limits.cpu_rt_period or limits.cpu_rt_runtime:
        warnings.append("cgroup v2 has no real-time budget per container; it is ignored")
    return tuple(out), tuple(warnings)


def _or_max(number: int, *, zero_is_max: bool = True) -> str:
    return "max" if number < 0 or (number == 0 and zero_is_max) else str(number)


def cpu_weight(shares: int) -> int:
    """v1 shares (2 to 262144) as a v2 weight (1 to 10000), normal being 1024 and 100.

    The curve of runc 1.3.2 and crun 1.23; the older straight line gave 39 for normal.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    import math  # a fifth of a millisecond that only v2 with --cpu-shares pays

    level = math.log2(shares)
    exponent = (level * level + 125 * level) / 612 - 7 / 34
    return math.ceil(round(10**exponent, 9))  # rounding: 1024 must give 100, not 100.00…01


def io_weight(weight: int) -> int:
    """A blkio weight (10 to 1000) as an io weight (1 to 10000)."""
    return 1 + (weight - 10) * 9999 // 990
