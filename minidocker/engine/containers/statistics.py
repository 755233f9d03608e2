"""What a running container uses, in the shape that `docker stats` computes from.

Source  Docker Engine API 1.44, ContainerStats; replies recorded from dockerd; proc_stat(5).
Rules   - one sample is one reading of the control group, the processor's clock and the network counters.
        - a document carries the sample before it too (precpu_stats): a client computes shares from the difference.
        - a container that does not run gives zeros, as Docker does; a stream of one that runs ends with it.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minidocker.engine import clock
from minidocker.engine.containers.container import RESTARTING, Container
from minidocker.errors import Conflict, MinidockerError, NotFound
from minidocker.linux import cgroups
from minidocker.linux.cgroup_statistics import IoEntry
from minidocker.linux.cgroups import Statistics

if TYPE_CHECKING:
    from minidocker.engine.engine import Engine

Document = dict[str, Any]

PERIOD_SECONDS = 1.0
_NO_LIMIT = 2**64 - 1
_BLKIO = (
    "io_service_bytes_recursive", "io_serviced_recursive", "io_queue_recursive", "io_service_time_recursive",
    "io_wait_time_recursive", "io_merged_recursive", "io_time_recursive", "sectors_recursive",
)  # fmt: skip
# user, nice, system, idle, iowait, irq, softirq: what Docker adds up to "the system's processor time".
_COUNTED_TIMES = 7


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading. `system_ns`: processor time of the whole machine; `networks` None: not its own."""

    read: str
    used: Statistics
    system_ns: int
    online_cpus: int
    networks: dict[str, dict[str, int]] | None


def system_time(text: str, ticks_per_second: int) -> tuple[int, int]:
    """Nanoseconds that all processors have spent, idle too, and how many there are; from the text of /proc/stat.

    >>> system_time("cpu  1 2 3 4 0 0 0 9 0 0\\ncpu0 1 2 3 4 0 0 0 9 0 0\\nintr 5\\n", 100)
    (100000000, 1)
    """
    lines = [line.split() for line in text.splitlines() if line.startswith("cpu")]
    ticks = sum(map(int, lines[0][1 : 1 + _COUNTED_TIMES]))
    return ticks * 1_000_000_000 // ticks_per_second, len(lines) - 1


def _cpu(sample: Sample | None) -> Document:
    """cpu_stats or precpu_stats."""
    usage: Document = {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0}
    throttling = {"periods": 0, "throttled_periods": 0, "throttled_time": 0}
    if sample is None:
        return {"cpu_usage": usage, "throttling_data": throttling}
    cpu = sample.used.cpu
    usage |= {
        "total_usage": cpu.total_ns, "usage_in_kernelmode": cpu.kernel_ns, "usage_in_usermode": cpu.user_ns
    }  # fmt: skip
    if cpu.percpu_ns:
        usage["percpu_usage"] = cpu.percpu_ns
    throttling = {
        "periods": cpu.periods, "throttled_periods": cpu.throttled_periods, "throttled_time": cpu.throttled_ns
    }  # fmt: skip
    return {
        "cpu_usage": usage,
        "system_cpu_usage": sample.system_ns,
        "online_cpus": sample.online_cpus,
        "throttling_data": throttling,
    }


def _memory(used: Statistics, machine_bytes: int) -> Document:
    memory = used.memory
    document: Document = {"usage": memory.usage_bytes, "stats": memory.stats}
    if memory.failcnt is not None:  # version 1; the version 2 document has neither of these
        document |= {"max_usage": memory.max_usage_bytes or 0}
        if memory.failcnt:
            document["failcnt"] = memory.failcnt
    limit = machine_bytes if memory.limit_bytes is None else min(memory.limit_bytes, machine_bytes)
    return document | {"limit": limit}


def _pids(used: Statistics, *, version_2: bool) -> Document:
    document: Document = {"current": used.pids.current}
    if used.pids.limit is not None:
        document["limit"] = used.pids.limit
    elif version_2:
        document["limit"] = _NO_LIMIT
    return document


def _io(entries: tuple[IoEntry, ...]) -> list[Document]:
    return [{"major": one.major, "minor": one.minor, "op": one.op, "value": one.value} for one in entries]


def _block(used: Statistics | None, *, version_2: bool) -> Document:
    """Version 2 counts bytes only, so Docker leaves the other tables null there."""
    document: Document = dict.fromkeys(_BLKIO, None if version_2 or used is None else [])
    if used is not None:
        document["io_service_bytes_recursive"] = _io(used.io_service_bytes)
        if used.io_serviced:
            document["io_serviced_recursive"] = _io(used.io_serviced)
    return document


def document(container: Container, sample: Sample | None, before: Sample | None, *, version_2: bool) -> Document:
    """One object of the stream. `sample` None: the container does not run."""
    used = sample.used if sample is not None else None
    found: Document = {
        "read": sample.read if sample is not None else clock.NEVER,
        "preread": before.read if before is not None else clock.NEVER,
        "pids_stats": _pids(used, version_2=version_2) if used is not None else {},
        "blkio_stats": _block(used, version_2=version_2),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(sample),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(used, machine_memory()) if used is not None else {},
        "name": f"/{container.name}",
        "id": container.id,
    }
    if sample is not None and sample.networks is not None:
        found["networks"] = sample.networks
    return found


def machine_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Sampler:
    """Takes samples of the containers of one engine."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._version_2 = cgroups.version() == "v2"
        self._ticks = os.sysconf("SC_CLK_TCK")

    def _networks(self, container: Container) -> dict[str, dict[str, int]] | None:
        """By interface, counted from the container's side; of the container whose network it shares, if it does."""
        mode = container.record.host.network_mode
        if mode.startswith("container:"):
            container = self._engine.containers.get(mode.removeprefix("container:"))
        attached = list(container.record.attached.items())
        if not attached:
            return None
        names = [f"{way}_{what}" for way in ("rx", "tx") for what in ("bytes", "packets", "errors", "dropped")]
        found = {}
        for network, endpoint in attached:
            counted = self._engine.networks.bridge(network).statistics(endpoint)
            found[endpoint.interface] = {name: counted.get(name, 0) for name in names}
        return found

    def _read(self, container: Container) -> Sample | None:
        """In a thread. None: it has ended."""
        try:
            used = self._engine.runtime.statistics(container.id)
            networks = self._networks(container)
        except (NotFound, Conflict):
            return None
        system_ns, online = system_time(Path("/proc/stat").read_text(), self._ticks)
        return Sample(clock.text_of(time.time_ns()), used, system_ns, online, networks)

    async def _sample(self, container: Container) -> Sample | None:
        if not container.state.running:
            return None
        try:
            return await asyncio.to_thread(self._read, container)
        except MinidockerError:
            if container.state.running:
                raise
            return None

    async def once(self, container: Container, *, one_shot: bool) -> Document:
        """One document. Without `one_shot` it takes two samples, a second apart, so that shares can be computed."""
        before = None
        if not one_shot and container.state.running:
            before = await self._sample(container)
            await _pause(container)
        sample = await self._sample(container)
        return document(container, sample, before if sample is not None else None, version_2=self._version_2)

    async def stream(self, container: Container) -> AsyncGenerator[Document, None]:
        """A document a second, until the container ends, or, if it does not run, until it is removed."""
        began_running = container.state.running
        before = None
        while not container.removed:
            sample = await self._sample(container)
            if sample is None and began_running and container.state.status != RESTARTING:
                return
            began_running = began_running or sample is not None
            yield document(container, sample, before, version_2=self._version_2)
            before = sample
            await _pause(container)


async def _pause(container: Container) -> None:
    """Wait for a second, less if the container ends or is removed first."""
    ended = [container.exit_future(), container.removal_future()]
    try:
        await asyncio.wait(ended, timeout=PERIOD_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in ended:
            future.cancel()
