"""What this host's kernel can limit, and what becomes of a wish that it cannot fulfil.

Source  moby daemon/daemon_unix.go (verifyPlatformContainerResources) and its sysinfo: which wish is dropped with
        which warning, and which is refused.
Rules   - what Docker drops with a warning is dropped here with the same words; the record shows what holds.
        - processors and memory nodes that are not there are refused.
        - looked at once an engine: control groups do not change while it runs.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from minidocker.engine.containers.config import HostConfig
from minidocker.errors import InvalidArgument
from minidocker.linux import cgroups

_MOUNTED = "or the cgroup is not mounted."
_WEIGHT_FILES = ("blkio.weight", "blkio.bfq.weight", "io.weight", "io.bfq.weight")
_THROTTLES = (
    ("blkio_device_read_bps", "BPS", "read"), ("blkio_device_write_bps", "BPS", "write"),
    ("blkio_device_read_iops", "IOPS", "read"), ("blkio_device_write_iops", "IOPS", "write"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Abilities:
    """What can be limited. cpus, memory_nodes: as the kernel lists them ("0-3")."""

    memory: bool = True
    swap: bool = True
    swappiness: bool = True
    oom_kill_disable: bool = True
    pids: bool = True
    cpu: bool = True
    cpuset: bool = True
    io_weight: bool = True
    io_throttle: bool = True
    cpus: str = "0"
    memory_nodes: str = "0"
    processors: int = 1

    @classmethod
    def detect(cls) -> "Abilities":
        """Look at this host."""
        found, version_2 = cgroups.controllers(), cgroups.version() == "v2"
        memory = "memory" in found
        io = found.get("blkio") or found.get("io")
        return cls(
            memory=memory,
            swap=memory and cgroups.swap_limit(),
            swappiness=memory and not version_2,
            oom_kill_disable=memory and not version_2,
            pids="pids" in found,
            cpu="cpu" in found,
            cpuset="cpuset" in found,
            io_weight=io is not None and _has_weight(io),
            io_throttle=io is not None,
            cpus=_line("/sys/devices/system/cpu/online", "0"),
            memory_nodes=_line("/sys/devices/system/node/online", "0"),
            processors=os.sysconf("SC_NPROCESSORS_ONLN"),
        )

    def warnings(self) -> list[str]:
        """What `docker info` warns of."""
        missing = (
            (self.memory, "memory limit"), (self.swap, "swap limit"), (self.cpu, "cpu cfs quota"),
            (self.cpu, "cpu cfs period"), (self.cpu, "cpu shares"), (self.cpuset, "cpuset"),
        )  # fmt: skip
        return [f"WARNING: No {what} support" for able, what in missing if not able]


def _has_weight(tree: Path) -> bool:
    """A root group has no weight on version 2, so groups below it are looked at as well."""
    groups = [tree, *(entry for entry in tree.iterdir() if entry.is_dir())]
    return any((group / file).exists() for group in groups for file in _WEIGHT_FILES)


def _line(path: str, default: str) -> str:
    try:
        return Path(path).read_text().strip() or default
    except OSError:
        return default


def number_set(text: str) -> set[int]:
    """The numbers of a list such as `0-2,5`. Raises InvalidArgument: not such a list.

    >>> sorted(number_set("0-2,5"))
    [0, 1, 2, 5]
    """
    found: set[int] = set()
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or len(low) > 5 or len(high) > 5:
            raise InvalidArgument(f"invalid format: {text}")
        found |= set(range(int(low), int(high or low) + 1))
    return found


def adapt(host: HostConfig, abilities: Abilities) -> tuple[HostConfig, list[str]]:
    """`host` without what this kernel cannot limit, and a warning for each wish that was dropped.

    Raises  InvalidArgument: processors or memory nodes that are not there.
    """
    adapted, warnings = msgspec.structs.replace(host), list[str]()
    _adapt_memory(adapted, abilities, warnings.append)
    _adapt_cpu(adapted, abilities, warnings.append)
    _adapt_io(adapted, abilities, warnings.append)
    if host.pids_limit and not abilities.pids:
        warnings.append(f"Your kernel does not support PIDs limit capabilities {_MOUNTED} PIDs limit discarded.")
        adapted.pids_limit = None
    return adapted, warnings


def _adapt_memory(host: HostConfig, abilities: Abilities, warn: Callable[[str], None]) -> None:
    kernel = "Your kernel does not support"
    if host.memory > 0 and not abilities.memory:
        warn(f"{kernel} memory limit capabilities {_MOUNTED} Limitation discarded.")
        host.memory, host.memory_swap = 0, -1
    if host.memory > 0 and host.memory_swap != -1 and not abilities.swap:
        warn(f"{kernel} swap limit capabilities {_MOUNTED} Memory limited without swap.")
        host.memory_swap = -1
    if host.memory_swappiness is not None and not abilities.swappiness:
        warn(f"{kernel} memory swappiness capabilities {_MOUNTED} Memory swappiness discarded.")
        host.memory_swappiness = None
    if host.kernel_memory:
        warn(f"{kernel} kernel memory limit capabilities {_MOUNTED} Limitation discarded.")
        host.kernel_memory = 0
    if host.memory_reservation > 0 and not abilities.memory:
        warn(f"{kernel} memory soft limit capabilities {_MOUNTED} Limitation discarded.")
        host.memory_reservation = 0
    if host.oom_kill_disable is not None and not abilities.oom_kill_disable:
        if host.oom_kill_disable:
            warn(f"{kernel} OomKillDisable. OomKillDisable discarded.")
        host.oom_kill_disable = None
    if host.oom_kill_disable and host.memory == 0:
        warn(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system "
            "running out of resources."
        )


def _adapt_cpu(host: HostConfig, abilities: Abilities, warn: Callable[[str], None]) -> None:
    kernel = "Your kernel does not support"
    if host.nano_cpus and not abilities.cpu:
        raise InvalidArgument(
            "NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted"
        )
    if host.nano_cpus > abilities.processors * 1_000_000_000:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {abilities.processors}.00, as there are only {abilities.processors} CPUs "
            "available"
        )
    if host.cpu_shares and not abilities.cpu:
        warn(f"{kernel} CPU shares {_MOUNTED} Shares discarded.")
        host.cpu_shares = 0
    if (host.cpu_period or host.cpu_quota) and not abilities.cpu:
        warn(f"{kernel} CPU CFS scheduler {_MOUNTED} Period and quota discarded.")
        host.cpu_period = host.cpu_quota = 0
    if (host.cpuset_cpus or host.cpuset_mems) and not abilities.cpuset:
        warn(f"{kernel} cpuset {_MOUNTED} Cpuset discarded.")
        host.cpuset_cpus = host.cpuset_mems = ""
    for asked, there, what in (
        (host.cpuset_cpus, abilities.cpus, "CPUs"), (host.cpuset_mems, abilities.memory_nodes, "memory nodes")
    ):  # fmt: skip
        if asked and not number_set(asked) <= number_set(there):
            raise InvalidArgument(f"Requested {what} are not available - requested {asked}, available: {there}")


def _adapt_io(host: HostConfig, abilities: Abilities, warn: Callable[[str], None]) -> None:
    kernel = "Your kernel does not support"
    if host.blkio_weight and not abilities.io_weight:
        warn(f"{kernel} Block I/O weight {_MOUNTED} Weight discarded.")
        host.blkio_weight = 0
    if host.blkio_weight_device and not abilities.io_weight:
        warn(f"{kernel} Block I/O weight_device {_MOUNTED} Weight-device discarded.")
        host.blkio_weight_device = []
    for field, unit, way in _THROTTLES:
        if getattr(host, field) and not abilities.io_throttle:
            warn(f"{kernel} {unit} Block I/O {way} limit {_MOUNTED} Block I/O {unit} {way} limit discarded.")
            setattr(host, field, [])
