"""What a control group has used so far, read from version 1 or version 2 files into one shape.

Source  kernel Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/{memory,cpuacct,blkio-controller,pids}.rst; the
        numbers are those that Docker's `GET /containers/{id}/stats` reports.
Rules   - times are in nanoseconds, sizes in bytes, whatever the file's unit.
        - a file that is not there gives 0, an empty table or None: an absent controller is no failure.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

# Version 1 says "no limit" by the largest page-aligned number.
_UNLIMITED_BYTES = 1 << 62
_IO_OPS = {"rbytes": "read", "wbytes": "write"}

Read = Callable[[str, str], str]
"""(controller, file) -> the file's text, "" where there is none."""


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor time. `percpu_ns` is empty on version 2, which does not count by processor."""

    total_ns: int = 0
    user_ns: int = 0
    kernel_ns: int = 0
    percpu_ns: tuple[int, ...] = ()
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory. `limit_bytes` None: not limited; `failcnt` is None on version 2, which has no such count."""

    usage_bytes: int = 0
    max_usage_bytes: int | None = None
    limit_bytes: int | None = None
    failcnt: int | None = None
    stats: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pids:
    """Tasks. `limit` None: not limited."""

    current: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class IoEntry:
    """Bytes or operations of one device, by kind ("Read", "Write", .. on version 1; "read", "write" on 2)."""

    major: int
    minor: int
    op: str
    value: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """One reading of one group."""

    cpu: Cpu
    memory: Memory
    pids: Pids
    io_service_bytes: tuple[IoEntry, ...]
    io_serviced: tuple[IoEntry, ...] = ()  # operations; only version 1 tells of them in Docker's shape


def gather(read: Read, *, unified: frozenset[str], v1: frozenset[str]) -> Statistics:
    """Read all statistics of one group through `read`.

    unified, v1  the controllers found in the version 2 tree and in version 1 trees.
    """
    return Statistics(
        cpu=_cpu_v1(read) if "cpuacct" in v1 else _cpu_v2(read),
        memory=_memory_v1(read) if "memory" in v1 else _memory_v2(read) if "memory" in unified else Memory(),
        pids=Pids(_number(read("pids", "pids.current")), _limit(read("pids", "pids.max"))),
        io_service_bytes=_io_v1(read, "io_service_bytes") if "blkio" in v1 else _io_v2(read),
        io_serviced=_io_v1(read, "io_serviced") if "blkio" in v1 else (),
    )


def table(text: str) -> dict[str, int]:
    """Lines of "key number" as a dictionary; other lines are passed over."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2 and row[1].isdigit()}


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _limit(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isdigit() and int(text) < _UNLIMITED_BYTES else None


def _cpu_v1(read: Read) -> Cpu:
    throttling = table(read("cpu", "cpu.stat"))
    user, kernel = read("cpuacct", "cpuacct.usage_user"), read("cpuacct", "cpuacct.usage_sys")
    if user:
        user_ns, kernel_ns = _number(user), _number(kernel)
    else:  # before Linux 4.6: ticks only
        tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        ticks = table(read("cpuacct", "cpuacct.stat"))
        user_ns, kernel_ns = ticks.get("user", 0) * tick_ns, ticks.get("system", 0) * tick_ns
    return Cpu(
        total_ns=_number(read("cpuacct", "cpuacct.usage")),
        user_ns=user_ns,
        kernel_ns=kernel_ns,
        percpu_ns=tuple(map(int, read("cpuacct", "cpuacct.usage_percpu").split())),
        periods=throttling.get("nr_periods", 0),
        throttled_periods=throttling.get("nr_throttled", 0),
        throttled_ns=throttling.get("throttled_time", 0),
    )


def _cpu_v2(read: Read) -> Cpu:
    counts = table(read("", "cpu.stat"))  # every version 2 group has it, with or without the controller
    return Cpu(
        total_ns=counts.get("usage_usec", 0) * 1000,
        user_ns=counts.get("user_usec", 0) * 1000,
        kernel_ns=counts.get("system_usec", 0) * 1000,
        periods=counts.get("nr_periods", 0),
        throttled_periods=counts.get("nr_throttled", 0),
        throttled_ns=counts.get("throttled_usec", 0) * 1000,
    )


def _memory_v1(read: Read) -> Memory:
    return Memory(
        usage_bytes=_number(read("memory", "memory.usage_in_bytes")),
        max_usage_bytes=_number(read("memory", "memory.max_usage_in_bytes")),
        limit_bytes=_limit(read("memory", "memory.limit_in_bytes")),
        failcnt=_number(read("memory", "memory.failcnt")),
        stats=table(read("memory", "memory.stat")),
    )


def _memory_v2(read: Read) -> Memory:
    peak = read("memory", "memory.peak")  # since Linux 5.19
    return Memory(
        usage_bytes=_number(read("memory", "memory.current")),
        max_usage_bytes=_number(peak) if peak else None,
        limit_bytes=_limit(read("memory", "memory.max")),
        stats=table(read("memory", "memory.stat")),
    )


def _io_v1(read: Read, what: str) -> tuple[IoEntry, ...]:
    entries = []
    for line in read("blkio", f"blkio.throttle.{what}_recursive").splitlines():
        device, *rest = line.split()
        if len(rest) == 2:  # the last line is a grand total without a device
            major, minor = device.split(":")
            entries.append(IoEntry(int(major), int(minor), rest[0], int(rest[1])))
    return tuple(entries)


def _io_v2(read: Read) -> tuple[IoEntry, ...]:
    entries = []
    for line in read("io", "io.stat").splitlines():
        device, *rest = line.split()
        if ":" not in device:
            continue
        major, minor = device.split(":")
        counts = dict(word.split("=", 1) for word in rest if "=" in word)
        for key, op in _IO_OPS.items():
            if key in counts:
                entries.append(IoEntry(int(major), int(minor), op, int(counts[key])))
    return tuple(entries)
