"""Limits of one control group, and the plan that turns them into files to write: pure, nothing here touches the kernel.

Source  kernel Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/*.rst; OCI runtime-spec config-linux.md, whose
        version 1 values (shares, blkio weight, memory+swap) are converted to version 2 as runc and crun convert them.
Rules   - `None` means "not limited, write nothing"; -1 (also 0 for pids) means "lift the limit".
        - the files of version 1 and 2 differ, and a hybrid host may need some of each: see `without`.
        - what a version cannot express raises Unsupported; no limit is ever ignored.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from minidocker.errors import InvalidArgument, Unsupported

DEFAULT_CPU_PERIOD_US = 100_000

_FIELD_PREFIXES = {
    "cpu": ("cpu_",),
    "cpuset": ("cpuset_",),
    "io": ("io_",),
    "memory": ("memory_", "swappiness", "oom_"),
    "pids": ("pids",),
}


@dataclass(frozen=True, slots=True)
class IoMax:
    """Ceilings of one block device, in bytes or operations a second; 0 lifts one, None leaves it as it is."""

    major: int
    minor: int
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@dataclass(frozen=True, slots=True)
class IoWeight:
    """Share of one block device, 10 to 1000 as in version 1."""

    major: int
    minor: int
    weight: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one group may use. Values are those of the OCI runtime-spec's `linux.resources` (version 1's scales)."""

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None  # memory and swap together, as in version 1
    memory_reservation_bytes: int | None = None
    swappiness: int | None = None
    oom_kill_disable: bool | None = None
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    cpu_rt_runtime_us: int | None = None
    cpu_rt_period_us: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    io_weight: int | None = None
    io_weight_devices: tuple[IoWeight, ...] = ()
    io_max: tuple[IoMax, ...] = ()
    unified: tuple[tuple[str, str], ...] = ()  # (file, value) pairs for version 2, written as they are


class Write(NamedTuple):
    """One value for one file of one controller."""

    controller: str
    file: str
    value: str


def plan(limits: Limits, version: str) -> list[Write]:
    """The files to write, in order, for `limits`.

    version  "v2", or "v1" ("hybrid" is read as "v1": its controllers are version 1's).
    Raises   InvalidArgument: values that contradict each other; Unsupported: that version has no such limit.

    >>> plan(Limits(memory_bytes=64 << 20), "v2")
    [Write(controller='memory', file='memory.max', value='67108864')]
    """
    _check(limits)
    return list(_plan_v2(limits) if version == "v2" else _plan_v1(limits))


def without(limits: Limits, controllers: frozenset[str]) -> Limits:
    """`limits` less those of `controllers` (by version 2's names: cpu, cpuset, io, memory, pids)."""
    gone = tuple(prefix for name in controllers for prefix in _FIELD_PREFIXES[name])
    dropped: dict[str, Any] = {field.name: field.default for field in fields(limits) if field.name.startswith(gone)}
    kept = tuple(pair for pair in limits.unified if pair[0].partition(".")[0] not in controllers)
    return replace(limits, **dropped, unified=kept)


def weight_from_shares(shares: int) -> int:
    """Version 2's cpu.weight (1 to 10000) for version 1's cpu.shares (2 to 262144); 0 stays 0, "not set"."""
    shares = min(max(shares, 2), 262_144) if shares else 0
    return 1 + (shares - 2) * 9999 // 262_142 if shares else 0


def io_weight_from_blkio(weight: int) -> int:
    """Version 2's io.weight (1 to 10000) for version 1's blkio.weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def swap_alone(memory_bytes: int | None, memory_swap_bytes: int) -> int:
    """Version 2 limits swap alone, version 1 memory and swap together: -1 for "as much as there is"."""
    if memory_swap_bytes == -1:
        return -1
    if memory_bytes is None or memory_bytes < 0:
        raise InvalidArgument("memory and swap are limited together: set the memory limit as well")
    if memory_swap_bytes < memory_bytes:
        raise InvalidArgument(
            f"memory and swap together ({memory_swap_bytes} bytes) must not be less than memory ({memory_bytes} bytes)"
        )
    return memory_swap_bytes - memory_bytes


def _check(limits: Limits) -> None:
    if limits.memory_swap_bytes and limits.memory_bytes:
        swap_alone(limits.memory_bytes, limits.memory_swap_bytes)
    for weight in (limits.io_weight, *(device.weight for device in limits.io_weight_devices)):
        if weight and not 10 <= weight <= 1000:
            raise InvalidArgument(f"block I/O weight {weight} is outside 10 to 1000")


def _max_or(value: int, *, lifted_by_zero: bool = False) -> str:
    return "max" if value < 0 or (lifted_by_zero and value == 0) else str(value)


def _plan_v2(limits: Limits) -> Iterator[Write]:
    if limits.swappiness is not None:
        raise Unsupported("memory swappiness cannot be set on cgroup v2: it has no such file")
    if limits.oom_kill_disable:
        raise Unsupported("the OOM killer cannot be disabled on cgroup v2: it has no such file")
    if limits.cpu_rt_runtime_us or limits.cpu_rt_period_us:
        raise Unsupported("real-time CPU time cannot be limited on cgroup v2: it has no such file")
    if limits.memory_swap_bytes:
        swap = swap_alone(limits.memory_bytes, limits.memory_swap_bytes)
        yield Write("memory", "memory.swap.max", _max_or(swap))
    if limits.memory_bytes:
        yield Write("memory", "memory.max", _max_or(limits.memory_bytes))
    if limits.memory_reservation_bytes:
        yield Write("memory", "memory.low", _max_or(limits.memory_reservation_bytes))
    if limits.cpu_shares:
        yield Write("cpu", "cpu.weight", str(weight_from_shares(limits.cpu_shares)))
    if limits.cpu_quota_us or limits.cpu_period_us:
        quota = _max_or(limits.cpu_quota_us or -1)
        yield Write("cpu", "cpu.max", f"{quota} {limits.cpu_period_us or DEFAULT_CPU_PERIOD_US}")
    yield from _plan_cpuset(limits)
    if limits.pids is not None:
        yield Write("pids", "pids.max", _max_or(limits.pids, lifted_by_zero=True))
    if limits.io_weight:
        yield Write("io", "io.weight", f"default {io_weight_from_blkio(limits.io_weight)}")
    for share in limits.io_weight_devices:
        yield Write("io", "io.weight", f"{share.major}:{share.minor} {io_weight_from_blkio(share.weight)}")
    for device in limits.io_max:
        words = {"rbps": device.read_bps, "wbps": device.write_bps}
        words |= {"riops": device.read_iops, "wiops": device.write_iops}
        ceilings = [f"{word}={value or 'max'}" for word, value in words.items() if value is not None]
        yield Write("io", "io.max", " ".join([f"{device.major}:{device.minor}", *ceilings]))
    for file, value in limits.unified:
        if "/" in file or "." not in file:
            raise InvalidArgument(f"{file!r} is not a cgroup file's name")
        yield Write(file.partition(".")[0], file, value)


def _plan_v1(limits: Limits) -> Iterator[Write]:
    if limits.unified:
        raise Unsupported(f"{limits.unified[0][0]} is a file of cgroup v2, this host's controllers are version 1's")
    memory: dict[str, int | None] = {
        "memory.limit_in_bytes": limits.memory_bytes or None,
        "memory.memsw.limit_in_bytes": limits.memory_swap_bytes or None,
        "memory.soft_limit_in_bytes": limits.memory_reservation_bytes or None,
        "memory.swappiness": limits.swappiness,
        # 0 is the default of a new group; only "1" needs the file.
        "memory.oom_control": 1 if limits.oom_kill_disable else None,
    }
    yield from _numbers("memory", memory)
    # The real-time period before its runtime, the period before the quota: the second is checked against the first.
    cpu: dict[str, int | None] = {
        "cpu.shares": limits.cpu_shares or None,
        "cpu.cfs_period_us": limits.cpu_period_us or None,
        "cpu.cfs_quota_us": limits.cpu_quota_us or None,
        "cpu.rt_period_us": limits.cpu_rt_period_us or None,
        "cpu.rt_runtime_us": limits.cpu_rt_runtime_us or None,
    }
    yield from _numbers("cpu", cpu)
    yield from _plan_cpuset(limits)
    if limits.pids is not None:
        yield Write("pids", "pids.max", _max_or(limits.pids, lifted_by_zero=True))
    yield from _numbers("blkio", {"blkio.weight": limits.io_weight or None})
    for share in limits.io_weight_devices:
        yield Write("blkio", "blkio.weight_device", f"{share.major}:{share.minor} {share.weight}")
    for device in limits.io_max:
        throttle = {"read_bps": device.read_bps, "write_bps": device.write_bps}
        throttle |= {"read_iops": device.read_iops, "write_iops": device.write_iops}
        for word, value in throttle.items():
            if value is not None:
                yield Write("blkio", f"blkio.throttle.{word}_device", f"{device.major}:{device.minor} {value}")


def _plan_cpuset(limits: Limits) -> Iterator[Write]:
    if limits.cpuset_mems:
        yield Write("cpuset", "cpuset.mems", limits.cpuset_mems)
    if limits.cpuset_cpus:
        yield Write("cpuset", "cpuset.cpus", limits.cpuset_cpus)


def _numbers(controller: str, files: dict[str, int | None]) -> Iterator[Write]:
    for file, value in files.items():
        if value is not None:
            yield Write(controller, file, str(value))
