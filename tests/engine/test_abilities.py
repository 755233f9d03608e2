"""Wishes that a kernel cannot fulfil: dropped with Docker's warning, or refused."""

import pytest

from minidocker.engine.abilities import Abilities, adapt, number_set
from minidocker.engine.containers.config import HostConfig, ThrottleDevice, WeightDevice
from minidocker.errors import InvalidArgument

ALL = Abilities(cpus="0-3", memory_nodes="0", processors=4)
NONE = Abilities(
    memory=False, swap=False, swappiness=False, oom_kill_disable=False, pids=False, cpu=False, cpuset=False,
    io_weight=False, io_throttle=False,
)  # fmt: skip


def test_a_kernel_that_can_everything_drops_nothing() -> None:
    wish = HostConfig(memory=64 << 20, memory_swap=128 << 20, memory_swappiness=5, cpuset_cpus="1-2", pids_limit=3)
    assert adapt(wish, ALL) == (wish, [])


def test_version_2_has_neither_swappiness_nor_oom_kill_disable() -> None:
    modern = Abilities(swappiness=False, oom_kill_disable=False)
    wish = HostConfig(memory=64 << 20, memory_swappiness=5, oom_kill_disable=True)
    adapted, warnings = adapt(wish, modern)
    assert (adapted.memory_swappiness, adapted.oom_kill_disable, adapted.memory) == (None, None, 64 << 20)
    assert [text.partition(" support ")[2].split(" ")[0] for text in warnings] == ["memory", "OomKillDisable."]
    assert wish.oom_kill_disable is True
    assert adapt(HostConfig(oom_kill_disable=False), modern)[1] == []


def test_without_swap_accounting_memory_is_limited_alone() -> None:
    adapted, warnings = adapt(HostConfig(memory=64 << 20, memory_swap=128 << 20), Abilities(swap=False))
    assert (adapted.memory, adapted.memory_swap) == (64 << 20, -1)
    assert warnings == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    ]


def test_a_kernel_without_controllers_drops_everything_and_says_so() -> None:
    wish = HostConfig(
        memory=64 << 20, memory_reservation=32 << 20, memory_swappiness=1, oom_kill_disable=True, pids_limit=3,
        cpu_shares=5, cpu_quota=5000, cpuset_cpus="0", blkio_weight=500,
        blkio_weight_device=[WeightDevice("/dev/x", 5)],
        blkio_device_read_bps=[ThrottleDevice("/dev/x", 5)], blkio_device_write_iops=[ThrottleDevice("/dev/x", 5)],
    )  # fmt: skip
    adapted, warnings = adapt(wish, NONE)
    assert len(warnings) == 12
    left = HostConfig(memory_swap=-1, blkio_weight_device=[], blkio_device_read_bps=[], blkio_device_write_iops=[])
    assert adapted == left
    assert len(NONE.warnings()) == 6


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (HostConfig(cpuset_cpus="2-4"), "Requested CPUs are not available - requested 2-4, available: 0-3"),
        (HostConfig(cpuset_mems="1"), "Requested memory nodes are not available - requested 1, available: 0"),
        (HostConfig(nano_cpus=4_000_000_001), "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs"),
    ],
)
def test_processors_that_are_not_there_are_refused(wish: HostConfig, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        adapt(wish, ALL)


def test_lists_of_numbers() -> None:
    assert number_set("0-2,7, 9") == {0, 1, 2, 7, 9}
    for bad in ("", "a", "1-", "-1", "1-99999999999"):
        with pytest.raises(InvalidArgument, match="invalid format"):
            number_set(bad)


def test_this_host_is_looked_at() -> None:
    found = Abilities.detect()
    assert found.processors >= 1
    assert 0 in number_set(found.cpus)
