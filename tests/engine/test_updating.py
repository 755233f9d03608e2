"""Updates: what a wish changes, what contradicts it."""

import pytest

from minidocker.engine.containers.config import ContainerConfig, HostConfig, RestartPolicy
from minidocker.engine.containers.container import Record
from minidocker.engine.containers.updating import changes, merge, read_update
from minidocker.errors import Conflict, InvalidArgument
from minidocker.oci import runtime_spec as oci


def record(**host: object) -> Record:
    return Record("c" * 64, "one", "", "busybox", "", ContainerConfig(), HostConfig(**host))  # type: ignore[arg-type]


def test_zero_and_empty_leave_things_as_they_are() -> None:
    before = record(memory=64 << 20, cpuset_cpus="0", pids_limit=7)
    wish = read_update({"Memory": 0, "CpusetCpus": "", "RestartPolicy": {"Name": "", "MaximumRetryCount": 0},
                        "Devices": None, "Ulimits": []})  # fmt: skip
    assert merge(before, wish) == before.host


def test_what_is_said_changes() -> None:
    wish = read_update({"Memory": 32 << 20, "MemorySwap": -1, "PidsLimit": 0, "RestartPolicy": {"Name": "always"}})
    merged = merge(record(memory=64 << 20, memory_swap=128 << 20, pids_limit=7), wish)
    assert (merged.memory, merged.memory_swap, merged.pids_limit) == (32 << 20, -1, 0)
    assert merged.restart_policy == RestartPolicy("always")


@pytest.mark.parametrize(
    ("host", "body", "words"),
    [
        ({"nano_cpus": 5}, {"CpuPeriod": 1000}, "CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"nano_cpus": 5}, {"CpuQuota": 1000}, "CPU Quota cannot be updated as NanoCPUs has already been set"),
        ({"cpu_quota": 5}, {"NanoCpus": 5}, "Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"memory": 8 << 20, "memory_swap": 9 << 20}, {"Memory": 10 << 20}, "smaller than already set memoryswap"),
        ({"auto_remove": True}, {"RestartPolicy": {"Name": "always"}}, "because AutoRemove is enabled"),
    ],
)
def test_contradictions_are_conflicts(host: dict[str, object], body: dict[str, object], words: str) -> None:
    with pytest.raises(Conflict, match=words):
        merge(record(**host), read_update(body))


def test_fields_that_cannot_change_are_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="CgroupParent cannot be changed"):
        read_update({"CgroupParent": "/elsewhere"})


def test_a_lifted_number_of_processes_is_written_as_no_limit() -> None:
    before, after = oci.Resources(pids=oci.Pids(7)), oci.Resources(memory=oci.Memory(limit=5))
    assert changes(before, after, lift_pids=True) == oci.Resources(memory=oci.Memory(limit=5), pids=oci.Pids(-1))
    assert changes(oci.Resources(), after, lift_pids=False).pids is None
