"""`docker update`: the kernel has the new limits at once, and again after a restart."""

from pathlib import Path

import docker
import pytest

from .conftest import Daemon

V2 = not Path("/sys/fs/cgroup/memory").exists()
FILES = {
    "memory": ("memory/memory.limit_in_bytes", "memory.max"),
    "pids": ("pids/pids.max", "pids.max"),
    "quota": ("cpu/cpu.cfs_quota_us", "cpu.max"),
    "shares": ("cpu/cpu.shares", "cpu.weight"),
    "cpus": ("cpuset/cpuset.cpus", "cpuset.cpus"),
}


def seen(container: docker.models.containers.Container, what: str) -> str:
    """A limit as the container itself sees it."""
    path = f"/sys/fs/cgroup/{FILES[what][V2]}"
    text: str = container.exec_run(["cat", path]).output.decode().split()[0]
    return text


@pytest.fixture
def container(client: docker.DockerClient) -> docker.models.containers.Container:
    return client.containers.run("busybox", ["sleep", "100"], detach=True, mem_limit="64m", memswap_limit="128m")


def test_limits_hold_at_once_and_after_a_restart(container: docker.models.containers.Container) -> None:
    assert seen(container, "memory") == str(64 << 20)
    answer = container.update(mem_limit="100m", memswap_limit="200m", cpu_quota=50_000, cpuset_cpus="0", cpu_shares=512)
    assert answer == {"Warnings": None}
    for _ in range(2):
        assert seen(container, "memory") == str(100 << 20)
        assert seen(container, "quota") == "50000"
        assert seen(container, "cpus") == "0"
        assert seen(container, "shares") == ("20" if V2 else "512")
        container.restart(timeout=0)


def test_the_cli_changes_and_lifts_the_number_of_processes(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "100"], detach=True, name="few", pids_limit=50)
    assert daemon.cli("update", "--pids-limit", "33", "few").stdout == "few\n"
    assert seen(container, "pids") == "33"
    assert daemon.cli("update", "--pids-limit", "-1", "few").returncode == 0
    assert seen(container, "pids") == "max"
    assert daemon.cli("update", "--cpus", "0.5", "few").returncode == 0
    assert seen(container, "quota") == "50000"
    assert client.api.inspect_container("few")["HostConfig"]["NanoCpus"] == 500_000_000


def test_a_stopped_container_starts_with_the_new_limits(client: docker.DockerClient) -> None:
    container = client.containers.create("busybox", ["sleep", "100"])
    container.update(mem_limit="50m", memswap_limit="60m")
    container.start()
    assert seen(container, "memory") == str(50 << 20)


def test_the_restart_policy_changes(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.run("busybox", ["sleep", "100"], detach=True, name="policy")
    assert daemon.cli("update", "--restart", "on-failure:3", "policy").returncode == 0
    policy = client.api.inspect_container("policy")["HostConfig"]["RestartPolicy"]
    assert policy == {"Name": "on-failure", "MaximumRetryCount": 3}
    client.containers.run("busybox", ["sleep", "100"], detach=True, name="passing", auto_remove=True)
    done = daemon.cli("update", "--restart", "always", "passing")
    assert "Restart policy cannot be updated because AutoRemove is enabled for the container" in done.stderr


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"Memory": 4096}, 400, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 512 << 20}, 409, "Memory limit should be smaller than already set memoryswap limit"),
        ({"RestartPolicy": {"Name": "sometimes"}}, 400, "invalid restart policy 'sometimes'"),
        ({"CpusetCpus": "4096"}, 400, "Requested CPUs are not available - requested 4096"),
        ({"NanoCpus": 5_000_000_000_000}, 400, "range of CPUs is from 0.01 to"),
        ({"Devices": [{"PathOnHost": "/dev/null"}]}, 400, "Devices cannot be changed by an update"),
        ({"BlkioWeight": 5}, 400, "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    client: docker.DockerClient,
    container: docker.models.containers.Container,
    body: dict[str, object],
    status: int,
    words: str,
) -> None:
    url = client.api._url("/containers/{0}/update", container.id)
    response = client.api._post_json(url, data=body)
    assert (response.status_code, words in response.json()["message"]) == (status, True), response.text
    assert seen(container, "memory") == str(64 << 20)
    assert client.api.inspect_container(container.id)["HostConfig"]["Memory"] == 64 << 20


def test_a_limit_below_what_is_used_is_refused_by_the_kernel_or_reclaimed(client: docker.DockerClient) -> None:
    filled = client.containers.run(
        "busybox", ["sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=1M count=40; sleep 100"], detach=True,
        mem_limit="64m", memswap_limit="64m",
    )  # fmt: skip
    while b"41943040" not in filled.exec_run(["stat", "-c", "%s", "/dev/shm/x"]).output:
        pass
    url = client.api._url("/containers/{0}/update", filled.id)
    response = client.api._post_json(url, data={"Memory": 20 << 20, "MemorySwap": 20 << 20})
    filled.reload()
    if response.status_code != 200:  # version 1: EBUSY; version 2 may kill instead
        assert response.json()["message"].startswith(f"Cannot update container {filled.id}: ")
        assert seen(filled, "memory") == str(64 << 20)


def test_conflicting_ways_to_limit_processor_time(daemon: Daemon, client: docker.DockerClient) -> None:
    client.containers.run("busybox", ["sleep", "100"], detach=True, name="nano", nano_cpus=500_000_000)
    done = daemon.cli("update", "--cpu-period", "50000", "nano")
    assert "CPU Period cannot be updated as NanoCPUs has already been set" in done.stderr
