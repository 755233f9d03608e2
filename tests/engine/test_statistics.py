"""Statistics in Docker's shape, from readings that are given here."""

import asyncio
from pathlib import Path
from typing import Any

from minidocker.engine.containers import statistics
from minidocker.engine.containers.config import ContainerConfig, HostConfig
from minidocker.engine.containers.container import Container, Record
from minidocker.engine.containers.statistics import Sample, system_time
from minidocker.linux.cgroup_statistics import Cpu, IoEntry, Memory, Pids, Statistics

CONTAINER_ID = "c" * 64


def document(used: Statistics | None, before: Statistics | None = None, *, version_2: bool = False) -> dict[str, Any]:
    async def make() -> dict[str, Any]:
        record = Record(CONTAINER_ID, "one", "", "busybox", "", ContainerConfig(), HostConfig())
        container = Container(record, Path("/nowhere"))
        samples = [None if one is None else Sample("now", one, 77, 2, None) for one in (used, before)]
        return statistics.document(container, samples[0], samples[1], version_2=version_2)

    return asyncio.run(make())


def reading(**more: Any) -> Statistics:
    parts: dict[str, Any] = {"cpu": Cpu(10, 6, 4, (7, 3)), "memory": Memory(), "pids": Pids(2), "io_service_bytes": ()}
    return Statistics(**(parts | more))


def test_a_client_can_compute_the_share_from_two_samples() -> None:
    found = document(reading(cpu=Cpu(30, 20, 10)), reading())
    assert found["cpu_stats"]["cpu_usage"]["total_usage"] - found["precpu_stats"]["cpu_usage"]["total_usage"] == 20
    assert found["cpu_stats"]["system_cpu_usage"] == 77
    assert "percpu_usage" not in found["cpu_stats"]["cpu_usage"]
    assert list(found["precpu_stats"]["cpu_usage"]["percpu_usage"]) == [7, 3]


def test_memory_without_a_limit_shows_the_machines() -> None:
    machine = statistics.machine_memory()
    assert document(reading(memory=Memory(5, None, None, None)))["memory_stats"]["limit"] == machine
    assert document(reading(memory=Memory(5, None, 1 << 60, None)))["memory_stats"]["limit"] == machine
    limited = document(reading(memory=Memory(5, 9, 64 << 20, 3, {"cache": 1})))["memory_stats"]
    assert limited == {"usage": 5, "max_usage": 9, "failcnt": 3, "stats": {"cache": 1}, "limit": 64 << 20}


def test_version_2_has_no_highest_usage_and_writes_no_limit_of_processes_as_a_number() -> None:
    found = document(reading(memory=Memory(5, 9, None, None)), version_2=True)
    assert "max_usage" not in found["memory_stats"]
    assert found["pids_stats"] == {"current": 2, "limit": 2**64 - 1}
    assert document(reading())["pids_stats"] == {"current": 2}


def test_disk_tables() -> None:
    entry = IoEntry(8, 0, "Read", 512)
    found = document(reading(io_service_bytes=(entry,)))["blkio_stats"]
    assert found["io_service_bytes_recursive"] == [{"major": 8, "minor": 0, "op": "Read", "value": 512}]
    assert found["sectors_recursive"] == []
    assert document(reading(), version_2=True)["blkio_stats"]["sectors_recursive"] is None
    assert document(None)["blkio_stats"]["io_service_bytes_recursive"] is None


def test_the_machines_time_leaves_out_what_was_stolen() -> None:
    text = "cpu  1 1 1 1 1 1 1 100 100 100\ncpu0 0\ncpu1 0\nintr 1\n"
    assert system_time(text, 100) == (70_000_000, 2)
