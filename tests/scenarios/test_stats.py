"""`docker stats`: the numbers of the kernel, in Docker's shape, once and as a stream."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from .conftest import Daemon, make_daemon

NETWORK = {"rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "tx_bytes", "tx_packets", "tx_errors", "tx_dropped"}


def group_file(pid: int, controller: str, v1: str, v2: str) -> str:
    """The text of a file of the control group that a process is in."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return Path(f"/sys/fs/cgroup/{controller}{path}/{v1}").read_text().strip()
    path = Path(f"/proc/{pid}/cgroup").read_text().strip().rpartition("::")[2]
    return Path(f"/sys/fs/cgroup{path}/{v2}").read_text().strip()


@pytest.fixture
def networked(image_root: Path) -> Iterator[Daemon]:
    """A daemon with a bridge of its own."""
    yield from make_daemon(image_root, [])


def test_the_numbers_are_those_of_the_control_group(client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 100 & sleep 100 & wait"],
        detach=True, mem_limit="64m", pids_limit=17,
    )  # fmt: skip
    while client.api.stats(container.id, stream=False, one_shot=True)["pids_stats"]["current"] < 3:
        pass
    container.pause()  # nothing moves between the two readings
    pid = client.api.inspect_container(container.id)["State"]["Pid"]
    stats = client.api.stats(container.id, stream=False, one_shot=True)
    total = group_file(pid, "cpuacct", "cpuacct.usage", "cpu.stat")
    if total.startswith("usage_usec"):
        assert stats["cpu_stats"]["cpu_usage"]["total_usage"] == int(total.split()[1]) * 1000
    else:
        assert stats["cpu_stats"]["cpu_usage"]["total_usage"] == int(total)
        assert sum(stats["cpu_stats"]["cpu_usage"]["percpu_usage"]) == int(total)
    assert stats["pids_stats"] == {"current": 3, "limit": 17}
    assert stats["memory_stats"]["limit"] == 64 << 20
    used = int(group_file(pid, "memory", "memory.usage_in_bytes", "memory.current"))
    assert abs(stats["memory_stats"]["usage"] - used) < 1 << 20
    assert 0 <= stats["memory_stats"]["stats"]["inactive_file"] <= used
    assert (stats["name"], stats["id"]) == (f"/{container.name}", container.id)
    container.unpause()


def test_one_shot_has_no_earlier_sample_and_stream_0_has_one(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sh", "-c", "while :; do :; done"], detach=True)
    at_once = client.api.stats(container.id, stream=False, one_shot=True)
    assert at_once["preread"] == "0001-01-01T00:00:00Z"
    assert "system_cpu_usage" not in at_once["precpu_stats"]
    both = client.api.stats(container.id, stream=False)
    now, before = both["cpu_stats"], both["precpu_stats"]
    assert now["cpu_usage"]["total_usage"] > before["cpu_usage"]["total_usage"] > 0
    assert now["system_cpu_usage"] > before["system_cpu_usage"]
    assert now["online_cpus"] == before["online_cpus"] >= 1


def test_a_container_that_does_not_run_gives_zeros(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    stats = client.api.stats(container.id, stream=False)
    assert stats["read"] == "0001-01-01T00:00:00Z"
    assert (stats["memory_stats"], stats["pids_stats"]) == ({}, {})
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert stats["blkio_stats"]["io_service_bytes_recursive"] is None
    assert "networks" not in stats


def test_a_stream_ends_with_its_container(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "100"], detach=True)
    seen: list[dict[str, Any]] = []
    first = threading.Event()

    def read() -> None:
        for stats in client.api.stats(container.id, decode=True):
            seen.append(stats)
            first.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(20)
    container.kill()
    reader.join(20)
    assert not reader.is_alive()
    assert all(stats["read"] != "0001-01-01T00:00:00Z" for stats in seen)


def test_a_stream_and_one_shot_contradict_each_other(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", "true")
    response = client.api._get(client.api._url("/containers/{0}/stats", container.id), params={"one-shot": "1"})
    assert (response.status_code, response.json()["message"]) == (400, "cannot have stream=true and one-shot=true")


def test_the_docker_command_shows_them(daemon: Daemon) -> None:
    daemon.cli("run", "-d", "--name", "seen", "-m", "32m", "busybox", "sleep", "100")
    done = daemon.cli("stats", "--no-stream", "--format", "{{json .}}", "seen")
    row = json.loads(done.stdout)
    assert (row["Name"], row["PIDs"]) == ("seen", "1")
    assert row["MemUsage"].endswith("/ 32MiB")


def test_network_counters_are_seen_from_the_containers_side(networked: Daemon) -> None:
    client = networked.client()
    container = client.containers.run("busybox", ["sleep", "100"], detach=True)
    gateway = client.api.inspect_container(container.id)["NetworkSettings"]["Gateway"]
    container.exec_run(["ping", "-c", "3", "-s", "1000", gateway])
    inside = container.exec_run(["cat", "/proc/net/dev"]).output.decode()
    received, sent = (int(text) for text in (_field(inside, 0), _field(inside, 8)))
    stats = client.api.stats(container.id, stream=False, one_shot=True)
    assert set(stats["networks"]) == {"eth0"}
    assert set(stats["networks"]["eth0"]) == NETWORK
    assert stats["networks"]["eth0"]["tx_bytes"] >= sent >= 3 * 1000
    assert stats["networks"]["eth0"]["rx_bytes"] >= received >= 3 * 1000
    client.close()


def _field(text: str, column: int) -> str:
    line = next(line for line in text.splitlines() if line.strip().startswith("eth0:"))
    return line.partition(":")[2].split()[column]
